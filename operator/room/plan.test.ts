import assert from 'node:assert/strict';
import { test } from 'node:test';
import { counts, newRoom, nodeView, randomOf, settled, start, World } from '#test/room/world.ts';
import { countsIntervalMs } from './plan.ts';
import { conditionOf } from './status.ts';
import { createdByAnnotation, refOf } from './translate.ts';

test('a Room gets finalizer, placement, assignment, route and Ready, in this order, and then rest', () => {
  const world = new World(newRoom(), nodeView('a'));
  const last = world.settle();
  assert.deepEqual(world.take(), [
    'finalizer',
    'placed on a at epoch 1 (Placed)',
    'a serves epoch 1 generation 1',
    'route to a at epoch 1',
    'status True Serving',
  ]);
  assert.deepEqual(last, { actions: [], requeueAfterMs: undefined });
  const { status } = world.room!;
  assert.equal(status?.url, 'wss://fleet');
  assert.equal(status?.observedGeneration, 1);
  assert.deepEqual(
    status?.conditions?.map(({ type, status: is }) => `${type} ${is}`),
    ['Ready True', 'Scheduled True', 'Migrating False', 'Degraded False'],
  );
});

test('Ready waits until the node confirms this epoch and this generation', () => {
  const world = new World(newRoom(), nodeView('a'));
  for (const said of [
    { epoch: 0, generation: 1 },
    { epoch: 1, generation: 0 },
  ]) {
    world.settle();
    const status = world.served.get('a')?.get('uid-daily');
    world.served.get('a')?.set('uid-daily', { ...status!, ...said });
    assert.deepEqual(
      world.plan().actions.map(({ type }) => type),
      ['apply'],
    );
  }
});

test('a Room that fits nowhere says what is missing, once, and is placed when a node fits', () => {
  const world = new World(newRoom('daily', { spec: { regions: ['us-east'] } }), nodeView('a'));
  const waiting = world.settle();
  assert.deepEqual(world.take(), ['finalizer', 'status False RegionMismatch, event']);
  assert.ok(waiting.requeueAfterMs);
  assert.match(
    conditionOf(world.room?.status, 'Scheduled')?.message ?? '',
    /0 of 1 nodes fit: 1 is not in region us-east/,
  );
  world.add(nodeView('b', { region: 'us-east' }));
  world.settle();
  assert.equal(world.room?.status?.nodes, 'b');
  assert.equal(world.ready, 'True Serving');
});

test('a lost node: the next epoch elsewhere, and the lost one is told when it is back', () => {
  const world = settled(nodeView('a'), nodeView('b', { cost: 200 }));
  world.lose('a');
  world.settle();
  assert.deepEqual(world.take(), [
    'placed on b at epoch 2 (Moved)',
    'b serves epoch 2 generation 1',
    'route to b at epoch 2',
    'status True Serving',
  ]);
  world.back('a', 'same');
  world.settle();
  assert.deepEqual(world.take(), ['a lets go (RoomMoved)']);
  assert.equal(world.room?.status?.nodes, 'b');
});

test('what a lost node last said does not count for a room that has moved', () => {
  const world = settled(nodeView('a'), nodeView('b', { cost: 200 }));
  counts(world, 'a', 3, 9);
  world.lose('a');
  world.settle();
  counts(world, 'b', 2, 4);
  world.now += countsIntervalMs;
  world.settle();
  assert.equal(world.room?.status?.participants, 2);
  assert.equal(world.room.status.streams, 4);
});

test('a lost node and no other: the room keeps its place and is served again when the node is back', () => {
  const world = settled(nodeView('a'));
  world.lose('a');
  world.settle();
  assert.deepEqual(world.take(), ['status False NodeNotReady, event']);
  assert.equal(world.room?.status?.nodes, 'a');
  world.back('a', 'new');
  world.settle();
  assert.deepEqual(world.take(), ['a serves epoch 1 generation 1', 'status True Serving, event']);
});

test('a node that restarted is told again, at the same epoch', () => {
  const world = settled(nodeView('a'));
  world.back('a', 'new');
  world.settle();
  assert.deepEqual(world.take(), ['a serves epoch 1 generation 1']);
});

