import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cheapestPaths, chooseTree, defaultTree, linkCost, switchBelow, type PathLink, type Tree } from './paths.ts';

const link = (from: string, to: string, rttMs = 20, more: Partial<PathLink> = {}): PathLink => ({
  from,
  to,
  rttMs,
  freeMbps: 1000,
  reliability: 1,
  ...more,
});

test('a link costs more with latency, with less bandwidth and with loss, and never more than 1', () => {
  const base = linkCost(link('a', 'b'));
  assert.ok(linkCost(link('a', 'b', 200)) > base);
  assert.ok(linkCost(link('a', 'b', 20, { freeMbps: 2 })) > base);
  assert.ok(linkCost(link('a', 'b', 20, { reliability: 0.9 })) > base);
  assert.ok(Math.abs(linkCost(link('a', 'b', 5000, { freeMbps: 0, reliability: 0 })) - 1) < 1e-9);
});

test('the direct way is taken unless a detour is cheaper', () => {
  const direct = [link('a', 'b', 30), link('a', 'c', 20), link('c', 'b', 20)];
  assert.deepEqual(cheapestPaths(direct, 'a').get('b')?.nodes, ['a', 'b']);
  const lossy = [link('a', 'b', 30, { reliability: 0.5 }), link('a', 'c', 20), link('c', 'b', 20)];
  assert.deepEqual(cheapestPaths(lossy, 'a').get('b')?.nodes, ['a', 'c', 'b']);
});

const tree = (parents: Record<string, string>): Tree => new Map(Object.entries(parents));
const plain = (of: Tree) => Object.fromEntries(of);

test('the tree in use stays for a small gain, is left for a clear one, and when it breaks', () => {
  const links = (rtt: number) => [link('a', 'b', rtt), link('a', 'c', 100), link('c', 'b', 100)];
  const current = tree({ b: 'c', c: 'a' });
  const choose = (of: PathLink[]) => plain(chooseTree(of, 'a', ['a', 'b', 'c'], current));
  assert.deepEqual(choose(links(190)), { b: 'c', c: 'a' });
  assert.deepEqual(choose(links(20)), { b: 'a', c: 'a' });
  assert.deepEqual(choose([link('a', 'b', 500), link('a', 'c', 100)]), { b: 'a', c: 'a' });
  assert.deepEqual(plain(chooseTree([], 'a', ['a', 'b'])), {});
});

test('a tree is taken whole: a gain for one node brings the cheapest way to all', () => {
  const links = [link('a', 'b', 10), link('a', 'c', 100), link('b', 'c', 85), link('a', 'd', 300), link('b', 'd', 20)];
  const current = tree({ b: 'a', c: 'a', d: 'a' });
  assert.deepEqual(plain(chooseTree(links, 'a', ['b', 'c', 'd'], current)), { b: 'a', c: 'b', d: 'b' });
});

test('a link that is down is taken only where there is no other way', () => {
  const down = link('a', 'b', 1, { down: true });
  const around = [down, link('a', 'c', 300), link('c', 'b', 300)];
  assert.deepEqual(plain(chooseTree(around, 'a', ['b', 'c'], tree({ b: 'a', c: 'a' }))), { b: 'c', c: 'a' });
  assert.deepEqual(plain(chooseTree(around, 'a', ['b', 'c'], tree({ b: 'a', c: 'a' }), 0.01)), { b: 'c', c: 'a' });
  assert.deepEqual(plain(chooseTree([down], 'a', ['b'])), { b: 'a' });
});

test('a tree that goes in circles is broken', () => {
  const links = [link('a', 'b'), link('b', 'c'), link('c', 'a')];
  assert.deepEqual(plain(chooseTree(links, 'a', ['b', 'c'], tree({ b: 'c', c: 'b' }))), { b: 'a', c: 'a' });
});

test('while nothing is said, streams take the fewest hops', () => {
  const links = [link('a', 'b'), link('b', 'c'), link('c', 'd'), link('a', 'd')];
  assert.deepEqual(plain(defaultTree(links, 'a')), { b: 'a', c: 'b', d: 'a' });
});

const name = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f');
const anyLinks = fc.array(
  fc.record({
    from: name,
    to: name,
    rttMs: fc.nat(600),
    freeMbps: fc.nat(1000),
    reliability: fc.double({ min: 0, max: 1, noNaN: true }),
  }),
  { maxLength: 15 },
);

