import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ImpairedDirection, UNIMPAIRED, type Impairment, type Verdict } from './impairment.ts';

/** Packets by their size and the milliseconds since the one before. */
type Sequence = readonly { bytes: number; gapMs: number }[];

const seeds = fc.integer();
const sequences: fc.Arbitrary<Sequence> = fc.array(
  fc.record({ bytes: fc.integer({ min: 1, max: 1472 }), gapMs: fc.nat(40) }),
  { maxLength: 200 },
);
const impairments: fc.Arbitrary<Impairment> = fc.record({
  delayMs: fc.nat(300),
  jitterMs: fc.nat(100),
  loss: fc.double({ min: 0, max: 1, noNaN: true }),
  mbps: fc.oneof(fc.constant(Infinity), fc.double({ min: 0.05, max: 100, noNaN: true })),
  queueMs: fc.nat(500),
});

/** Sends a sequence; each packet with when it was sent and what became of it. */
function send(seed: number, impairment: Partial<Impairment>, sequence: Sequence): { at: number; verdict: Verdict }[] {
  const direction = new ImpairedDirection(seed);
  direction.impair(impairment);
  let at = 0;
  return sequence.map(({ bytes, gapMs }) => {
    at += gapMs;
    return { at, verdict: direction.decide(bytes, at) };
  });
}

const lost = (seed: number, impairment: Partial<Impairment>, sequence: Sequence) =>
  send(seed, impairment, sequence).map(({ verdict }) => 'dropped' in verdict && verdict.dropped === 'loss');

const evenly = (count: number, gapMs: number, bytes = 972): Sequence =>
  Array.from({ length: count }, () => ({ bytes, gapMs }));

describe('whatever the impairment', () => {
  test('the same packets under the same seed have the same fate', () => {
    fc.assert(
      fc.property(seeds, impairments, sequences, (seed, impairment, sequence) => {
        assert.deepEqual(send(seed, impairment, sequence), send(seed, impairment, sequence));
      }),
    );
  });

  test('which packets are lost does not depend on delay, jitter or rate', () => {
    fc.assert(
      fc.property(seeds, impairments, sequences, (seed, impairment, sequence) => {
        assert.deepEqual(lost(seed, impairment, sequence), lost(seed, { loss: impairment.loss }, sequence));
      }),
    );
  });

  test('a packet that a lower loss loses is lost under a higher one', () => {
    fc.assert(
      fc.property(seeds, impairments, impairments, sequences, (seed, one, other, sequence) => {
        const fewer = lost(seed, { loss: Math.min(one.loss, other.loss) }, sequence);
        const more = lost(seed, { loss: Math.max(one.loss, other.loss) }, sequence);
        assert.ok(fewer.every((isLost, index) => !isLost || more[index]));
      }),
    );
  });

  test('packets that arrive keep their order and take at least the delay, at most delay, jitter and queue on top of it', () => {
    fc.assert(
      fc.property(seeds, impairments, sequences, (seed, impairment, sequence) => {
        const { delayMs, jitterMs, mbps, queueMs } = impairment;
        const longestTransmission = (1500 * 8) / (mbps * 1000);
        let last = -Infinity;
        for (const { at, verdict } of send(seed, impairment, sequence)) {
          if ('dropped' in verdict) continue;
          assert.ok(verdict.deliverAt >= last);
          assert.ok(verdict.deliverAt >= at + delayMs);
          assert.ok(verdict.deliverAt <= at + delayMs + jitterMs + queueMs + longestTransmission + 1e-6);
          last = verdict.deliverAt;
        }
      }),
    );
  });

  test('no more bits arrive than the rate lets pass in the time', () => {
    fc.assert(
      fc.property(seeds, impairments, sequences, (seed, impairment, sequence) => {
        const arrivals = send(seed, { ...impairment, jitterMs: 0 }, sequence).flatMap(({ at, verdict }, index) =>
          'dropped' in verdict
            ? []
            : [{ at, deliverAt: verdict.deliverAt, bits: ((sequence[index]?.bytes ?? 0) + 28) * 8 }],
        );
        const [first] = arrivals;
        const end = arrivals.at(-1);
        if (!first || !end) return;
        const bits = arrivals.reduce((sum, arrival) => sum + arrival.bits, 0);
        const ms = end.deliverAt - impairment.delayMs - first.at;
        assert.ok(bits <= impairment.mbps * 1000 * ms + 1e-3 || impairment.mbps === Infinity);
      }),
    );
  });
});

test('an unimpaired direction delivers everything at once', () => {
  const sent = send(1, {}, evenly(100, 1));
  assert.ok(sent.every(({ at, verdict }) => 'deliverAt' in verdict && verdict.deliverAt === at));
});

test('about as many packets are lost as the loss says', () => {
  const count = lost(7, { loss: 0.1 }, evenly(10_000, 1)).filter(Boolean).length;
  assert.ok(count > 900 && count < 1100, `${count} of 10,000 lost`);
});

test('a rate limit spaces packets, lets them wait as long as its queue is, and drops the rest', () => {
  // 1,000 bytes on the wire at 1 Mbps take 8 ms; all come at once.
  const sent = send(1, { mbps: 1, queueMs: 20 }, evenly(5, 0));
  assert.deepEqual(
    sent.map(({ verdict }) => verdict),
    [{ deliverAt: 8 }, { deliverAt: 16 }, { deliverAt: 24 }, { dropped: 'queue' }, { dropped: 'queue' }],
  );
});

test('a cut direction drops everything, and healed it is as new', () => {
  const direction = new ImpairedDirection(1);
  direction.impair({ delayMs: 50, loss: 1 });
  direction.cut();
  assert.deepEqual(direction.decide(100, 0), { dropped: 'cut' });
  direction.heal();
  assert.equal(direction.isCut, false);
  assert.deepEqual(direction.impairment, UNIMPAIRED);
  assert.deepEqual(direction.decide(100, 10), { deliverAt: 10 });
});

test('a delay that becomes shorter lets no packet overtake', () => {
  const direction = new ImpairedDirection(1);
  direction.impair({ delayMs: 100 });
  assert.deepEqual(direction.decide(100, 0), { deliverAt: 100 });
  direction.impair({ delayMs: 10 });
  assert.deepEqual(direction.decide(100, 1), { deliverAt: 100 });
  assert.deepEqual(direction.decide(100, 95), { deliverAt: 105 });
});

test('an impairment that makes no sense is refused, naming the field', () => {
  const direction = new ImpairedDirection(1);
  assert.throws(() => direction.impair({ loss: 1.5 }), /loss is 1.5: write a share from 0 to 1/);
  assert.throws(() => direction.impair({ delayMs: -1 }), /delayMs is -1/);
  assert.throws(() => direction.impair({ jitterMs: Number.NaN }), /jitterMs is NaN/);
  assert.throws(() => direction.impair({ mbps: 0 }), /mbps is 0: write more than 0, or cut/);
  assert.deepEqual(direction.impairment, UNIMPAIRED);
});