test('a draining node: the new node serves before the old one lets go', () => {
  const world = settled(nodeView('a'), nodeView('b', { cost: 200 }));
  world.fleet.update({ ...world.view('a'), draining: true });
  world.settle();
  assert.deepEqual(world.take(), [
    'placed on b at epoch 2 (Moved)',
    'b serves epoch 2 generation 1',
    'route to b at epoch 2',
    'status True Serving',
    'a lets go (RoomMoved)',
  ]);
});

test('a draining node and no other: better there than nowhere', () => {
  const world = settled(nodeView('a'));
  world.fleet.update({ ...world.view('a'), draining: true });
  world.settle();
  assert.deepEqual(world.take(), []);
  assert.equal(world.ready, 'True Serving');
});

test('people are not made to reconnect for a better score alone', () => {
  const world = settled(nodeView('a'), nodeView('b', { cost: 200 }));
  counts(world, 'a', 5, 40);
  world.fleet.update({ ...world.view('a'), load: { streams: 40, mbps: 20, cpu: 0.97 } });
  world.now += countsIntervalMs;
  world.settle();
  assert.equal(world.room?.status?.nodes, 'a');
  assert.equal(world.room.status.epoch, 1);
});

test('a node that was not heard of yet is not left', () => {
  const world = settled(nodeView('a'), nodeView('b', { cost: 200 }));
  world.fleet.remove('a');
  world.unknown.add('a');
  world.uncallable.add('a');
  const plan = world.settle();
  assert.deepEqual(world.take(), []);
  assert.ok(plan.requeueAfterMs);
});

test('a changed spec reaches the node at the same epoch, and Ready holds meanwhile', () => {
  const world = settled(nodeView('a'));
  world.room!.metadata.generation = 2;
  world.room!.spec = { maxParticipants: 5 };
  world.settle();
  assert.deepEqual(world.take(), ['a serves epoch 1 generation 2', 'status True Serving']);
  assert.equal(world.room?.status?.observedGeneration, 2);
});

test('a Room that must be elsewhere now moves there', () => {
  const world = settled(nodeView('a'), nodeView('b', { region: 'us-east', cost: 200 }));
  world.room!.metadata.generation = 2;
  world.room!.spec = { regions: ['us-east'] };
  world.settle();
  assert.equal(world.room?.status?.nodes, 'b');
  assert.equal(world.room.status.epoch, 2);
  assert.equal(world.take().at(-1), 'a lets go (RoomMoved)');
});

test('a deleted Room is ended on its node, its route removed, then let go', () => {
  const world = settled(nodeView('a'));
  world.room!.metadata.deletionTimestamp = new Date(start);
  world.settle();
  assert.deepEqual(world.take(), ['a lets go (RoomDeleted)', 'route removed', 'finalizer removed']);
});

test('a dead node does not hold a deletion up, and is told when it is back', () => {
  const world = settled(nodeView('a'));
  world.lose('a');
  world.room!.metadata.deletionTimestamp = new Date(start);
  world.settle();
  assert.deepEqual(world.take(), ['route removed', 'finalizer removed']);
  world.back('a', 'same');
  world.settle();
  assert.deepEqual(world.take(), ['a lets go (RoomDeleted)']);
});

test('a Room made again under its name is another room: the old one ends, the new one is placed', () => {
  const world = settled(nodeView('a'));
  const before = refOf(world.room!);
  world.room = newRoom('daily', { metadata: { uid: 'uid-again' } });
  world.settle();
  assert.equal(world.served.get('a')?.has(before.uid), false);
  assert.equal(world.route?.room?.uid, 'uid-again');
  assert.equal(world.ready, 'True Serving');
});

test('a node that has the room at a newer epoch than its placement still lets go', () => {
  const world = settled(nodeView('a'), nodeView('b', { cost: 200 }));
  world.served.get('b')?.set('uid-daily', { ...world.served.get('a')!.get('uid-daily')!, epoch: 9 });
  world.settle();
  assert.deepEqual(world.take(), ['b lets go (RoomMoved)']);
});

