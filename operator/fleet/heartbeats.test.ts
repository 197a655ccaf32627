import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
import { heartbeatReceiver, parseHeartbeat } from './heartbeats.ts';

const encode = (more: Partial<Heartbeat>) =>
  Heartbeat.encode(
    Heartbeat.create({ node: 'sfu-1', instance: 'i', region: 'eu-west', sequence: 1, ...more }),
  ).finish();

test('a heartbeat on its own subject is taken', () => {
  assert.equal(parseHeartbeat('weir.heartbeat.sfu-1', encode({})).node, 'sfu-1');
});

for (const { says, subject = 'weir.heartbeat.sfu-1', data } of [
  { says: 'bytes that are no protobuf', data: new Uint8Array([255, 255, 255, 255, 255]) },
  { says: "another node's name", data: encode({ node: 'sfu-2' }) },
  { says: 'a name that is no DNS label', subject: 'weir.heartbeat.SFU', data: encode({ node: 'SFU' }) },
  { says: 'no instance', data: encode({ instance: '' }) },
  { says: 'a region that no SfuNode can have', data: encode({ region: 'EU West' }) },
  { says: 'nothing at all', data: new Uint8Array() },
]) {
  test(`a heartbeat with ${says} is dropped, and nothing breaks`, () => {
    const taken: Heartbeat[] = [];
    const registry = { heartbeat: (heartbeat: Heartbeat) => void taken.push(heartbeat) };
    heartbeatReceiver(registry, pino({ level: 'silent' }))({ subject, data });
    assert.deepEqual(taken, []);
  });
}
