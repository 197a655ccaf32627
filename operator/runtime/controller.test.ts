import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Registry } from 'prom-client';
import { FakeClock } from '#platform/fake-clock.ts';
import { WeirError } from '#platform/errors.ts';
import { createLogger } from '#platform/log.ts';
import { Controller, TerminalError, type ReconcileResult } from './controller.ts';
import { KubeApiError } from './kube.ts';
import { createRuntimeMetrics } from './metrics.ts';
import { WorkQueue } from './workqueue.ts';

interface Line {
  level: number;
  msg: string;
  key?: string;
  reason?: string;
  retries?: number;
}

/** A controller of two workers, whose n-th call of reconcile does `steps[n]`, and the last step from then on. */
function setUp(...steps: ((key: string) => Promise<void | ReconcileResult>)[]) {
  const clock = new FakeClock();
  const registry = new Registry();
  const metrics = createRuntimeMetrics(registry);
  const queue = new WorkQueue({ name: 'test', clock, metrics, rateLimiter: { baseMs: 10, maxMs: 1000 } });
  const lines: Line[] = [];
  const destination = { write: (text: string) => void lines.push(JSON.parse(text) as Line) };
  const log = createLogger({ name: 'test', level: 'debug', destination });
  const calls: string[] = [];
  const controller = new Controller({
    name: 'test',
    queue,
    reconcile: async (key) => {
      calls.push(key);
      return steps[Math.min(calls.length, steps.length) - 1]!(key);
    },
    workers: 2,
    log,
    metrics,
    clock,
  });
  const count = async (name: string) => {
    const found = (await registry.metrics()).split('\n').find((line) => line.startsWith(name));
    return Number(found?.split(' ').at(-1));
  };
  controller.start();
  return { clock, queue, controller, calls, lines, count };
}

const nothing = () => Promise.resolve();

test('a key is reconciled once, and left alone when that went well', async () => {
  const { clock, queue, controller, calls, count } = setUp(nothing);
  assert.equal(await count('controller_runtime_reconcile_total{controller="test",result="error"}'), 0);
  queue.add('a');
  await clock.run(60_000);
  assert.deepEqual(calls, ['a']);
  assert.equal(await count('controller_runtime_reconcile_total{controller="test",result="success"}'), 1);
  assert.equal(await count('controller_runtime_max_concurrent_reconciles'), 2);
  assert.equal(await count('controller_runtime_active_workers'), 0);
  await controller.stop();
});

test('a failure is logged and tried again with backoff, which ends with a success', async () => {
  const { clock, queue, controller, calls, lines, count } = setUp(
    () => Promise.reject(new Error('no luck')),
    () => Promise.reject(new Error('no luck')),
    nothing,
  );
  queue.add('a');
  await clock.run(9);
  assert.equal(calls.length, 1);
  await clock.run(1);
  assert.equal(calls.length, 2);
  await clock.run(20);
  assert.equal(calls.length, 3);
  assert.equal(queue.retries('a'), 0);
  assert.equal(await count('controller_runtime_reconcile_errors_total'), 2);
  const errors = lines.filter(({ level }) => level >= 50);
  assert.equal(errors.length, 1);
  assert.match(errors[0]!.msg, /trying again: no luck/);
  assert.equal(errors[0]!.key, 'a');
  await controller.stop();
});

test('what goes on failing is told of now and then, and what has a code without a stack', async () => {
  const fail = () => Promise.reject(new WeirError('NodeUnreachable', 'no answer'));
  const { clock, queue, controller, lines } = setUp(...Array.from({ length: 12 }, () => fail), nothing);
  queue.add('a');
  for (let time = 0; time < 100; time += 1) await clock.run(1000);
  const told = lines.filter(({ level }) => level >= 40);
  assert.deepEqual(
    told.map(({ retries, reason, level }) => [retries, reason, level]),
    [
      [1, 'NodeUnreachable', 40],
      [9, 'NodeUnreachable', 40],
    ],
  );
  assert.ok(told.every((line) => !('err' in line)));
  await controller.stop();
});

test('a terminal error is not tried again until the key is added', async () => {
  const { clock, queue, controller, calls, count } = setUp(() => Promise.reject(new TerminalError('never')), nothing);
  queue.add('a');
  await clock.run(60_000);
  assert.equal(calls.length, 1);
  assert.equal(await count('controller_runtime_terminal_reconcile_errors_total'), 1);
  queue.add('a');
  await clock.run(0);
  assert.equal(calls.length, 2);
  await controller.stop();
});

test('a conflict is an ordinary thing: tried again, without an error', async () => {
  const conflict = new KubeApiError(409, 'Conflict', 'the object has been modified', 'PUT /x');
  const { clock, queue, controller, calls, lines, count } = setUp(() => Promise.reject(conflict), nothing);
  queue.add('a');
  await clock.run(100);
  assert.equal(calls.length, 2);
  assert.equal(await count('controller_runtime_reconcile_errors_total'), 0);
  assert.equal(await count('controller_runtime_reconcile_total{controller="test",result="requeue"}'), 1);
  assert.ok(lines.every(({ level }) => level < 40));
  await controller.stop();
});

test('a reconciliation can ask to be called again', async () => {
  const { clock, queue, controller, calls } = setUp(() => Promise.resolve({ requeueAfterMs: 500 }), nothing);
  queue.add('a');
  await clock.run(499);
  assert.equal(calls.length, 1);
  await clock.run(1);
  assert.equal(calls.length, 2);
  await controller.stop();
});

test('one key is never reconciled twice at once, and others go on beside it', async () => {
  let finish = () => {};
  const { clock, queue, controller, calls } = setUp((key) =>
    key === 'slow' ? new Promise<void>((resolve) => (finish = resolve)) : Promise.resolve(),
  );
  queue.add('slow');
  await clock.run(0);
  queue.add('slow');
  queue.add('b');
  queue.add('c');
  await clock.run(0);
  assert.deepEqual(calls, ['slow', 'b', 'c']);
  finish();
  await clock.run(0);
  assert.deepEqual(calls, ['slow', 'b', 'c', 'slow']);
  finish();
  await controller.stop();
});

test('stop waits for what is under way and begins nothing more', async () => {
  let finish = () => {};
  const { clock, queue, controller, calls } = setUp(() => new Promise<void>((resolve) => (finish = resolve)));
  for (const key of ['a']) queue.add(key);
  await clock.run(0);
  let stopped = false;
  const stop = controller.stop().then(() => (stopped = true));
  queue.add('b');
  await clock.run(1000);
  assert.equal(stopped, false);
  finish();
  await stop;
  assert.deepEqual(calls, ['a']);
});
