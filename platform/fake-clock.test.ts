import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from './fake-clock.ts';

test('timers fire in order of time, each at its own time, and those that they start as well', () => {
  const clock = new FakeClock(0);
  const fired: string[] = [];
  clock.after(30, () => fired.push(`c${clock.now()}`));
  clock.after(10, () => {
    fired.push(`a${clock.now()}`);
    clock.after(5, () => fired.push(`b${clock.now()}`));
  });
  clock.advance(20);
  assert.deepEqual(fired, ['a10', 'b15']);
  assert.equal(clock.now(), 20);
  clock.advance(10);
  assert.deepEqual(fired, ['a10', 'b15', 'c30']);
});

test('a timer that was taken back does not fire', () => {
  const clock = new FakeClock();
  const cancel = clock.after(1, () => assert.fail('it was taken back'));
  cancel();
  clock.advance(10);
  assert.equal(clock.pending, 0);
});

test('run lets promises settle between timers', async () => {
  const clock = new FakeClock(0);
  const fired: number[] = [];
  const sleep = (ms: number) => new Promise<void>((resolve) => clock.after(ms, resolve));
  const work = (async () => {
    for (let turn = 0; turn < 3; turn++) {
      await sleep(10);
      fired.push(clock.now());
    }
  })();
  await clock.run(30);
  await work;
  assert.deepEqual(fired, [10, 20, 30]);
});
