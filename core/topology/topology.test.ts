import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { meshLimit, shape, type Member, type Topology, type WantedTopology } from './topology.ts';

const member = (node: string, region: string, participants = 0, isHub = false): Member => ({
  node,
  region,
  participants,
  isHub,
});
const links = ({ links: pairs }: Topology) => pairs.map(({ from, to }) => `${from}-${to}`);
const hubs = ({ nodes }: Topology) => nodes.filter(({ role }) => role === 'Hub').map(({ node }) => node);

const table: {
  says: string;
  wanted: WantedTopology;
  members: Member[];
  kind: string;
  links: string[];
  hubs: string[];
}[] = [
  {
    says: 'one node has no links',
    wanted: 'Auto',
    members: [member('a', 'eu')],
    kind: 'SingleNode',
    links: [],
    hubs: [],
  },
  {
    says: 'two nodes link to each other',
    wanted: 'Auto',
    members: [member('b', 'us'), member('a', 'eu')],
    kind: 'Mesh',
    links: ['a-b'],
    hubs: [],
  },
  {
    says: 'three nodes form a mesh',
    wanted: 'Auto',
    members: [member('a', 'eu'), member('b', 'us'), member('c', 'ap')],
    kind: 'Mesh',
    links: ['a-b', 'a-c', 'b-c'],
    hubs: [],
  },
  {
    says: 'more nodes have a hub a region, and the hubs form a mesh',
    wanted: 'Auto',
    members: [member('a', 'eu'), member('b', 'eu', 5), member('c', 'us'), member('d', 'us')],
    kind: 'Hybrid',
    links: ['a-b', 'b-c', 'c-d'],
    hubs: ['b', 'c'],
  },
  {
    says: 'a hub stays a hub when another node becomes busier',
    wanted: 'Auto',
    members: [member('a', 'eu', 1, true), member('b', 'eu', 50), member('c', 'us'), member('d', 'us')],
    kind: 'Hybrid',
    links: ['a-b', 'a-c', 'c-d'],
    hubs: ['a', 'c'],
  },
  {
    says: 'a Room that asks for one hub gets one, whatever the regions',
    wanted: 'HubAndSpoke',
    members: [member('a', 'eu'), member('b', 'us', 9), member('c', 'ap')],
    kind: 'HubAndSpoke',
    links: ['a-b', 'b-c'],
    hubs: ['b'],
  },
  {
    says: 'a Room that asks for a mesh gets one, whatever its size',
    wanted: 'Mesh',
    members: ['a', 'b', 'c', 'd'].map((name) => member(name, 'eu')),
    kind: 'Mesh',
    links: ['a-b', 'a-c', 'a-d', 'b-c', 'b-d', 'c-d'],
    hubs: [],
  },
  {
    says: 'a Room that asks for a single node gets no second',
    wanted: 'SingleNode',
    members: [member('a', 'eu'), member('b', 'us')],
    kind: 'SingleNode',
    links: [],
    hubs: [],
  },
];

for (const { says, wanted, members, ...expected } of table) {
  test(says, () => {
    const topology = shape(wanted, members);
    assert.deepEqual({ kind: topology.kind, links: links(topology), hubs: hubs(topology) }, expected);
  });
}

const anyMembers = fc.uniqueArray(
  fc.record({
    node: fc.string({ minLength: 1, maxLength: 4 }),
    region: fc.constantFrom('eu', 'us', 'ap'),
    participants: fc.nat(20),
    isHub: fc.boolean(),
  }),
  { selector: ({ node }) => node, minLength: 1, maxLength: 12 },
);
const anyTopology = fc.constantFrom<WantedTopology>('Auto', 'Mesh', 'HubAndSpoke');

function reached({ nodes, links: pairs }: Topology): Set<string> {
  const found = new Set(nodes.slice(0, 1).map(({ node }) => node));
  for (let size = -1; size !== found.size;) {
    size = found.size;
    for (const { from, to } of pairs) {
      if (found.has(from)) found.add(to);
      else if (found.has(to)) found.add(from);
    }
  }
  return found;
}

test('every node reaches every other, a pair has one link, and no node links to itself', () => {
  fc.assert(
    fc.property(anyTopology, anyMembers, (wanted, members) => {
      const topology = shape(wanted, members);
      assert.equal(reached(topology).size, members.length);
      assert.equal(new Set(links(topology)).size, topology.links.length);
      for (const { from, to } of topology.links) assert.ok(from < to);
    }),
  );
});

test('the order of input changes nothing, and the shape is the same when its own hubs are told', () => {
  fc.assert(
    fc.property(anyTopology, anyMembers, (wanted, members) => {
      const topology = shape(wanted, members);
      assert.deepEqual(shape(wanted, [...members].reverse()), topology);
      const chosen = new Set(hubs(topology));
      const told = members.map((each) => ({ ...each, isHub: chosen.has(each.node), participants: 0 }));
      if (chosen.size > 0) assert.deepEqual(hubs(shape(wanted, told)), hubs(topology));
    }),
  );
});

test('beyond a mesh the number of links grows with the nodes, not with their square', () => {
  fc.assert(
    fc.property(anyMembers, (members) => {
      const regions = new Set(members.map(({ region }) => region)).size;
      const { links: pairs } = shape('Auto', members);
      if (members.length > meshLimit)
        assert.equal(pairs.length, members.length - regions + (regions * (regions - 1)) / 2);
    }),
  );
});
