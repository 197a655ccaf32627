import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeView } from '#core/model.ts';
import type { Room } from '#crds/room.ts';
import { LinkState, type LinkStatus } from '#proto/weir/control/v1/control.ts';
import { idleNodeMs, newRoom, nodeView, randomOf, World } from '#test/room/world.ts';
import { linkPatienceMs } from './links.ts';
import { countsIntervalMs } from './plan.ts';
import { rerouteIntervalMs, sparesStayMs } from './network.ts';
import { networkOf, placementOf } from './translate.ts';

const us = (name: string, more: Partial<NodeView> = {}) => nodeView(name, { region: 'us-east', ...more });
const ap = (name: string) => nodeView(name, { region: 'ap-south' });
const down = { state: LinkState.DOWN };

/** A room on `a` in eu-west, extended to the regions that are named. */
function spanning(nodes: readonly NodeView[], regions: readonly string[], spec: Room['spec'] = {}): World {
  const world = new World(newRoom('daily', { spec }), nodeView('a'));
  world.settle();
  for (const node of nodes) world.add(node);
  for (const region of regions) {
    world.demand(region);
    world.settle();
  }
  world.take();
  return world;
}

function nodesOf(world: World): string {
  return world.room?.status?.nodes ?? '';
}

test('a join from a region without a node of the room gets one there, linked to the first', () => {
  const world = spanning([us('b')], []);
  world.demand('us-east');
  world.settle();
  assert.deepEqual(world.take(), [
    'placed on a,b at epoch 2 (Extended)',
    'a serves epoch 2 generation 1',
    'b serves epoch 2 generation 1',
    'route to a,b at epoch 2',
    'status True Serving',
  ]);
  assert.deepEqual(world.told.get('a')?.links, ['b']);
  assert.deepEqual(world.told.get('a')?.routes, [{ source: 'b', via: 'b' }]);
  assert.deepEqual(world.told.get('b')?.routes, [{ source: 'a', via: 'a' }]);
  assert.deepEqual(world.links, ['a-b Up']);
  assert.deepEqual(world.room?.status?.topology, {
    kind: 'Mesh',
    reason: 'FewNodes',
    message: '2 nodes: each links to each.',
  });
  assert.deepEqual(world.room.status.detours, []);
});

test('further joins from that region change nothing', () => {
  const world = spanning([us('b'), us('b2')], ['us-east']);
  world.demand('us-east');
  world.settle();
  assert.deepEqual(world.take(), []);
});

for (const { says, spec, region } of [
  { says: 'a region that the Room does not name', spec: { regions: ['eu-west'] }, region: 'us-east' },
  { says: 'a region that has no node', spec: {}, region: 'ap-south' },
  { says: 'a Room that asks for a single node', spec: { topology: 'SingleNode' as const }, region: 'us-east' },
  { says: 'a region whose nodes lack the label', spec: { nodeSelector: { disk: 'fast' } }, region: 'us-east' },
]) {
  test(`a room is not extended for ${says}`, () => {
    const world = new World(newRoom('daily', { spec }), nodeView('a', { labels: { disk: 'fast' } }), us('b'));
    world.settle();
    const before = nodesOf(world);
    world.take();
    world.demand(region);
    world.settle();
    assert.deepEqual(world.take(), []);
    assert.equal(nodesOf(world), before);
  });
}

test('a room whose node is full gets another of its region, else one of another region', () => {
  const world = spanning([nodeView('a2'), us('b')], []);
  world.demand('eu-west', 'a');
  world.settle();
  assert.equal(nodesOf(world), 'a,a2');
  world.demand('eu-west', 'a', 'a2');
  world.settle();
  assert.equal(nodesOf(world), 'a,a2,b');
});

test('a room whose node is full is not spread when another of its nodes has room', () => {
  const world = spanning([us('b'), us('b2')], ['us-east']);
  world.demand('eu-west', 'a');
  world.settle();
  assert.equal(nodesOf(world), 'a,b');
});

test('more than three nodes have hubs, which stay hubs as nodes come', () => {
  const world = spanning([us('b'), ap('c'), us('b2')], ['us-east', 'ap-south']);
  world.people({ a: 1, b: 5, c: 1 });
  world.demand('us-east', 'b');
  world.settle();
  assert.equal(nodesOf(world), 'a,b,c,b2');
  const roles = placementOf(world.room!)?.nodes.map(({ node, role }) => `${node} ${role}`);
  assert.deepEqual(roles, ['a Hub', 'b Hub', 'c Hub', 'b2 Edge']);
  assert.equal(world.room?.status?.topology?.kind, 'Hybrid');
  assert.equal(world.via('b2', 'a'), 'b');
  world.people({ b2: 50 });
  world.now += 60_000;
  world.people({ a: 1, b: 1, c: 1, b2: 50 });
  world.settle();
  assert.equal(world.room?.status?.placement?.[1]?.role, 'Hub');
});

