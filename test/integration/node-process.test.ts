import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { Kvm } from '@nats-io/kv';
import { connect as dial, createServer } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
import { ROUTES_BUCKET, subjects } from '#platform/subjects.ts';
import { locateBinaries } from '#tools/local/binaries.ts';
import { LocalAuthority } from '#tools/local/certificates.ts';
import { eventually } from '#tools/local/eventually.ts';
import { LocalNats } from '#tools/local/nats.ts';
import { freePort } from '#tools/local/ports.ts';
import { LocalProcess } from '#tools/local/process.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';
import { apiKey, apiSecret } from './node-edges.ts';

interface State {
  pid: number;
  http: string;
  signal: string;
  control: string;
  node: string;
  region: string;
}

const dir = temporaryDirectory('node-process');
const processes: LocalProcess[] = [];
let nats: LocalNats;
let operator: NatsConnection;
let started = 0;

before(async () => {
  nats = await LocalNats.start({ dir: join(dir, 'nats') });
  const { user, password } = nats.users.operator;
  operator = await connect({ servers: nats.url, user, pass: password, maxReconnectAttempts: -1 });
  // What the leading operator makes.
  await new Kvm(operator).create(ROUTES_BUCKET);
  const authority = await LocalAuthority.create('fleet');
  await writeFile(join(dir, 'ca.crt'), authority.certificate);
  await authority.issueFiles(dir, 'node', { subject: 'OU=sfu-node,CN=sfu-1', names: ['sfu-1'] });
  await writeFile(join(dir, 'keys.yaml'), `- { key: ${apiKey}, secret: "${apiSecret}" }\n`);
});

afterEach(async () => {
  await Promise.all(processes.splice(0).map((process) => process.stop()));
});

after(async () => {
  await operator?.close();
  await nats?.stop();
});

function launch(
  env: Record<string, string | undefined>,
  ready?: () => Promise<boolean>,
  log = '',
): Promise<LocalProcess> {
  return LocalProcess.start({
    name: 'sfu-node',
    command: process.execPath,
    args: [join(import.meta.dirname, '../../sfu-node/main.ts')],
    logFile: log,
    readyTimeoutMs: 20_000,
    ready,
    env: {
      WEIR_NODE_NAME: 'sfu-1',
      WEIR_REGION: 'eu-north',
      WEIR_NATS_URL: nats.url,
      WEIR_NATS_USER: nats.users['sfu-node'].user,
      WEIR_NATS_PASSWORD: nats.users['sfu-node'].password,
      WEIR_TLS_CA_FILE: join(dir, 'ca.crt'),
      WEIR_TLS_CERT_FILE: join(dir, 'node.crt'),
      WEIR_TLS_KEY_FILE: join(dir, 'node.key'),
      WEIR_HTTP_LISTEN: '127.0.0.1:0',
      WEIR_SIGNAL_LISTEN: '127.0.0.1:0',
      WEIR_CONTROL_LISTEN: '127.0.0.1:0',
      WEIR_MEDIA_LISTEN_IP: '127.0.0.1',
      WEIR_WORKERS: '1',
      WEIR_API_KEYS_FILE: join(dir, 'keys.yaml'),
      MEDIASOUP_WORKER_BIN: locateBinaries()['mediasoup-worker'],
      ...env,
    },
  });
}

async function start(
  env: Record<string, string | undefined> = {},
): Promise<{ state: State; log: () => Promise<string> }> {
  const stateFile = join(dir, `state-${++started}.json`);
  const logFile = join(dir, `node-${started}.log`);
  let state: State | undefined;
  const ready = async () => {
    state = JSON.parse(await readFile(stateFile, 'utf8')) as State;
    return true;
  };
  processes.push(await launch({ ...env, WEIR_STATE_FILE: stateFile }, ready, logFile));
  assert.ok(state);
  return { state, log: () => readFile(logFile, 'utf8') };
}

/** Runs a node that cannot start, and answers with its exit code and words. */
async function failure(env: Record<string, string | undefined>): Promise<{ code: number | null; words: string }> {
  const logFile = join(dir, `failing-${++started}.log`);
  const process = await launch(env, undefined, logFile);
  processes.push(process);
  const { code } = await process.exited;
  return { code, words: await readFile(logFile, 'utf8') };
}

