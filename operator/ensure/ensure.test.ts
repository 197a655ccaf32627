import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { pino } from 'pino';
import type { Demand, DemandAnswer } from '#core/placement/mod.ts';
import type { Room } from '#crds/room.ts';
import { FakeClock } from '#platform/fake-clock.ts';
import { nextStatus, placementFields } from '../room/status.ts';
import { createdByAnnotation, preferredRegionAnnotation, roomNameOf } from '../room/translate.ts';
import { EnsureResponder, objectName } from './ensure.ts';
import type { ResourceClient } from '../runtime/kube.ts';

let clock: FakeClock;
let rooms: Map<string, Room>;
let responder: EnsureResponder;
let answerTo: (demand: Demand) => DemandAnswer;

beforeEach(() => {
  clock = new FakeClock();
  rooms = new Map();
  answerTo = () => ({ kind: 'met' });
  const client = {
    create: (room: Room) => {
      const made = { ...room, metadata: { ...room.metadata, uid: `uid-${rooms.size}`, generation: 1 } };
      rooms.set(`default/${room.metadata.name}`, made);
      return Promise.resolve(made);
    },
  };
  responder = new EnsureResponder({
    client: client as unknown as ResourceClient<Room>,
    find: (roomName) => rooms.values().find((room) => roomNameOf(room) === roomName),
    exists: (key) => rooms.has(key),
    demand: (_room, demand) => answerTo(demand),
    observeWrite: () => undefined,
    namespace: 'default',
    clock,
    log: pino({ level: 'silent' }),
  });
});

function serve(key: string): void {
  const room = rooms.get(key);
  assert.ok(room, `there is no ${key}, only ${[...rooms.keys()].join()}`);
  room.status = nextStatus(room.status, {
    ...placementFields(1, [{ node: 'sfu-1', region: 'eu-west', role: 'Edge' }]),
    wanted: { Ready: { status: 'True', reason: 'Serving', message: '' } },
    generation: 1,
    now: clock.now(),
  });
}

const ask = (roomName: string, create = true, full: string[] = []) =>
  responder.ensure({ roomName, region: 'eu-west', create, full });

test('a room that nobody made is made, near to who asked, and answered when it is served', async () => {
  const answer = ask('daily');
  await clock.run(100);
  const { metadata } = rooms.get('default/daily')!;
  assert.equal(metadata.annotations?.[createdByAnnotation], 'join');
  assert.equal(metadata.annotations?.[preferredRegionAnnotation], 'eu-west');
  serve('default/daily');
  await clock.run(100);
  assert.equal((await answer).nodes[0]?.node, 'sfu-1');
});

test('a room that is not served in time is answered with the reason', async () => {
  const answer = assert.rejects(ask('daily'), { code: 'RoomNotReady', message: /It was not placed yet/ });
  await clock.run(10_000);
  await answer;
});

test('a room on its way out is waited for, and another made', async () => {
  void ask('daily').catch(() => undefined);
  await clock.run(20);
  const first = rooms.get('default/daily')!;
  serve('default/daily');
  first.metadata.deletionTimestamp = new Date(clock.now());
  rooms.clear();
  const answer = ask('daily');
  await clock.run(20);
  assert.notEqual(rooms.get('default/daily'), first);
  serve('default/daily');
  await clock.run(20);
  assert.equal((await answer).room?.roomName, 'daily');
});

test('a room that gets another node for the client is answered when that serves too', async () => {
  void ask('daily').catch(() => undefined);
  await clock.run(20);
  serve('default/daily');
  let answered = false;
  answerTo = () => ({ kind: 'extend' });
  const answer = ask('daily', false, ['sfu-1']).finally(() => (answered = true));
  await clock.run(100);
  assert.equal(answered, false);
  answerTo = () => ({ kind: 'met' });
  await clock.run(20);
  assert.equal((await answer).room?.roomName, 'daily');
});

test('a room that cannot get a node near the client is answered as it is, at once', async () => {
  answerTo = () => ({ kind: 'asIs' });
  const answer = ask('daily');
  await clock.run(20);
  serve('default/daily');
  await clock.run(20);
  assert.equal((await answer).nodes[0]?.node, 'sfu-1');
});

test('a room whose nodes are all full is refused with what other nodes lack', async () => {
  const refusal = { refused: true, reason: 'NodeFull', message: '0 of 1 nodes fit: 1 is full.' } as const;
  answerTo = () => ({ kind: 'full', refusal });
  const answer = assert.rejects(ask('daily', true, ['sfu-1']), { code: 'NoCapacity', message: /1 is full/ });
  await clock.run(20);
  serve('default/daily');
  await clock.run(20);
  await answer;
});

test('a name that another Room object has is not a hindrance', async () => {
  rooms.set('default/daily', { metadata: { name: 'daily', namespace: 'default' }, spec: { roomName: 'weekly' } });
  void ask('daily').catch(() => undefined);
  await clock.run(20);
  assert.deepEqual(
    [...rooms.values()].map(({ spec }) => spec.roomName),
    ['weekly', 'daily'],
  );
});

test('who may not make rooms is told so', async () => {
  await assert.rejects(ask('daily', false), { code: 'RoomNotFound', message: /may not make rooms/ });
  assert.equal(rooms.size, 0);
});

for (const [roomName, expected] of [
  ['daily', /^daily$/],
  ['Team Meeting/1', /^team-meeting-1-[0-9a-f]{10}$/],
  ['日本', /^room-[0-9a-f]{10}$/],
  ['a'.repeat(100), /^a{40}-[0-9a-f]{10}$/],
  ['-', /^room-[0-9a-f]{10}$/],
] as const) {
  test(`an object for room "${roomName.slice(0, 20)}" has a name that Kubernetes takes`, () => {
    assert.match(objectName(roomName), expected);
    assert.equal(objectName(roomName), objectName(roomName));
  });
}

test('names that look alike get different objects', () => {
  assert.notEqual(objectName('Daily'), objectName('DAILY'));
});