test('paths have no loops, form a tree, and reach whatever the links reach', () => {
  fc.assert(
    fc.property(anyLinks, (links) => {
      const paths = cheapestPaths(links, 'a');
      const parents = new Map<string, string>();
      for (const [to, { nodes }] of paths) {
        assert.equal(new Set(nodes).size, nodes.length);
        assert.equal(nodes[0], 'a');
        assert.equal(nodes.at(-1), to);
        for (const [index, node] of nodes.entries()) {
          if (index === 0) continue;
          const parent = parents.get(node) ?? nodes[index - 1]!;
          assert.equal(nodes[index - 1], parent, 'one way into each node: a stream crosses a link once');
          parents.set(node, parent);
        }
      }
      for (const { from, to } of links) if (from !== to) assert.equal(paths.has(from), paths.has(to));
    }),
  );
});

test('no path is dearer than any other way, found by trying them all', () => {
  fc.assert(
    fc.property(anyLinks, (links) => {
      const best = new Map<string, number>([['a', 0]]);
      // Bellman-Ford: as many rounds as there are nodes.
      for (let round = 0; round < 6; round += 1) {
        for (const each of links.filter(({ from, to }) => from !== to)) {
          for (const [x, y] of [
            [each.from, each.to],
            [each.to, each.from],
          ] as const) {
            const cost = (best.get(x) ?? Infinity) + linkCost(each);
            if (cost < (best.get(y) ?? Infinity)) best.set(y, cost);
          }
        }
      }
      const paths = cheapestPaths(links, 'a');
      assert.equal(paths.size, best.size);
      for (const [to, { cost }] of paths) assert.ok(Math.abs(cost - (best.get(to) ?? NaN)) < 1e-9);
    }),
  );
});

/** All ways of a tree, from the source on; fails on a circle. */
function ways(of: Tree, source: string): string[][] {
  return [...of.keys()].map((node) => {
    const way = [node];
    while (way[0] !== source) {
      assert.ok(way.length <= of.size, 'no circles');
      way.unshift(of.get(way[0]!) ?? assert.fail('every way begins at the source'));
    }
    return way;
  });
}

function costOf(way: readonly string[], links: readonly PathLink[]): number {
  const ends = (a: string, b: string) => [a, b].sort().join();
  const hops = way.slice(1).map((node, index) => {
    const found = links.filter(({ from, to }) => ends(from, to) === ends(node, way[index]!));
    return Math.min(Infinity, ...found.map(linkCost));
  });
  return hops.reduce((sum, hop) => sum + hop, 0);
}

const names = ['a', 'b', 'c', 'd', 'e', 'f'];

test('a tree reaches every node that links reach, over links that are there, each node from one other', () => {
  fc.assert(
    fc.property(anyLinks, anyLinks, (before, after) => {
      const chosen = chooseTree(after, 'a', names, chooseTree(before, 'a', names));
      const reached = [...cheapestPaths(after, 'a').keys()].filter((node) => node !== 'a');
      assert.deepEqual([...chosen.keys()].sort(), reached.sort());
      for (const way of ways(chosen, 'a')) assert.ok(costOf(way, after) < Infinity);
    }),
  );
});

test('the order of links and nodes changes nothing, and a tree is kept when nothing changed', () => {
  fc.assert(
    fc.property(anyLinks, (links) => {
      const chosen = chooseTree(links, 'a', names);
      assert.deepEqual([...chooseTree([...links].reverse(), 'a', [...names].reverse())], [...chosen]);
      assert.deepEqual([...chooseTree(links, 'a', names, chosen)], [...chosen]);
    }),
  );
});

test('a tree that works is left only when some node gains more than the hysteresis', () => {
  fc.assert(
    fc.property(anyLinks, anyLinks, (before, after) => {
      const current = chooseTree(before, 'a', names);
      const next = chooseTree(after, 'a', names, current);
      const costs = ways(current, 'a').map((way) => [way.at(-1)!, costOf(way, after)] as const);
      const broken = costs.some(([, cost]) => cost === Infinity) || next.size !== current.size;
      if (broken || [...next].join() === [...current].join()) return;
      const best = cheapestPaths(after, 'a');
      assert.ok(costs.some(([node, cost]) => best.get(node)!.cost < switchBelow * cost + 1e-9));
    }),
  );
});
