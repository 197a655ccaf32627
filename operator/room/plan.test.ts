import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Room } from '#crds/room.ts';
import type { NodeView } from '#core/model.ts';
import { choicesOf, FleetIndex } from '#core/placement/mod.ts';
import type { AssignmentStatus } from '#proto/weir/control/v1/control.ts';
import type { Route } from '#proto/weir/fleet/v1/fleet.ts';
import { RoomMemories } from './memory.ts';
import { sightOf } from './observe.ts';
import { countsIntervalMs, planRoom, type Action, type Plan, type RoomSnapshot } from './plan.ts';
import { conditionOf } from './status.ts';
import { createdByAnnotation, finalizer, placementOf, refOf, reservedStreams } from './translate.ts';

const start = Date.parse('2026-03-01T10:00:00Z');

function nodeView(name: string, more: Partial<NodeView> = {}): NodeView {
  return {
    name,
    region: 'eu-west',
    zone: '',
    labels: {},
    ready: true,
    unschedulable: false,
    draining: false,
    capacity: { streams: 500, mbps: 500 },
    load: { streams: 0, mbps: 0, cpu: 0 },
    reliability: { joinSuccess: 1, linkLoss: 0 },
    cost: 100,
    ...more,
  };
}

function newRoom(name = 'daily', more: { spec?: Room['spec']; metadata?: Partial<Room['metadata']> } = {}): Room {
  return {
    metadata: { name, namespace: 'default', uid: `uid-${name}`, generation: 1, ...more.metadata },
    spec: more.spec ?? {},
  };
}

/** A fleet and one Room, in memory: actions are carried out at once, and every step is told in words. */
class World {
  readonly key = 'default/daily';
  readonly fleet = new FleetIndex();
  readonly log: string[] = [];
  readonly served = new Map<string, Map<string, AssignmentStatus>>();
  readonly gone = new Set<string>();
  readonly unknown = new Set<string>();
  readonly uncallable = new Set<string>();
  room: Room | undefined;
  nameTakenBy: string | undefined;
  route: Route | undefined;
  countsWrittenAt = 0;
  readonly memories = new RoomMemories();
  now = start;

  constructor(room: Room | undefined, ...nodes: NodeView[]) {
    this.room = room;
    for (const node of nodes) this.add(node);
  }

  add(node: NodeView): void {
    this.fleet.update(node);
    if (!this.served.has(node.name)) this.served.set(node.name, new Map());
  }

  /** No heartbeats any more: not ready, and not to be called. What it said it serves stays its last word. */
  lose(name: string): void {
    this.fleet.update({ ...this.view(name), ready: false });
    this.gone.add(name);
    this.uncallable.add(name);
  }

  back(name: string, instance: 'same' | 'new'): void {
    this.fleet.update({ ...this.view(name), ready: true });
    this.gone.delete(name);
    this.uncallable.delete(name);
    if (instance === 'new') this.served.set(name, new Map());
  }

  view(name: string): NodeView {
    return this.fleet.get(name) ?? assert.fail(`no node ${name}`);
  }

  plan(): Plan {
    const serving = [...this.served].flatMap(([node, rooms]) =>
      [...rooms.values()].map((status) => ({ node, status })),
    );
    const { key, room, nameTakenBy, gone, unknown, route, countsWrittenAt, now } = this;
    const callable = new Set([...this.served.keys()].filter((name) => !this.uncallable.has(name)));
    const memory = this.memories.look(room?.metadata.uid ?? '', sightOf(room ?? newRoom(), serving, now));
    const seen = { key, room, nameTakenBy, serving, gone, unknown, callable, route, countsWrittenAt, memory, now };
    const snapshot: RoomSnapshot = { ...seen, url: 'wss://fleet' };
    return planRoom(
      snapshot,
      choicesOf(this.fleet, () => 0),
    );
  }

  /** Plans and carries out until nothing is left to do, and checks after every step what must always hold. */
  settle(): Plan {
    for (let step = 0; step < 16; step += 1) {
      const plan = this.plan();
      if (plan.actions.length === 0) return plan;
      for (const action of plan.actions) this.#carryOut(action);
      this.#check();
    }
    return assert.fail(`no end of steps:\n${this.log.join('\n')}`);
  }

  get ready(): string {
    const condition = conditionOf(this.room?.status, 'Ready');
    return `${condition?.status} ${condition?.reason}`;
  }

  take(): string[] {
    return this.log.splice(0);
  }

  #carryOut(action: Action): void {
    const room = this.room;
    const say = (words: string) => this.log.push(words);
    const uid = room?.metadata.uid ?? '';
    switch (action.type) {
      case 'addFinalizer':
        room!.metadata.finalizers = [finalizer];
        return void say('finalizer');
      case 'removeFinalizer':
        this.room = undefined;
        return void say('finalizer removed');
      case 'writePlacement':
        for (const { node } of placementOf(room!)?.nodes ?? []) this.fleet.release(node, uid);
        for (const { node } of action.placement.nodes)
          this.fleet.reserve(node, uid, reservedStreams(room!, node, action.placement.nodes));
        room!.status = action.status;
        return void say(`placed on ${action.status.nodes} at epoch ${action.placement.epoch} (${action.reason})`);
      case 'writeStatus':
        room!.status = action.status;
        this.countsWrittenAt = this.now;
        return void say(`status ${this.ready}${action.event ? ', event' : ''}`);
      case 'apply': {
        const { room: ref, epoch, generation } = action.assignment;
        const known = this.served.get(action.node)?.get(uid);
        const kept = known ?? { participants: 0, streams: 0, links: [] };
        this.served.get(action.node)?.set(uid, { ...kept, room: ref, epoch, generation });
        return void say(`${action.node} serves epoch ${epoch} generation ${generation}`);
      }
      case 'putRoute':
        this.route = action.route;
        return void say(`route to ${action.route.nodes.map(({ node }) => node).join()} at epoch ${action.route.epoch}`);
      case 'deleteRoute':
        this.route = undefined;
        return void say('route removed');
      case 'release': {
        const known = this.served.get(action.node)?.get(action.room.uid);
        if (known && known.epoch <= action.epoch) this.served.get(action.node)?.delete(action.room.uid);
        return void say(`${action.node} lets go (${action.reason})`);
      }
      case 'deleteRoom':
        room!.metadata.deletionTimestamp = new Date(this.now);
        return void say(`room deleted: ${action.message}`);
    }
  }

  #check(): void {
    const { room } = this;
    if (!room || conditionOf(room.status, 'Ready')?.status !== 'True' || room.metadata.deletionTimestamp) return;
    const placement = placementOf(room);
    assert.ok(placement && placement.nodes.length > 0, 'Ready has a placement');
    assert.equal(this.route?.epoch, placement.epoch, 'Ready has its route');
  }
}

function settled(...nodes: NodeView[]): World {
  const world = new World(newRoom(), ...nodes);
  world.settle();
  world.take();
  return world;
}

const counts = (world: World, node: string, participants: number, streams: number) => {
  const status = world.served.get(node)?.get('uid-daily');
  assert.ok(status);
  world.served.get(node)?.set('uid-daily', { ...status, participants, streams });
};

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

/** A small generator of numbers in [0, 1), so that a failure can be run again by its seed. */
function randomOf(seed: number): () => number {
  let state = seed + 1;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return state / 2_147_483_648;
  };
}

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
