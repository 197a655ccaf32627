import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { pino } from 'pino';
import type { AssignmentStatus, NodeEvent, RoomRef } from '#proto/weir/control/v1/control.ts';
import type { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
import { FakeClock } from '#platform/fake-clock.ts';
import { lostAfterMs, NodeRegistry } from './node-registry.ts';

const beatMs = 200;

let clock: FakeClock;
let registry: NodeRegistry;
/** What listeners were told, without the ordinary reports. */
let told: string[];
let sequence: number;

beforeEach(() => {
  clock = new FakeClock();
  registry = new NodeRegistry({ clock, log: pino({ level: 'silent' }) });
  told = [];
  sequence = 0;
  registry.onChange((name, change) => {
    if (change !== 'report') told.push(`${name} ${change}`);
  });
  registry.resume();
});

function heartbeat(node: string, more: Partial<Heartbeat> = {}): Heartbeat {
  return {
    node,
    instance: 'first',
    sequence: ++sequence,
    region: 'eu-west',
    zone: '',
    controlAddress: '127.0.0.1:1',
    url: 'ws://127.0.0.1:2',
    addresses: ['127.0.0.1'],
    version: '0.1.0',
    labels: {},
    capacity: { streams: 500, mbps: 500 },
    load: { workers: 1, rooms: 0, participants: 0, streams: 0, mbps: 0, cpu: 0, eventLoopLagMs: 0 },
    reliability: { joinsSucceeded: 0, joinsFailed: 0, linkLoss: 0 },
    draining: false,
    pod: undefined,
    configured: undefined,
    limitedBy: '',
    leaving: false,
    ...more,
  };
}

/** Lets time pass with a heartbeat of each node every 200 ms. */
function beat(nodes: string[], ms: number): void {
  for (let passed = 0; passed < ms; passed += beatMs) {
    clock.advance(beatMs);
    for (const node of nodes) registry.heartbeat(heartbeat(node));
  }
}

const room = (name: string): RoomRef => ({ uid: `uid-${name}`, namespace: 'default', name, roomName: name });
const status = (name: string, epoch = 1): AssignmentStatus => ({
  room: room(name),
  epoch,
  generation: 1,
  participants: 0,
  links: [],
  streams: 0,
});
const snapshot = (instance: string, ...assignments: AssignmentStatus[]): NodeEvent => ({
  instance,
  event: {
    $case: 'snapshot',
    value: { node: 'a', instance, version: '0.1.0', draining: false, assignments },
  },
});
const served = (key: string) => registry.serversOf(key).map(({ node, status: { epoch } }) => `${node}@${epoch}`);

test('a node that beats stays alive, and one that falls silent is lost within a second and a bit', () => {
  beat(['a', 'b'], 2000);
  const silentSince = clock.now();
  while (registry.get('b')?.alive) beat(['a'], beatMs);
  assert.ok(clock.now() - silentSince <= lostAfterMs + 2 * beatMs, `after ${clock.now() - silentSince} ms`);
  beat(['a'], 2000);
  assert.equal(registry.get('a')?.alive, true);
  assert.deepEqual(told, ['a registered', 'b registered', 'b lost']);
});

test('a node that is heard of again is back, once', () => {
  beat(['a'], 400);
  clock.advance(3000);
  beat(['a'], 400);
  assert.deepEqual(told, ['a registered', 'a lost', 'a back']);
});

test('a node that says that it leaves is lost at once, and not heard of by a word that comes late', () => {
  beat(['a', 'b'], 400);
  registry.heartbeat(heartbeat('a', { leaving: true }));
  assert.equal(registry.get('a')?.alive, false);
  assert.deepEqual(told, ['a registered', 'b registered', 'a lost']);
  registry.heartbeat(heartbeat('c', { leaving: true }));
  assert.equal(registry.get('c'), undefined);
});

test('a node that is found there is borne without heartbeats for a while, and one that is not is lost', async () => {
  const there = new Set(['a']);
  const asking = new NodeRegistry({
    isThere: ({ node }) => Promise.resolve(there.has(node)),
    clock,
    log: pino({ level: 'silent' }),
  });
  asking.resume();
  for (const name of ['a', 'b', 'c']) asking.heartbeat(heartbeat(name));
  const pass = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 100) {
      clock.advance(100);
      asking.heartbeat(heartbeat('c'));
      await Promise.resolve();
    }
  };
  await pass(1500);
  assert.deepEqual([asking.get('a')?.alive, asking.get('b')?.alive], [true, false]);
  await pass(3000);
  assert.equal(asking.get('a')?.alive, true);
  await pass(2500);
  assert.equal(asking.get('a')?.alive, false, 'without heartbeats nobody joins through it');
  asking.heartbeat(heartbeat('a'));
  there.delete('a');
  await pass(1500);
  assert.equal(asking.get('a')?.alive, false, 'one that is not there any more is lost at once');
  asking.close();
});