describe('an sfu-node', () => {
  test('says in every heartbeat all that the fleet needs to know', async () => {
    const beats = heartbeats();
    const { state } = await start({ WEIR_LABELS: 'disk=ssd', WEIR_ZONE: 'z1', WEIR_CAPACITY_STREAMS: '77' });
    await eventually(() => beats.length >= 3);
    const [first, second] = beats;
    assert.ok(first && second);
    assert.equal(second.sequence, first.sequence + 1);
    assert.equal(second.instance, first.instance);
    assert.deepEqual([first.node, first.region, first.zone], ['sfu-1', 'eu-north', 'z1']);
    assert.deepEqual(first.labels, { disk: 'ssd' });
    assert.equal(first.capacity?.streams, 77);
    assert.equal(first.configured?.streams, 77);
    assert.equal(first.controlAddress, state.control);
    assert.equal(first.url, state.signal);
    assert.deepEqual(first.addresses, ['127.0.0.1']);
    assert.equal(first.load?.workers, 1);
    assert.equal(first.draining, false);
    await eventually(async () => (await fetch(`http://${state.http}/readyz`)).status === 200);
    assert.match(await (await fetch(`http://${state.http}/metrics`)).text(), /^sfu_workers 1$/m);
  });

  test('says that it leaves with its last heartbeat, and ends within seconds of SIGTERM', async () => {
    const beats = heartbeats();
    const { state } = await start();
    await eventually(() => beats.length > 0);
    const at = Date.now();
    process.kill(state.pid, 'SIGTERM');
    const exit = await processes[0]?.exited;
    assert.equal(exit?.code, 0);
    assert.ok(Date.now() - at < 4_000);
    await operator.flush();
    const last = beats.at(-1);
    assert.deepEqual([last?.draining, last?.leaving], [true, true]);
    assert.ok(beats.some(({ draining }) => !draining));
    assert.equal(beats.filter(({ leaving }) => leaving).length, 1);
  });

  test('starts without NATS, says so, and is ready when NATS comes', async () => {
    const port = await freePort('127.0.0.1');
    const { state, log } = await start({ WEIR_NATS_URL: `nats://127.0.0.1:${port}` });
    assert.match(await log(), /NatsUnreachable.*check WEIR_NATS_URL/);
    assert.equal((await fetch(`http://${state.http}/healthz`)).status, 200);
    assert.equal((await fetch(`http://${state.http}/readyz`)).status, 503);
    const relay = forward(port, Number(new URL(nats.url).port));
    try {
      await eventually(async () => (await fetch(`http://${state.http}/readyz`)).status === 200);
    } finally {
      relay.close();
    }
  });

  test('with wrong NATS credentials says which to check and keeps trying', async () => {
    const { state, log } = await start({ WEIR_NATS_PASSWORD: 'wrong-password-1' });
    await eventually(async () => /NatsAuthorization.*WEIR_NATS_PASSWORD/.test(await log()));
    assert.doesNotMatch(await log(), /wrong-password-1/);
    assert.equal((await fetch(`http://${state.http}/healthz`)).status, 200);
  });
});

describe('an sfu-node that cannot start ends with code 1 and says why', () => {
  for (const variable of ['WEIR_SIGNAL_LISTEN', 'WEIR_CONTROL_LISTEN', 'WEIR_HTTP_LISTEN']) {
    test(`when the port of ${variable} is in use`, async () => {
      const other = createServer();
      await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
      const { port } = other.address() as { port: number };
      try {
        const { code, words } = await failure({ [variable]: `127.0.0.1:${port}` });
        assert.equal(code, 1);
        assert.match(words, new RegExp(`PortInUse: port ${port} .*${variable}`));
      } finally {
        other.close();
      }
    });
  }

  test('when its configuration is wrong, all of it at once', async () => {
    const { code, words } = await failure({ WEIR_NATS_URL: undefined, WEIR_WORKERS: 'many' });
    assert.equal(code, 1);
    assert.match(words, /BadConfiguration.*WEIR_NATS_URL is not set.*WEIR_WORKERS: "many"/);
  });

  test('when its API keys cannot be read', async () => {
    const { code, words } = await failure({ WEIR_API_KEYS_FILE: join(dir, 'nowhere.yaml') });
    assert.equal(code, 1);
    assert.match(words, /BadApiKeys.*WEIR_API_KEYS_FILE/);
  });
});

function heartbeats(): Heartbeat[] {
  const beats: Heartbeat[] = [];
  operator.subscribe(subjects.heartbeat('sfu-1'), {
    callback: (_error, message) => void beats.push(Heartbeat.decode(message.data)),
  });
  return beats;
}

/** NATS behind a port that opens later. */
function forward(port: number, to: number) {
  const sockets = new Set<{ destroy(): void }>();
  const server = createServer((inward) => {
    const outward = dial(to, '127.0.0.1');
    for (const socket of [inward, outward]) {
      sockets.add(socket);
      socket.on('error', () => {});
    }
    inward.pipe(outward).pipe(inward);
  });
  server.listen(port, '127.0.0.1');
  return {
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
