import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Registry } from 'prom-client';
import { FakeClock } from '#platform/fake-clock.ts';
import { createRuntimeMetrics } from './metrics.ts';
import { WorkQueue } from './workqueue.ts';

function setUp(options: { baseMs: number; maxMs: number } | undefined = undefined) {
  const clock = new FakeClock();
  return { clock, queue: new WorkQueue({ name: 'test', clock, rateLimiter: options }) };
}

test('keys come out in the order in which they went in', async () => {
  const { queue } = setUp();
  for (const key of ['a', 'b', 'c']) queue.add(key);
  assert.deepEqual([await queue.get(), await queue.get(), await queue.get()], ['a', 'b', 'c']);
});

test('a key that waits is not added twice', async () => {
  const { queue } = setUp();
  queue.add('a');
  queue.add('a');
  assert.equal(queue.length, 1);
  assert.equal(await queue.get(), 'a');
  assert.equal(queue.length, 0);
});

test('a key that is added while it is worked on comes out once more, after done', async () => {
  const { queue } = setUp();
  queue.add('a');
  assert.equal(await queue.get(), 'a');
  queue.add('a');
  queue.add('a');
  queue.add('b');
  assert.equal(await queue.get(), 'b', 'no second worker gets a key that one holds');
  assert.equal(queue.length, 0);
  queue.done('a');
  assert.equal(queue.length, 1);
  assert.equal(await queue.get(), 'a');
  queue.done('a');
  assert.equal(queue.length, 0);
});

test('a worker that waits gets the next key, the one that waited longest first', async () => {
  const { queue } = setUp();
  const taken: string[] = [];
  const first = queue.get().then((key) => taken.push(`first ${key}`));
  const second = queue.get().then((key) => taken.push(`second ${key}`));
  queue.add('a');
  queue.add('b');
  await Promise.all([first, second]);
  assert.deepEqual(taken, ['first a', 'second b']);
});

test('a delayed key comes at its time', () => {
  const { clock, queue } = setUp();
  queue.addAfter('a', 100);
  clock.advance(99);
  assert.equal(queue.length, 0);
  clock.advance(1);
  assert.equal(queue.length, 1);
});

test('of two delays of a key the earlier one counts, whichever came first', () => {
  for (const delays of [
    [100, 50],
    [50, 100],
  ]) {
    const { clock, queue } = setUp();
    for (const delay of delays) queue.addAfter('a', delay);
    clock.advance(50);
    assert.equal(queue.length, 1, `${delays.join(' then ')} ms`);
    assert.equal(clock.pending, 0);
  }
});

test('a delay of nothing is no delay', () => {
  const { queue } = setUp();
  queue.addAfter('a', 0);
  assert.equal(queue.length, 1);
});

test('every failure doubles the wait of its key alone, up to a bound, until it is forgotten', async () => {
  const { clock, queue } = setUp({ baseMs: 10, maxMs: 50 });
  const waitOf = async (key: string) => {
    queue.addRateLimited(key);
    const start = clock.now();
    while (queue.length === 0) clock.advance(1);
    assert.equal(await queue.get(), key);
    queue.done(key);
    return clock.now() - start;
  };
  assert.deepEqual([await waitOf('a'), await waitOf('a'), await waitOf('a')], [10, 20, 40]);
  assert.equal(await waitOf('a'), 50);
  assert.equal(await waitOf('b'), 10);
  assert.equal(queue.retries('a'), 4);
  queue.forget('a');
  assert.equal(await waitOf('a'), 10);
});

test('backoff stays at its bound however often a key fails', () => {
  const { clock, queue } = setUp({ baseMs: 5, maxMs: 1000 });
  for (let failure = 0; failure < 2000; failure++) {
    queue.addRateLimited('a');
    clock.advance(1000);
  }
  assert.equal(queue.length, 1);
});

test('a queue that is shut down lets its workers go, drops what waits and takes nothing more', async () => {
  const { clock, queue } = setUp();
  const waiting = queue.get();
  queue.addAfter('later', 10);
  queue.shutDown();
  assert.equal(await waiting, undefined);
  queue.add('a');
  queue.addRateLimited('a');
  clock.advance(1000);
  assert.equal(queue.length, 0);
  assert.equal(await queue.get(), undefined);
  assert.equal(clock.pending, 0);
});

test('ten thousand keys go through in order', async () => {
  const { queue } = setUp();
  for (let n = 0; n < 10_000; n++) queue.add(`key-${n}`);
  for (let n = 0; n < 10_000; n++) {
    const key = await queue.get();
    assert.equal(key, `key-${n}`);
    queue.done(key);
  }
  assert.equal(queue.length, 0);
});

test('metrics have the names and values that client-go gives them', async () => {
  const registry = new Registry();
  const clock = new FakeClock();
  const queue = new WorkQueue({ name: 'room', clock, metrics: createRuntimeMetrics(registry) });
  const read = async (name: string) => {
    const lines = (await registry.metrics()).split('\n');
    return Number(
      lines
        .find((line) => line.startsWith(`${name}{`) && line.includes('"room"'))
        ?.split(' ')
        .at(-1),
    );
  };
  for (const name of ['workqueue_adds_total', 'workqueue_retries_total', 'workqueue_depth']) {
    assert.equal(await read(name), 0, `${name} starts at 0`);
  }
  queue.add('a');
  queue.add('b');
  queue.add('b');
  clock.advance(2000);
  await queue.get();
  clock.advance(3000);
  assert.equal(await read('workqueue_adds_total'), 2);
  assert.equal(await read('workqueue_depth'), 1);
  assert.equal(await read('workqueue_queue_duration_seconds_sum'), 2);
  assert.equal(await read('workqueue_longest_running_processor_seconds'), 3);
  assert.equal(await read('workqueue_unfinished_work_seconds'), 3);
  queue.done('a');
  assert.equal(await read('workqueue_work_duration_seconds_sum'), 3);
  queue.addRateLimited('a');
  assert.equal(await read('workqueue_retries_total'), 1);
});
