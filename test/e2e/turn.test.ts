import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { eventually, temporaryDirectory } from '#test/fleet/mod.ts';
import { withFreePort } from '#tools/local/ports.ts';
import { LocalProcess } from '#tools/local/process.ts';
import { closeAll, Party, plays } from './party.ts';

/** A real coturn, whose secret the nodes know. Clients are told to use nothing else. */
const secret = 'what coturn and the nodes share';
let dir: string;
let coturn: LocalProcess;
let party: Party;
const found = spawnSync('turnserver', ['--version']).error === undefined;
const options = { skip: found ? false : 'needs coturn: apt-get install coturn', timeout: 120_000 };

before(async () => {
  if (!found) return;
  dir = temporaryDirectory('turn');
  const secretFile = join(dir, 'secret');
  await writeFile(secretFile, secret);
  let url = '';
  coturn = await withFreePort('127.0.0.1', (port) => {
    url = `turn:127.0.0.1:${port}?transport=udp`;
    return startCoturn(port);
  });
  const nodeEnv = { WEIR_TURN_URLS: url, WEIR_TURN_SECRET_FILE: secretFile };
  party = await Party.start('turn', { nodes: [{ name: 'sfu-a', region: 'eu-west' }], nodeEnv });
});

after(async () => {
  await party?.close();
  await coturn?.stop();
});

function startCoturn(port: number): Promise<LocalProcess> {
  const logFile = join(dir, 'coturn.log');
  const where = ['--listening-ip=127.0.0.1', '--relay-ip=127.0.0.1', `--listening-port=${port}`];
  const what = ['--use-auth-secret', `--static-auth-secret=${secret}`, '--realm=weir.test', '--allow-loopback-peers'];
  const how = ['-n', '--no-tls', '--no-dtls', '--no-cli', '--log-file=stdout', '--verbose'];
  return LocalProcess.start({
    name: 'coturn',
    command: 'turnserver',
    args: [...how, ...where, ...what, `--pidfile=${join(dir, 'coturn.pid')}`, `--userdb=${join(dir, 'coturn.db')}`],
    logFile,
    ready: async () => (await readFile(logFile, 'utf8')).includes(`UDP listener opened on: 127.0.0.1:${port}`),
  });
}

test('clients that may only relay meet over coturn, with credentials of their own', options, async () => {
  const room = party.newRoom();
  const ada = await party.join(room, 'ada', { relayOnly: true });
  const bob = await party.join(room, 'bob', { relayOnly: true });
  await ada.publish({ camera: true, microphone: true });
  await plays(bob, 'ada', 'camera');
  await plays(bob, 'ada', 'microphone');
  const log = await readFile(coturn.logFile, 'utf8');
  for (const identity of ['ada', 'bob']) {
    assert.match(log, new RegExp(`user <\\d+:${identity}>: incoming packet ALLOCATE processed, success`));
  }
  await closeAll(ada, bob);
});

test('a secret that was changed is used without a restart', options, async () => {
  await writeFile(join(dir, 'secret'), 'something that coturn does not know');
  const nodeLog = () => readFile(join(party.fleet.dir, 'logs', 'sfu-a.log'), 'utf8');
  await eventually(async () => (await nodeLog()).includes('The secret of TURN servers was read again'), {
    timeoutMs: 20_000,
    what: 'the node to read the secret again',
  });
  const joins = party.join(party.newRoom(), 'cyd', { relayOnly: true });
  joins.catch(() => undefined);
  const isRefused = async () =>
    /user <\d+:cyd>: incoming packet \w+ processed, error 401/.test(await readFile(coturn.logFile, 'utf8'));
  await eventually(isRefused, { timeoutMs: 20_000, what: 'coturn to refuse what the changed secret signs' });
});