test('a node that dies is replaced by another of its region; the others stay', () => {
  const world = spanning([us('b'), us('b2'), nodeView('a2')], ['us-east']);
  world.lose('b');
  world.settle();
  assert.equal(nodesOf(world), 'a,b2');
  assert.match(world.take()[0] ?? '', /^placed on a,b2 at epoch 3 \(Moved\)/);
});

test('a node that dies and has no other in its region leaves, and comes with the next join from there', () => {
  const world = spanning([us('b')], ['us-east']);
  world.lose('b');
  world.settle();
  assert.equal(nodesOf(world), 'a');
  assert.match(world.condition('Scheduled'), /Dropped: b, which is not ready, left/);
  assert.match(world.condition('Migrating'), /^False/);
  world.back('b', 'new');
  world.demand('us-east');
  world.settle();
  assert.equal(nodesOf(world), 'a,b');
});

test('when all nodes die the room is placed anew wherever it fits', () => {
  const world = spanning([us('b'), ap('c')], ['us-east']);
  world.lose('a');
  world.lose('b');
  world.settle();
  assert.equal(nodesOf(world), 'c');
});

test('nodes that drain go on serving when the others die and nothing else fits', () => {
  const world = spanning([us('b')], ['us-east']);
  world.fleet.update({ ...world.view('b'), draining: true });
  world.lose('a');
  world.settle();
  assert.equal(nodesOf(world), 'b');
  assert.equal(world.ready, 'True Serving');
});

test('a drained node gives its part of the room to another of its region before it lets go', () => {
  const world = spanning([us('b'), us('b2')], ['us-east']);
  world.fleet.update({ ...world.view('b'), draining: true });
  world.settle();
  const log = world.take();
  assert.equal(nodesOf(world), 'a,b2');
  assert.equal(log.at(-1), 'b lets go (RoomMoved)');
});

test('a node on which nobody is leaves after its time, and not before', () => {
  const world = spanning([us('b')], ['us-east']);
  world.people({ a: 2, b: 1 });
  world.now += 2 * idleNodeMs;
  world.settle();
  world.people({ b: 0 });
  world.now += 5000;
  world.settle();
  world.take();
  world.now += idleNodeMs - 1;
  const wait = world.settle();
  assert.equal(nodesOf(world), 'a,b');
  assert.equal(wait.requeueAfterMs, 1);
  world.now += 1;
  world.settle();
  assert.equal(nodesOf(world), 'a');
  assert.deepEqual(world.take(), [
    'placed on a at epoch 3 (Shrunk)',
    'a serves epoch 3 generation 1',
    'route to a at epoch 3',
    'status True Serving',
    'b lets go (RoomMoved)',
  ]);
});

test('a further node that never confirms is given up, and the room is Ready without it', () => {
  const world = spanning([us('b')], []);
  world.people({ a: 1 });
  world.deaf.add('b');
  world.demand('us-east');
  world.settle();
  assert.equal(nodesOf(world), 'a,b');
  assert.deepEqual(
    world.route?.nodes.map(({ node }) => node),
    ['a'],
    'joins still go where the room is served',
  );
  world.now += idleNodeMs;
  world.settle();
  assert.equal(nodesOf(world), 'a');
  assert.equal(world.ready, 'True Serving');
});

test('figures of links are written when they change clearly, with the counts', () => {
  const world = spanning([us('b')], ['us-east']);
  const figures = () => world.room?.status?.links?.map(({ rttMillis, kbps }) => [rttMillis, kbps]);
  const over = (more: Partial<LinkStatus>) => {
    world.link('a', 'b', more);
    world.now += countsIntervalMs;
    world.settle();
    return figures();
  };
  assert.deepEqual(over({ rttMs: 80, kbps: 400 }), [[80, 800]]);
  assert.deepEqual(over({ rttMs: 84, kbps: 700 }), [[80, 800]]);
  assert.deepEqual(over({ rttMs: 120, kbps: 900 }), [[120, 1800]]);
});

test('when everybody is gone the first node stays, and so it is for a day', () => {
  const world = spanning([us('b'), ap('c')], ['us-east', 'ap-south']);
  for (let time = 0; time < 4; time += 1) {
    world.now += idleNodeMs;
    world.settle();
  }
  assert.equal(nodesOf(world), 'a');
  world.take();
  world.now += 86_400_000;
  world.settle();
  assert.deepEqual(world.take(), []);
});

