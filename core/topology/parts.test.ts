import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bridges, pairKey, pairOf, partsOf, type LinkPair } from './mod.ts';

const pairs = (...names: string[]): LinkPair[] => names.map((name) => pairOf(name[0]!, name[1]!));
const keys = (links: readonly LinkPair[]) => links.map(pairKey);
const alike = () => 1;

test('nodes fall into the parts that links make', () => {
  assert.deepEqual(partsOf(['a', 'b', 'c', 'd'], pairs('ab', 'cd')), [
    ['a', 'b'],
    ['c', 'd'],
  ]);
  assert.deepEqual(partsOf(['a', 'b'], []), [['a'], ['b']]);
  assert.deepEqual(partsOf(['a', 'b', 'c'], pairs('ab', 'bc')), [['a', 'b', 'c']]);
  assert.deepEqual(partsOf(['a'], pairs('ab')), [['a']], 'a link to a node that is not there does not count');
});

test('two parts are bridged by their cheapest pair that is not declared', () => {
  const cost = ({ from, to }: LinkPair) => ({ ac: 3, ad: 1, bc: 2, bd: 4 })[`${from}${to}`] ?? 0;
  assert.deepEqual(keys(bridges(['a', 'b', 'c', 'd'], pairs('ab', 'cd'), pairs('ab', 'cd'), cost)), ['a/d']);
  assert.deepEqual(keys(bridges(['a', 'b', 'c', 'd'], pairs('ab', 'cd'), pairs('ab', 'cd', 'ad'), cost)), ['b/c']);
});

test('what reaches one another gets no bridge, and where every pair fails there is none', () => {
  assert.deepEqual(bridges(['a', 'b'], pairs('ab'), pairs('ab'), alike), []);
  assert.deepEqual(bridges(['a', 'b'], [], pairs('ab'), alike), []);
});

const names = ['a', 'b', 'c', 'd', 'e', 'f'];
const anyLinks = fc.uniqueArray(
  fc.tuple(fc.constantFrom(...names), fc.constantFrom(...names)).map(([a, b]) => pairOf(a, b)),
  { selector: pairKey, maxLength: 12 },
);

test('bridges are as few as can be, new, and join all that can be joined', () => {
  fc.assert(
    fc.property(anyLinks, anyLinks, (working, broken) => {
      const links = working.filter(({ from, to }) => from !== to);
      const declared = [...links, ...broken];
      const found = bridges(names, links, declared, alike);
      const before = partsOf(names, links).length;
      const after = partsOf(names, [...links, ...found]);
      assert.equal(after.length, before - found.length, 'each joins two parts');
      const known = new Set(keys(declared));
      for (const pair of found) assert.ok(!known.has(pairKey(pair)));
      const partOf = (node: string) => after.find((part) => part.includes(node));
      for (const a of names)
        for (const b of names) if (partOf(a) !== partOf(b)) assert.ok(known.has(pairKey(pairOf(a, b))));
    }),
  );
});

test('nodes in another order get the same bridges', () => {
  fc.assert(
    fc.property(anyLinks, (links) => {
      const backwards = bridges([...names].reverse(), [...links].reverse(), links, alike);
      assert.deepEqual(bridges(names, links, links, alike), backwards);
    }),
  );
});
