import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cheapestPaths, choosePath, linkCost, switchBelow, type PathLink } from './paths.ts';

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

test('the path in use stays for a small gain, is left for a clear one, and when it breaks', () => {
  const links = (rtt: number) => [link('a', 'b', rtt), link('a', 'c', 100), link('c', 'b', 100)];
  assert.deepEqual(choosePath(links(190), 'a', 'b', ['a', 'c', 'b'])?.nodes, ['a', 'c', 'b']);
  assert.deepEqual(choosePath(links(20), 'a', 'b', ['a', 'c', 'b'])?.nodes, ['a', 'b']);
  assert.deepEqual(choosePath([link('a', 'b', 500)], 'a', 'b', ['a', 'c', 'b'])?.nodes, ['a', 'b']);
  assert.equal(choosePath([], 'a', 'b'), undefined);
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

test('the order of links changes nothing, and a choice is kept when nothing changed', () => {
  fc.assert(
    fc.property(anyLinks, name, (links, to) => {
      const path = choosePath(links, 'a', to);
      assert.deepEqual(choosePath([...links].reverse(), 'a', to)?.nodes, path?.nodes);
      if (path) assert.deepEqual(choosePath(links, 'a', to, path.nodes)?.nodes, path.nodes);
    }),
  );
});

test('a switch always gains more than the hysteresis', () => {
  fc.assert(
    fc.property(anyLinks, anyLinks, name, (before, after, to) => {
      const current = choosePath(before, 'a', to);
      const next = choosePath(after, 'a', to, current?.nodes);
      const kept =
        current &&
        choosePath(
          after.filter(() => true),
          'a',
          to,
          current.nodes,
        );
      if (!current || !next || next.nodes.join() === current.nodes.join()) return;
      assert.deepEqual(kept?.nodes, next.nodes);
      const edges = current.nodes
        .slice(1)
        .map((node, index) =>
          after.filter(
            ({ from, to: end }) => [from, end].sort().join() === [node, current.nodes[index]!].sort().join(),
          ),
        );
      if (edges.some((found) => found.length === 0)) return;
      const old = edges.reduce((sum, found) => sum + Math.min(...found.map(linkCost)), 0);
      assert.ok(next.cost < switchBelow * old + 1e-9);
    }),
  );
});