test('the first node leaves like any other when the people are elsewhere', () => {
  const world = spanning([us('b')], ['us-east']);
  world.people({ b: 3 });
  world.settle();
  world.now += idleNodeMs;
  world.settle();
  assert.equal(nodesOf(world), 'b');
});

test('streams go around a link that is down, at once and at a new epoch, and Degraded says which it is', () => {
  const world = spanning([us('b'), ap('c')], ['us-east', 'ap-south']);
  const { epoch } = placementOf(world.room!)!;
  assert.equal(world.via('b', 'a'), 'a');
  world.link('a', 'b', down);
  world.settle();
  assert.equal(placementOf(world.room!)?.epoch, epoch + 1);
  assert.equal(world.via('b', 'a'), 'c');
  assert.equal(world.via('a', 'b'), 'c');
  assert.deepEqual(world.room?.status?.detours, [
    { source: 'a', node: 'b', via: 'c' },
    { source: 'b', node: 'a', via: 'c' },
  ]);
  assert.match(world.condition('Degraded'), /^True LinkDown: The link from a to b is down/);
  assert.match(world.condition('Ready'), /^True/);
  assert.deepEqual(world.links, ['a-b Down', 'a-c Up', 'b-c Up']);
});

test('one end is enough to call a link down, and an offer under way is no cure', () => {
  const world = spanning([us('b'), ap('c')], ['us-east', 'ap-south']);
  world.link('a', 'b', down);
  world.settle();
  world.now += rerouteIntervalMs;
  world.link('a', 'b', { state: LinkState.OPENING });
  world.settle();
  assert.equal(world.via('b', 'a'), 'c');
  assert.deepEqual(world.links[0], 'a-b Down');
  world.link('a', 'b');
  world.settle();
  assert.equal(world.via('b', 'a'), 'a');
  assert.match(world.condition('Degraded'), /^False AsAsked/);
  assert.deepEqual(world.room?.status?.detours, []);
});

test('a new leader goes on with the trees that there are', () => {
  const world = spanning([us('b'), ap('c')], ['us-east', 'ap-south']);
  world.link('a', 'b', down);
  world.settle();
  world.take();
  Object.assign(world, { memories: new World(undefined).memories });
  world.settle();
  assert.deepEqual(world.take(), []);
  assert.deepEqual(Object.fromEntries(networkOf(world.room!)!.trees.get('a')!), { b: 'c', c: 'a' });
});

test('streams take a cheaper way at most every ten seconds, and only for a clear gain', () => {
  const world = spanning([us('b'), ap('c')], ['us-east', 'ap-south']);
  world.link('a', 'b', { rttMs: 180 });
  world.settle();
  assert.equal(world.via('b', 'a'), 'a');
  world.link('a', 'b', { rttMs: 400 });
  world.settle();
  assert.equal(world.via('b', 'a'), 'c');
  world.take();
  world.link('a', 'b', { rttMs: 20 });
  const wait = world.settle();
  assert.equal(world.via('b', 'a'), 'c');
  assert.ok(wait.requeueAfterMs! <= rerouteIntervalMs);
  world.now += rerouteIntervalMs;
  world.settle();
  assert.equal(world.via('b', 'a'), 'a');
  assert.match(world.condition('Scheduled'), /Rerouted: Streams of a go another way: b from a/);
});

test('two nodes whose link is down get a relay, which leaves when it was not needed for its time', () => {
  const world = spanning([us('b'), us('r')], ['us-east']);
  assert.equal(nodesOf(world), 'a,b');
  world.people({ a: 1, b: 1 });
  world.link('a', 'b', down);
  world.settle();
  const nodes = () => placementOf(world.room!)?.nodes.map(({ node, role }) => `${node} ${role}`);
  assert.deepEqual(nodes(), ['a Edge', 'b Edge', 'r Relay']);
  assert.equal(world.via('b', 'a'), 'r');
  assert.equal(world.via('r', 'a'), 'a');
  assert.match(world.condition('Degraded'), /^True LinkDown/);
  world.now += 2 * sparesStayMs;
  world.settle();
  assert.deepEqual(nodes(), ['a Edge', 'b Edge', 'r Relay']);
  world.link('a', 'b');
  world.settle();
  assert.match(world.condition('Degraded'), /^False/);
  assert.deepEqual(nodes(), ['a Edge', 'b Edge', 'r Relay']);
  world.now += sparesStayMs;
  world.settle();
  assert.deepEqual(nodes(), ['a Edge', 'b Edge']);
  assert.equal(world.via('b', 'a'), 'a');
  assert.equal(world.served.get('r')?.size, 0);
});

