import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { nodeView } from '#test/room/world.ts';
import type { NodeView, PlacedNode, RoomView } from '../model.ts';
import { choicesOf, FleetIndex, violationOf, type Demand, type SpanRequest } from './mod.ts';

const node = (name: string, region: string, more: Partial<NodeView> = {}) => nodeView(name, { region, ...more });

const edge = (name: string, region: string): PlacedNode => ({ node: name, region, role: 'Edge' });

function room(nodes: readonly PlacedNode[], regions: readonly string[] = []): RoomView {
  const identity = { uid: 'u', namespace: 'n', name: 'r', roomName: 'r' };
  const placement = nodes.length > 0 ? { epoch: 1, nodes } : undefined;
  return { identity, regions, preferredRegions: regions, nodeSelector: {}, streams: 20, placement };
}

const request = (nodes: readonly PlacedNode[], more: Partial<SpanRequest> = {}): SpanRequest => ({
  room: room(nodes),
  streamsEach: 20,
  demands: [],
  idle: new Set(),
  single: false,
  ...more,
});

function fleetOf(...nodes: readonly NodeView[]): FleetIndex {
  const fleet = new FleetIndex();
  for (const each of nodes) fleet.update(each);
  return fleet;
}

const choices = (...nodes: readonly NodeView[]) => choicesOf(fleetOf(...nodes), () => 0);
const eu = [node('a', 'eu'), node('a2', 'eu')];
const all = [...eu, node('b', 'us'), node('b2', 'us')];

const table: { says: string; on?: PlacedNode[]; demand: Demand; more?: Partial<SpanRequest>; answer: string }[] = [
  { says: 'a region with a node needs no other', demand: { region: 'eu', full: [] }, answer: 'met' },
  { says: 'a client of whom nothing is known goes anywhere', demand: { region: '', full: [] }, answer: 'met' },
  { says: 'a region without one gets one', demand: { region: 'us', full: [] }, answer: 'extend' },
  { says: 'a region with no nodes at all cannot', demand: { region: 'ap', full: [] }, answer: 'asIs' },
  { says: 'a full node gets another beside it', demand: { region: 'eu', full: ['a'] }, answer: 'extend' },
  {
    says: 'a Room that names regions gets none elsewhere',
    demand: { region: 'us', full: [] },
    more: { room: room([edge('a', 'eu')], ['eu']) },
    answer: 'asIs',
  },
  {
    says: 'a Room of a single node gets no second',
    demand: { region: 'us', full: [] },
    more: { single: true },
    answer: 'asIs',
  },
  {
    says: 'a Room of a single node that is full takes nobody',
    demand: { region: 'eu', full: ['a'] },
    more: { single: true },
    answer: 'full',
  },
  {
    says: 'a full node is left for one of another region that has room',
    on: [edge('a', 'eu'), edge('a2', 'eu'), edge('b', 'us')],
    demand: { region: 'eu', full: ['a', 'a2'] },
    answer: 'asIs',
  },
];

for (const { says, on = [edge('a', 'eu')], demand, more = {}, answer } of table) {
  test(says, () => {
    assert.equal(choices(...all).answerTo(demand, request(on, more)).kind, answer);
  });
}

test('when no node of the fleet has room, the answer counts what they lack', () => {
  const full = node('a2', 'eu', { load: { streams: 490, mbps: 0, cpu: 0 } });
  const answer = choices(node('a', 'eu'), full).answerTo({ region: 'eu', full: ['a'] }, request([edge('a', 'eu')]));
  assert.ok(answer.kind === 'full');
  assert.match(answer.refusal.message, /0 of 2 nodes fit: 1 is full; 1 is without 20 free streams/);
});

test('a node that is full stays in the placement of the room that fills it', () => {
  const full = node('a', 'eu', { load: { streams: 501, mbps: 0, cpu: 0 } });
  const chosen = choices(full, node('a2', 'eu')).span(request([edge('a', 'eu')]));
  assert.ok('nodes' in chosen);
  assert.deepEqual(chosen.nodes, [edge('a', 'eu')]);
});

const anyPlaced = fc.subarray(all).map((nodes) => nodes.map(({ name, region }) => edge(name, region)));
const anyDemand = fc.record({
  region: fc.constantFrom('eu', 'us', 'ap', ''),
  full: fc.subarray(['a', 'a2', 'b', 'b2']),
});
const anyFleet = fc.array(
  fc.record({ ready: fc.boolean(), draining: fc.boolean(), unschedulable: fc.boolean(), streams: fc.nat(600) }),
  { minLength: 4, maxLength: 4 },
);

test('nothing moves without need: what fits and is used stays, no node is there twice, and each fits', () => {
  fc.assert(
    fc.property(
      anyPlaced,
      fc.array(anyDemand, { maxLength: 3 }),
      fc.subarray(['a', 'a2', 'b', 'b2']),
      anyFleet,
      (placed, demands, idle, states) => {
        const nodes = all.map((each, index) => {
          const { streams, ...more } = states[index]!;
          return { ...each, ...more, load: { streams, mbps: 0, cpu: 0 } };
        });
        const fleet = fleetOf(...nodes);
        const asked = request(placed, { demands, idle: new Set(idle) });
        const chosen = choicesOf(fleet, () => 0).span(asked);
        if ('refused' in chosen) return;
        const names = chosen.nodes.map((each) => each.node);
        assert.equal(new Set(names).size, names.length);
        assert.ok(names.length > 0);
        const fits = (name: string) => !violationOf(fleet.get(name)!, asked.room);
        for (const { node: name } of placed)
          if (fits(name) && !idle.includes(name)) assert.ok(names.includes(name), `${name} stays`);
        const left = chosen.reason === 'Dropped' && names.every((name) => !fits(name));
        if (left) return;
        for (const name of names) assert.ok(fits(name), `${name} fits`);
        const again = choicesOf(fleet, () => 0).span({
          ...asked,
          idle: new Set(),
          room: { ...asked.room, placement: { epoch: 2, nodes: chosen.nodes } },
        });
        assert.ok('nodes' in again && names.every((name) => again.nodes.some((each) => each.node === name)));
      },
    ),
  );
});