test('of two Rooms with one roomName the newer is told who has it, and touches no route', () => {
  const world = new World(newRoom(), nodeView('a'));
  world.nameTakenBy = 'default/older';
  world.settle();
  assert.deepEqual(world.take(), ['finalizer', 'status False RoomNameTaken, event']);
  assert.match(conditionOf(world.room?.status, 'Scheduled')?.message ?? '', /Room default\/older is older/);
  world.nameTakenBy = undefined;
  world.settle();
  assert.equal(world.ready, 'True Serving');
});

test('counts reach the status at most every five seconds', () => {
  const world = settled(nodeView('a'));
  world.now += 1000;
  counts(world, 'a', 1, 2);
  const wait = world.settle();
  assert.deepEqual(world.take(), []);
  assert.equal(wait.requeueAfterMs, countsIntervalMs - 1000);
  world.now += wait.requeueAfterMs ?? 0;
  world.settle();
  assert.deepEqual(world.take(), ['status True Serving']);
  assert.equal(world.room?.status?.participants, 1);
});

const joined = () => newRoom('daily', { metadata: { annotations: { [createdByAnnotation]: 'join' } } });

test('a Room that a join made goes when nobody ever came', () => {
  const world = new World(joined(), nodeView('a'));
  assert.equal(world.settle().requeueAfterMs, 300_000);
  world.take();
  world.now += 300_000;
  world.settle();
  assert.match(world.take()[0] ?? '', /^room deleted/);
  assert.equal(world.room, undefined);
});

test('a Room that a join made goes when the last one left', () => {
  const world = new World(joined(), nodeView('a'));
  world.settle();
  for (const participants of [1, 0]) {
    counts(world, 'a', participants, 0);
    world.now += countsIntervalMs;
    world.settle();
  }
  world.take();
  assert.equal(world.settle().requeueAfterMs, 20_000);
  world.now += 20_000;
  world.settle();
  assert.match(world.take()[0] ?? '', /^room deleted/);
});

test('a Room made by hand stays, however empty', () => {
  const world = settled(nodeView('a'));
  world.now += 1e9;
  world.settle();
  assert.deepEqual(world.take(), []);
});

test('a condition keeps its time while its status stays the same', () => {
  const world = settled(nodeView('a'));
  const first = conditionOf(world.room?.status, 'Ready')?.lastTransitionTime;
  world.now += 60_000;
  world.room!.metadata.generation = 2;
  world.settle();
  assert.equal(conditionOf(world.room?.status, 'Ready')?.lastTransitionTime, first);
  world.lose('a');
  world.settle();
  assert.notEqual(conditionOf(world.room?.status, 'Ready')?.lastTransitionTime, first);
});

for (const seed of Array.from({ length: 100 }, (_, index) => index)) {
  test(`whatever befalls three nodes, the epoch never falls and the room is Ready in the end (seed ${seed})`, () => {
    const random = randomOf(seed);
    const names = ['a', 'b', 'c'];
    const world = new World(newRoom(), ...names.map((name) => nodeView(name)));
    const befalls: ((name: string) => void)[] = [
      (name) => world.lose(name),
      (name) => world.back(name, 'same'),
      (name) => world.back(name, 'new'),
      (name) => world.fleet.update({ ...world.view(name), draining: true }),
      (name) => world.fleet.update({ ...world.view(name), draining: false }),
      () => void (world.room!.metadata.generation! += 1),
      () => void (world.now += 7000),
    ];
    let epoch = 0;
    for (let step = 0; step < 40; step += 1) {
      const name = names[Math.floor(random() * names.length)]!;
      befalls[Math.floor(random() * befalls.length)]!(name);
      world.settle();
      const now = world.room?.status?.epoch ?? 0;
      assert.ok(now >= epoch, world.log.join('\n'));
      epoch = now;
    }
    for (const name of names) {
      world.back(name, 'same');
      world.fleet.update({ ...world.view(name), draining: false });
    }
    world.settle();
    assert.equal(world.ready, 'True Serving', world.log.join('\n'));
    const node = world.room?.status?.nodes ?? '';
    assert.deepEqual(
      names.filter((name) => world.served.get(name)?.has('uid-daily')),
      [node],
      'exactly one node serves it',
    );
    assert.equal(world.served.get(node)?.get('uid-daily')?.epoch, epoch);
  });
}
