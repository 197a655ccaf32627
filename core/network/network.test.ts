import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { pairKey, pairOf, type Member } from '../topology/mod.ts';
import { design, detoursOf, treesOf, type LinkHealth, type Network, type NetworkRequest } from './mod.ts';

const member = (node: string, region: string): Member => ({ node, region, participants: 0 });
const abc = [member('a', 'eu'), member('b', 'us'), member('c', 'ap')];

const request = (more: Partial<NetworkRequest>): NetworkRequest => ({
  wanted: 'Auto',
  members: abc,
  relays: [],
  current: undefined,
  health: new Map(),
  keepSpares: false,
  mayImprove: true,
  findRelay: () => undefined,
  ...more,
});

const health = (state: LinkHealth['state'], ...pairs: string[]): Map<string, LinkHealth> =>
  new Map(pairs.map((pair) => [pairKey(pairOf(pair[0]!, pair[1]!)), { state, rttMs: undefined, loss: 0 }]));
const links = (network: Network) => network.links.map(({ from, to }) => `${from}${to}`);

test('a node alone has no links and nothing to take from others', () => {
  const { network } = design(request({ members: [member('a', 'eu')] }));
  assert.deepEqual(network.nodes, [{ node: 'a', region: 'eu', role: 'Edge' }]);
  assert.deepEqual(network.links, []);
  assert.deepEqual([...network.trees], [['a', new Map()]]);
});

test('nodes keep the order of the placement', () => {
  const { network } = design(request({ members: [...abc].reverse() }));
  assert.deepEqual(
    network.nodes.map(({ node }) => node),
    ['c', 'b', 'a'],
  );
});

test('streams go around a link that is down even when they may not be sent another way for its cost', () => {
  const current = design(request({})).network;
  const { network } = design(request({ current, health: health('Down', 'ab'), mayImprove: false }));
  assert.equal(network.trees.get('a')?.get('b'), 'c');
  assert.deepEqual(links(network), ['ab', 'ac', 'bc'], 'the link stays declared, so that its ends go on trying');
});

test('a link that was not measured yet is not left for a detour over links that were', () => {
  const current = design(request({})).network;
  const at = (rttMs: number | undefined): LinkHealth => ({
    state: rttMs === undefined ? 'Opening' : 'Up',
    rttMs,
    loss: 0,
  });
  const measured = (ab: number | undefined) =>
    new Map([
      [pairKey(pairOf('a', 'b')), at(ab)],
      [pairKey(pairOf('a', 'c')), at(20)],
      [pairKey(pairOf('b', 'c')), at(20)],
    ]);
  const way = (ab: number | undefined) =>
    design(request({ current, health: measured(ab) }))
      .network.trees.get('a')
      ?.get('b');
  assert.equal(way(undefined), 'a');
  assert.equal(way(300), 'c');
});

test('a part that no link reaches gets another pair, which goes when it is not needed and not kept', () => {
  const members = [...abc, member('b2', 'us')];
  const usual = design(request({ members })).network;
  const torn = design(request({ members, current: usual, health: health('Down', 'ab', 'bc') })).network;
  const added = links(torn).filter((pair) => !links(usual).includes(pair));
  assert.equal(added.length, 1);
  const kept = design(request({ members, current: torn, keepSpares: true })).network;
  assert.deepEqual(links(kept), links(torn));
  assert.deepEqual(links(design(request({ members, current: torn })).network), links(usual));
});

test('a relay comes when no pair is left to try, passes on only, and stays while it is kept', () => {
  const members = abc.slice(0, 2);
  const relay = { node: 'r', region: 'eu', role: 'Relay' } as const;
  const down = health('Down', 'ab');
  const { network } = design(request({ members, health: down, findRelay: () => relay }));
  assert.deepEqual(network.nodes.at(-1), relay);
  assert.deepEqual(links(network), ['ab', 'ar', 'br']);
  assert.equal(network.trees.get('a')?.get('b'), 'r');
  assert.ok(!network.trees.has('r'), 'a relay has no streams of its own');
  const again = design(request({ members, relays: [relay], current: network, health: down })).network;
  assert.deepEqual(again, network);
});

test('a relay whose own link is down too gets another beside it', () => {
  const members = abc.slice(0, 2);
  const relay = (node: string) => ({ node, region: 'eu', role: 'Relay' }) as const;
  const first = design(request({ members, health: health('Down', 'ab'), findRelay: () => relay('r') })).network;
  const down = health('Down', 'ab', 'br');
  const more = { members, relays: [relay('r')], current: first, health: down };
  const { network } = design(request({ ...more, findRelay: () => relay('s') }));
  assert.deepEqual(
    network.nodes.map(({ node }) => node),
    ['a', 'b', 'r', 's'],
  );
  assert.equal(network.trees.get('a')?.get('b'), 's');
});

test('without a relay streams keep the only way there is', () => {
  const { network } = design(request({ members: abc.slice(0, 2), health: health('Down', 'ab') }));
  assert.equal(network.trees.get('a')?.get('b'), 'a');
});

const anyRequest = fc.record({
  count: fc.integer({ min: 2, max: 9 }),
  wanted: fc.constantFrom('Auto' as const, 'Mesh' as const, 'HubAndSpoke' as const),
  states: fc.array(fc.constantFrom<LinkHealth['state']>('Opening', 'Up', 'Degraded', 'Down'), {
    minLength: 36,
    maxLength: 36,
  }),
  rtts: fc.array(fc.integer({ min: 1, max: 500 }), { minLength: 36, maxLength: 36 }),
  mayImprove: fc.boolean(),
  keepSpares: fc.boolean(),
});

test('whatever links say: trees reach all, over declared links, and again from what is written down', () => {
  fc.assert(
    fc.property(anyRequest, anyRequest, (first, then) => {
      const members = Array.from({ length: first.count }, (_, index) => member(`n${index}`, `r${index % 3}`));
      const names = members.map(({ node }) => node);
      const told = ({ states, rtts }: typeof first) =>
        new Map(
          names
            .flatMap((a, index) => names.slice(index + 1).map((b) => pairKey(pairOf(a, b))))
            .map((key, index): [string, LinkHealth] => [key, { state: states[index]!, rttMs: rtts[index], loss: 0 }]),
        );
      const before = design(request({ ...first, members, health: told(first) })).network;
      const { network } = design(
        request({ ...then, wanted: first.wanted, members, health: told(then), current: before }),
      );
      const declared = new Set(network.links.map(pairKey));
      for (const source of names) {
        const tree = network.trees.get(source)!;
        assert.deepEqual([...tree.keys()].sort(), names.filter((name) => name !== source).sort());
        for (const [node, via] of tree) assert.ok(declared.has(pairKey(pairOf(node, via))));
      }
      const again = treesOf(network.links, names, detoursOf(network.links, network.trees));
      for (const [source, tree] of network.trees)
        assert.deepEqual(new Map([...again.get(source)!].sort()), new Map([...tree].sort()));
      const same = design(
        request({ ...then, wanted: first.wanted, members, health: told(then), current: network, keepSpares: true }),
      );
      assert.deepEqual(same.network.trees, network.trees, 'nothing changes without news');
    }),
  );
});
