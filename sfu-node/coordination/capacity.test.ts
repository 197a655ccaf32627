import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FakeClock } from '#platform/fake-clock.ts';
import { createLogger } from '#platform/log.ts';
import {
  learn,
  limits,
  lowest,
  NodeCapacity,
  nothingLearnt,
  sustainedMs,
  type Learnt,
  type Vitals,
} from './capacity.ts';

const configured = 500;
const stepMs = 2000;
const calm: Vitals = { eventLoopLagMs: 3, cpu: 0.3, droppedShare: 0, streams: 400 };
const busy: Vitals = { ...calm, cpu: 0.95 };
const between: Vitals = { ...calm, cpu: 0.8 };

/** Looks every two seconds for so long. */
function over(from: Learnt, ms: number, vitals: Vitals): Learnt {
  let learnt = from;
  for (let at = from.lookedAt + stepMs; at <= from.lookedAt + ms; at += stepMs) {
    learnt = learn(learnt, vitals, configured, at);
  }
  return learnt;
}

function isStrained({ eventLoopLagMs, cpu, droppedShare }: Vitals): boolean {
  const strained = [eventLoopLagMs > limits.eventLoopLagMs.strained, cpu > limits.cpu.strained];
  return strained.includes(true) || droppedShare > limits.droppedShare.strained;
}

const start = nothingLearnt(configured, 0);
const lowered = over(start, stepMs + sustainedMs.down, busy);

for (const [title, vitals, reason] of [
  ['an event loop that is late', { ...calm, eventLoopLagMs: 101 }, 'EventLoopSlow'],
  ['a CPU that is nearly full', { ...calm, cpu: 0.86 }, 'CpuHigh'],
  ['datagrams that nobody reads in time', { ...calm, droppedShare: 0.02 }, 'DatagramsDropped'],
] as const) {
  test(`${title} for ten seconds lowers the capacity to nine tenths of what is carried`, () => {
    assert.equal(over(start, sustainedMs.down, vitals).streams, configured);
    const after = over(start, stepMs + sustainedMs.down, vitals);
    assert.equal(after.streams, 360);
    assert.equal(after.limitedBy, reason);
  });
}

test('a strain that passes before ten seconds changes nothing', () => {
  let learnt = start;
  for (let turn = 0; turn < 20; turn += 1) learnt = over(over(learnt, sustainedMs.down - stepMs, busy), stepMs, calm);
  assert.equal(learnt.streams, configured);
});

test('a strain that lasts lowers it again, ten seconds later', () => {
  assert.equal(over(lowered, sustainedMs.down - stepMs, busy).streams, 360);
  assert.equal(over(lowered, sustainedMs.down, { ...busy, streams: 350 }).streams, 315);
});

test('what strains a node that carries little halves it step by step, to a tenth at most', () => {
  assert.equal(over(start, stepMs + sustainedMs.down, { ...busy, streams: 2 }).streams, configured / 2);
  assert.equal(over(start, 600_000, { ...busy, streams: 2 }).streams, configured * lowest);
});

test('a node at ease gets a twentieth back every thirty seconds, and in the end all', () => {
  assert.equal(over(lowered, sustainedMs.up, calm).streams, 360);
  assert.equal(over(lowered, stepMs + sustainedMs.up, calm).streams, 385);
  const healed = over(lowered, 600_000, calm);
  assert.equal(healed.streams, configured);
  assert.equal(healed.limitedBy, undefined);
});

test('a node that is neither strained nor at ease stays as it is', () => {
  assert.equal(over(lowered, 600_000, between).streams, lowered.streams);
});

test('looks that are far apart say nothing of the time between them', () => {
  const late = learn(over(start, stepMs, busy), busy, configured, 60_000);
  assert.equal(late.streams, configured);
});

test('whatever is seen, capacity stays within a tenth and what was configured, and moves by small steps up', () => {
  const anyVitals = fc.record({
    eventLoopLagMs: fc.double({ min: 0, max: 500, noNaN: true }),
    cpu: fc.double({ min: 0, max: 1, noNaN: true }),
    droppedShare: fc.double({ min: 0, max: 0.1, noNaN: true }),
    streams: fc.nat(1000),
  });
  const spells = fc.array(fc.tuple(anyVitals, fc.integer({ min: 1, max: 30 })), { maxLength: 40 });
  fc.assert(
    fc.property(spells, fc.integer({ min: 1, max: 1000 }), (looks, size) => {
      let learnt = nothingLearnt(size, 0);
      for (const [vitals, count] of looks) {
        for (let turn = 0; turn < count; turn += 1) {
          const next = learn(learnt, vitals, size, learnt.lookedAt + stepMs);
          assert.ok(next.streams >= Math.max(1, Math.ceil(size * lowest)) && next.streams <= size);
          assert.ok(next.streams - learnt.streams <= Math.max(1, size / 20));
          assert.equal(next.limitedBy === undefined, next.streams === size);
          if (next.streams < learnt.streams) assert.ok(isStrained(vitals));
          learnt = next;
        }
      }
    }),
    { numRuns: 500 },
  );
});

test('a node that is told not to learn stays as configured', () => {
  const clock = new FakeClock(0);
  const log = createLogger({ name: 'test', level: 'silent' });
  for (const [learns, expected] of [
    [true, 360],
    [false, configured],
  ] as const) {
    const capacity = new NodeCapacity({ configured: { streams: configured, mbps: 10 }, learns, clock, log });
    for (let turn = 0; turn < 6; turn += 1) {
      capacity.observe(busy);
      clock.advance(stepMs);
    }
    assert.equal(capacity.streams, expected);
    assert.equal(capacity.mbps, 10);
  }
});
