import assert from 'node:assert/strict';
import { test } from 'node:test';
import { distribution, formatNumber, median, percentile, single, targetWords, verdict } from './figures.ts';

test('percentiles are samples that were seen, by nearest rank', () => {
  const samples = Array.from({ length: 100 }, (_, index) => 100 - index);
  assert.equal(percentile(samples, 0.5), 50);
  assert.equal(percentile(samples, 0.95), 95);
  assert.equal(percentile(samples, 0.99), 99);
  assert.equal(percentile(samples, 1), 100);
  assert.equal(percentile([7], 0.99), 7);
  assert.throws(() => percentile([], 0.5), /needs samples/);
});

test('the median of an even number of repetitions lies between the two in the middle', () => {
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.equal(median([3, 1, 2]), 2);
});

test('a figure meets its targets or says by how much it misses', () => {
  const target = { value: 2, better: 'lower' } as const;
  assert.equal(verdict(distribution('x', 'ms', [1, 2, 3], [{ quantile: 'p50', ...target }])), 'met');
  assert.equal(
    verdict(distribution('x', 'ms', [1, 2, 3], [{ quantile: 'p99', ...target }])),
    'missed: p99 is 150 % of the target',
  );
  assert.equal(verdict(single('x', '', [0.3, 0.5], { value: 0.6, better: 'higher' })), 'missed: 67 % of the target');
  assert.equal(verdict(single('x', '', [1])), 'no target');
});

test('targets and numbers are written for people', () => {
  const figure = distribution('x', 'ms', [1], [{ quantile: 'p50', value: 1000, better: 'lower' }]);
  assert.equal(targetWords(figure), 'p50 ≤ 1,000');
  assert.deepEqual([0.6131, 42.345, 570.4, 101234.5].map(formatNumber), ['0.613', '42.3', '570', '101,235']);
});