test('a node that flaps is told of each time, and never twice in a row', () => {
  for (let turn = 0; turn < 3; turn += 1) {
    beat(['a'], 400);
    clock.advance(1500);
  }
  assert.deepEqual(told, ['a registered', 'a lost', 'a back', 'a lost', 'a back', 'a lost']);
});

test('nobody is lost while this process cannot hear', () => {
  beat(['a'], 400);
  registry.pause();
  clock.advance(60_000);
  assert.equal(registry.get('a')?.alive, true);
  registry.resume();
  clock.advance(500);
  assert.equal(registry.get('a')?.alive, true, 'it gets its second from when it can be heard');
  clock.advance(1000);
  assert.equal(registry.get('a')?.alive, false);
});

test('a node that was never heard of is gone only after there was time to hear of it', () => {
  assert.equal(registry.isGone('a'), false);
  assert.ok(registry.settlesInMs > 0);
  clock.advance(registry.settlesInMs);
  assert.equal(registry.isGone('a'), true);
  registry.pause();
  assert.equal(registry.isGone('a'), false, 'without NATS there is no verdict');
});

test('a new process under a name starts with nothing served', () => {
  registry.heartbeat(heartbeat('a'));
  registry.served('a', snapshot('first', status('daily')));
  assert.deepEqual(served('default/daily'), ['a@1']);
  registry.heartbeat(heartbeat('a', { instance: 'second', sequence: 1 }));
  assert.deepEqual(served('default/daily'), []);
  registry.served('a', snapshot('first', status('daily')));
  assert.deepEqual(served('default/daily'), [], 'what its predecessor says late counts for nothing');
  assert.deepEqual(told, ['a registered', 'a instance']);
});

test('a heartbeat overtaken on the way changes nothing', () => {
  registry.heartbeat(heartbeat('a', { sequence: 7, draining: true }));
  registry.heartbeat(heartbeat('a', { sequence: 6, draining: false }));
  assert.equal(registry.get('a')?.heartbeat.draining, true);
});

test('a snapshot replaces what was known, and rooms that are gone from it are told of', () => {
  const rooms: string[] = [];
  registry.onServed(({ name }) => rooms.push(name));
  registry.heartbeat(heartbeat('a'));
  registry.served('a', snapshot('first', status('daily'), status('weekly')));
  rooms.length = 0;
  registry.served('a', snapshot('first', status('weekly', 2)));
  assert.deepEqual(rooms.sort(), ['daily', 'weekly']);
  assert.deepEqual(served('default/daily'), []);
  assert.deepEqual(served('default/weekly'), ['a@2']);
});

test('a room that moves is served by both nodes until the first lets go', () => {
  for (const node of ['a', 'b']) registry.heartbeat(heartbeat(node));
  registry.served('a', snapshot('first', status('daily')));
  registry.served('b', { instance: 'first', event: { $case: 'assigned', value: status('daily', 2) } });
  assert.deepEqual(served('default/daily').sort(), ['a@1', 'b@2']);
  registry.served('a', { instance: 'first', event: { $case: 'released', value: room('daily') } });
  assert.deepEqual(served('default/daily'), ['b@2']);
});

test('a node that is forgotten leaves nothing behind', () => {
  registry.heartbeat(heartbeat('a'));
  registry.served('a', snapshot('first', status('daily')));
  registry.forget('a');
  assert.equal(registry.get('a'), undefined);
  assert.deepEqual(served('default/daily'), []);
});

test('a pause of this process is not taken for silence of the nodes', () => {
  // The event loop stood still: heartbeats wait in the socket, and the timer is called before they are read.
  const stalled = new FakeClock();
  const late = new NodeRegistry({
    log: pino({ level: 'silent' }),
    clock: { now: () => stalled.now(), after: (ms, callback) => stalled.after(ms === 100 ? 3000 : ms, callback) },
  });
  late.resume();
  late.heartbeat(heartbeat('a'));
  stalled.advance(3100);
  assert.equal(late.get('a')?.alive, true);
});

test('all nodes that fall silent at once are held for this process, until one is heard or it takes too long', () => {
  for (const node of ['a', 'b']) registry.heartbeat(heartbeat(node));
  clock.advance(lostAfterMs + 200);
  assert.deepEqual(
    ['a', 'b'].map((node) => registry.get(node)?.alive),
    [true, true],
    'NATS is suspected',
  );
  registry.heartbeat(heartbeat('b', { sequence: 99 }));
  clock.advance(200);
  assert.deepEqual(
    ['a', 'b'].map((node) => registry.get(node)?.alive),
    [false, true],
    'one is heard: the other is lost',
  );
});

test('a fleet that stays silent is lost in the end', () => {
  for (const node of ['a', 'b']) registry.heartbeat(heartbeat(node));
  clock.advance(20_000);
  assert.deepEqual(
    ['a', 'b'].map((node) => registry.get(node)?.alive),
    [false, false],
  );
});
