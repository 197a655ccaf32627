import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { Failovers } from './failovers.ts';

const nodes: Record<string, { alive: boolean; lastSeen: number }> = {
  draining: { alive: true, lastSeen: 10_000 },
  dead: { alive: false, lastSeen: 8_500 },
};
let now: number;
let ended: [string, number][];
let failovers: Failovers;

beforeEach(() => {
  now = 10_000;
  ended = [];
  failovers = new Failovers({
    node: (name) => nodes[name],
    now: () => now,
    onEnd: (cause, seconds) => ended.push([cause, seconds]),
  });
});

test('a drain counts from the decision, a loss from when the node was heard last', () => {
  failovers.left('a', ['draining']);
  failovers.left('b', ['dead']);
  now = 10_200;
  failovers.served('a');
  failovers.served('b');
  assert.deepEqual(ended, [
    ['drained', 0.2],
    ['lost', 1.7],
  ]);
});

test('a room that has to leave again before it is served counts once, from the first time', () => {
  failovers.left('a', ['dead']);
  now = 12_000;
  failovers.left('a', ['draining']);
  now = 13_000;
  failovers.served('a');
  failovers.served('a');
  assert.deepEqual(ended, [['lost', 4.5]]);
});

test('a node that nobody remembers counts from the decision, a room that is gone not at all', () => {
  failovers.left('a', ['forgotten']);
  failovers.left('b', ['dead']);
  failovers.forget('b');
  now = 10_050;
  failovers.served('a');
  failovers.served('b');
  assert.deepEqual(ended, [['lost', 0.05]]);
});
