import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Health } from './health.ts';

test('without checks all is well', () => {
  const health = new Health();
  assert.equal(health.live(), undefined);
  assert.equal(health.ready(), undefined);
});

test('a failing check is named with what is wrong, in its own kind only', () => {
  const health = new Health();
  health.addCheck('ready', 'caches', () => 'rooms are not listed yet');
  health.addCheck('ready', 'nats', () => undefined);
  health.addCheck('live', 'loop', () => undefined);
  assert.equal(health.live(), undefined);
  assert.equal(health.ready(), 'caches: rooms are not listed yet');
  assert.equal(health.report('ready').ok, false);
  assert.equal(health.report('ready').checks.length, 2);
});

test('a check that throws counts as failing, and one that is taken away no longer counts', () => {
  const health = new Health();
  const remove = health.addCheck('live', 'broken', () => {
    throw new Error('oh');
  });
  assert.match(health.live()!, /broken: .*oh/);
  remove();
  assert.equal(health.live(), undefined);
});
