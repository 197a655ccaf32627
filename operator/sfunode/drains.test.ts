import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Drains } from './drains.ts';

function setUp() {
  const clock = { now: 1000 };
  const ended: number[] = [];
  const drains = new Drains({ now: () => clock.now, onEnd: (seconds) => ended.push(seconds) });
  return { clock, ended, drains };
}

test('a drain lasts from the first heartbeat that says so to the first without rooms, and counts once', () => {
  const { clock, ended, drains } = setUp();
  drains.take('a', { draining: false, rooms: 3 });
  drains.take('a', { draining: true, rooms: 3 });
  clock.now += 500;
  drains.take('a', { draining: true, rooms: 1 });
  clock.now += 700;
  drains.take('a', { draining: true, rooms: 0 });
  drains.take('a', { draining: true, rooms: 0 });
  assert.deepEqual(ended, [1.2]);
});

test('an idle node, one that is lost and one that takes it back do not count', () => {
  const { clock, ended, drains } = setUp();
  drains.take('idle', { draining: true, rooms: 0 });
  for (const [node, then] of [
    ['lost', undefined],
    ['back', { draining: false, rooms: 2 }],
  ] as const) {
    drains.take(node, { draining: true, rooms: 2 });
    clock.now += 100;
    drains.take(node, then);
    drains.take(node, { draining: true, rooms: 0 });
  }
  assert.deepEqual(ended, []);
});