test('nodes behind a hub whose link is down are linked to others first, and no relay comes', () => {
  const world = spanning([us('b'), ap('c'), us('b2'), us('r')], ['us-east', 'ap-south']);
  world.demand('us-east', 'b');
  world.settle();
  world.link('b', 'b2', down);
  world.people({ a: 1, b: 1, c: 1, b2: 1 });
  world.settle();
  assert.ok(!nodesOf(world).includes('r,') && nodesOf(world).split(',').length === 4, nodesOf(world));
  assert.notEqual(world.via('b2', 'b'), 'b');
});

test('a link that never comes up counts as down when its offers have failed for long', () => {
  const world = spanning([us('b'), ap('c')], ['us-east', 'ap-south']);
  const failing = { state: LinkState.OPENING, errorCode: 'LinkTimeout', error: 'no answer from 10.0.0.1:20001' };
  world.link('a', 'b', failing);
  const wait = world.settle();
  assert.equal(world.via('b', 'a'), 'a');
  assert.match(world.condition('Degraded'), /^False/);
  assert.equal(wait.requeueAfterMs, linkPatienceMs);
  world.now += linkPatienceMs;
  world.settle();
  assert.match(world.condition('Degraded'), /^True LinkOffersFail: .*a to b.*LinkTimeout: no answer from 10.0.0.1/);
  assert.equal(world.via('b', 'a'), 'c');
});

test('a Room that comes to ask for a single node keeps its first', () => {
  const world = spanning([us('b')], ['us-east']);
  world.people({ a: 1, b: 1 });
  world.room!.spec = { topology: 'SingleNode' };
  world.room!.metadata.generation = 2;
  world.settle();
  assert.equal(nodesOf(world), 'a');
  assert.deepEqual(world.links, []);
});

test('a Room that comes to ask for one hub gets it', () => {
  const world = spanning([us('b'), ap('c')], ['us-east', 'ap-south']);
  world.room!.spec = { topology: 'HubAndSpoke' };
  world.room!.metadata.generation = 2;
  world.settle();
  assert.deepEqual(world.links, ['a-b Up', 'a-c Up']);
  assert.equal(world.via('b', 'c'), 'a');
});

for (const seed of Array.from({ length: 150 }, (_, index) => index)) {
  test(`whatever befalls a room of two regions, all its nodes agree and it is served in the end (seed ${seed})`, () => {
    const random = randomOf(seed);
    const pick = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)]!;
    const names = ['a', 'a2', 'b', 'b2'];
    const world = new World(newRoom(), nodeView('a'), nodeView('a2'), us('b'), us('b2'));
    const topologies = ['Auto', 'Mesh', 'HubAndSpoke', 'SingleNode'] as const;
    const befalls: (() => void)[] = [
      () => world.lose(pick(names)),
      () => world.back(pick(names), 'same'),
      () => world.back(pick(names), 'new'),
      () => world.fleet.update({ ...world.view(pick(names)), draining: random() < 0.5 }),
      () => world.demand(pick(['eu-west', 'us-east', 'ap-south'])),
      () => world.demand(pick(['eu-west', 'us-east']), ...names.filter(() => random() < 0.5)),
      () => world.link(pick(names), pick(names), down),
      () => world.link(pick(names), pick(names), { state: LinkState.OPENING, errorCode: 'X', error: 'fails' }),
      () => world.link(pick(names), pick(names)),
      () => world.link(pick(names), pick(names), { rttMs: Math.floor(random() * 400) }),
      () => world.people({ [pick(names)]: Math.floor(random() * 3) }),
      () => void (world.now += pick([500, 7000, 31_000, 61_000])),
      () => {
        world.room!.metadata.generation! += 1;
        world.room!.spec = { topology: pick(topologies) };
      },
    ];
    let epoch = 0;
    for (let step = 0; step < 60; step += 1) {
      pick(befalls)();
      world.settle();
      const now = world.room?.status?.epoch ?? 0;
      assert.ok(now >= epoch, world.log.join('\n'));
      epoch = now;
    }
    for (const name of names) {
      world.back(name, 'same');
      world.fleet.update({ ...world.view(name), draining: false });
    }
    world.trouble.clear();
    world.settle();
    assert.equal(world.ready, 'True Serving', world.log.join('\n'));
    const placed = placementOf(world.room!)!;
    assert.deepEqual(
      names.filter((name) => world.served.get(name)?.get(world.uid)?.epoch === placed.epoch),
      placed.nodes.map(({ node }) => node).sort(),
      'placed nodes serve, and no others',
    );
    assert.match(world.condition('Degraded'), /^False/);
    world.people({ a: 0, a2: 0, b: 0, b2: 0 });
    for (let time = 0; time < 4; time += 1) {
      world.settle();
      world.now += sparesStayMs;
    }
    assert.equal(placementOf(world.room!)?.nodes.length, 1, 'one node stays when nobody is there');
    assert.deepEqual(world.room?.status?.links, []);
  });
}
