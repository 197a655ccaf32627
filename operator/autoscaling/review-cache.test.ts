import assert from 'node:assert/strict';
import { test } from 'node:test';
import { codeOf } from '#platform/errors.ts';
import { FakeClock } from '#platform/fake-clock.ts';
import { ReviewCache } from './review-cache.ts';

test('callers that come together are asked for once, and the answer is kept for ten seconds', async () => {
  const clock = new FakeClock();
  const cache = new ReviewCache<number>(clock);
  let asked = 0;
  const ask = () => Promise.resolve(++asked);
  assert.deepEqual(await Promise.all([cache.get('a', ask), cache.get('a', ask)]), [1, 1]);
  assert.equal(await cache.get('b', ask), 2);
  clock.advance(9999);
  assert.equal(await cache.get('a', ask), 1);
  clock.advance(1);
  assert.equal(await cache.get('a', ask), 3);
});

test('a failure is not kept', async () => {
  const cache = new ReviewCache<number>(new FakeClock());
  await assert.rejects(
    cache.get('a', () => Promise.reject(new Error('away'))),
    /away/,
  );
  assert.equal(await cache.get('a', () => Promise.resolve(1)), 1);
});

test('a flood of unknown callers does not reach the API server as one', async () => {
  const cache = new ReviewCache<number>(new FakeClock());
  const gate = Promise.withResolvers<number>();
  const asking = Array.from({ length: 32 }, (_, index) => cache.get(`caller ${index}`, () => gate.promise));
  await assert.rejects(
    cache.get('one more', () => Promise.resolve(1)),
    (error) => codeOf(error) === 'TooManyRequests',
  );
  const known = cache.get('caller 1', () => Promise.resolve(0));
  gate.resolve(7);
  assert.equal(await known, 7);
  assert.deepEqual(await Promise.all(asking), new Array<number>(32).fill(7));
  assert.equal(await cache.get('one more', () => Promise.resolve(1)), 1);
});
