import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { codeOf } from '#platform/errors.ts';
import { FakeClock } from '#platform/fake-clock.ts';
import { createLogger } from '#platform/log.ts';
import { turnCredentials, TurnServers } from './turn.ts';

const log = createLogger({ name: 'test', level: 'silent' });

void describe('TURN', () => {
  void it('credentials are the HMAC of expiry and identity, as coturn makes it', () => {
    // printf '1800003600:alice' | openssl dgst -sha1 -hmac secret -binary | base64
    assert.deepEqual(turnCredentials('secret', 'alice', 1_800_003_600), {
      username: '1800003600:alice',
      credential: '9vwVyEU3Pjn5UVy6uoaN3DNs8VU=',
    });
  });

  void it('servers are told with credentials that end after their time', async (context) => {
    const directory = await mkdtemp(join(tmpdir(), 'weir-turn-'));
    context.after(() => rm(directory, { recursive: true }));
    const secretFile = join(directory, 'secret');
    const urls = ['turn:turn.example.org:3478', 'turns:turn.example.org:5349'];
    const create = () =>
      TurnServers.create({ urls, secretFile, ttlSeconds: 3600 }, new FakeClock(1_800_000_000_000), log);
    await assert.rejects(create, (error) => codeOf(error) === 'BadTurnSecret');
    await writeFile(secretFile, '\n');
    await assert.rejects(create, (error) => codeOf(error) === 'BadTurnSecret');
    await writeFile(secretFile, 'secret\n');
    const turn = await create();
    context.after(() => turn.close());
    const [server] = turn.iceServers('alice');
    assert.deepEqual(server?.urls, urls);
    assert.deepEqual(
      { username: server.username, credential: server.credential },
      turnCredentials('secret', 'alice', 1_800_003_600),
    );
  });
});
