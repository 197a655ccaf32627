import assert from 'node:assert/strict';
import { it } from 'node:test';
import { JoinWindow } from './reliability.ts';

void it('joins count for one minute', () => {
  let now = 0;
  const joins = new JoinWindow({ now: () => now, after: () => () => {} });
  joins.succeeded();
  now = 30_000;
  joins.failed();
  joins.succeeded();
  assert.deepEqual(joins.counts(), { succeeded: 2, failed: 1 });
  now = 61_000;
  assert.deepEqual(joins.counts(), { succeeded: 1, failed: 1 });
  now = 200_000;
  assert.deepEqual(joins.counts(), { succeeded: 0, failed: 0 });
});
