import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeProbe, encodeProbe, Lowest, ProbeMeter, type Probe } from './probe.ts';

const probe = (more: Partial<Probe>): Probe => ({ sequence: 0, sentAt: 0, echo: 0, heldMs: 0, loss: 0, ...more });

test('a probe reads as it was written, and anything else is no probe', () => {
  const sent = { sequence: 7, sentAt: 1234.5, echo: 1200.25, heldMs: 3.5, loss: 0.02 };
  assert.deepEqual(decodeProbe(encodeProbe(sent)), sent);
  assert.equal(decodeProbe(Buffer.alloc(3)), undefined);
});

test('the round trip is measured by the own clock alone, without the time that the other end held the probe', () => {
  const meter = new ProbeMeter();
  // The other end's clock is far off; our probe of 1,000 was held for 30 ms.
  meter.take(probe({ sentAt: 9_000_000, echo: 1000, heldMs: 30 }), 1050);
  assert.equal(meter.figures.rttMs, 20);
  const next = meter.next(1, 1060);
  assert.deepEqual([next.echo, next.heldMs], [9_000_000, 10]);
});

test('loss is what is missing between the probes that came, and late ones are no loss', () => {
  const meter = new ProbeMeter();
  for (const sequence of [0, 1, 4, 3]) meter.take(probe({ sequence }), sequence * 200);
  assert.equal(meter.figures.lossIn, 1 / 5);
  meter.take(probe({ sequence: 5, loss: 0.4 }), 1000);
  assert.equal(meter.figures.lossOut, 0.4);
});

test('the lowest figure of a minute is remembered while others rise', () => {
  const lowest = new Lowest();
  assert.equal(lowest.figure, undefined);
  for (let second = 0; second < 20; second += 1) lowest.take(20 + second, 1000 * second);
  assert.equal(lowest.figure, 20);
  lowest.take(50, 70_000);
  assert.equal(lowest.figure, 30, 'the first ten are older than a minute');
});
