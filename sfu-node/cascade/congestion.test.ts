import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  capsOf,
  congestionOf,
  mostSteps,
  nextRelief,
  noRelief,
  restore,
  settleMs,
  type LinkTrack,
} from './congestion.ts';

const calm = { loss: 0, rttMs: 20, baseRttMs: 20, sentMbps: 10, capacityMbps: 100 };

test('a link is congested by loss, by a queue, or by use of more than 0.7 of its capacity', () => {
  assert.equal(congestionOf(calm), undefined);
  assert.equal(congestionOf({ ...calm, loss: 0.11 }), 'Loss');
  assert.equal(congestionOf({ ...calm, rttMs: 200 }), 'Delay');
  assert.equal(congestionOf({ ...calm, sentMbps: 71 }), 'CapacityUsed');
  assert.equal(congestionOf({ ...calm, rttMs: undefined, baseRttMs: undefined }), undefined);
});

test('ordinary video loses its top layers first, then speakers, then screens; audio never', () => {
  const tracks: LinkTrack[] = [
    { sid: 'a', kind: 'audio', top: 0 },
    { sid: 'x', kind: 'video', top: 2 },
    { sid: 'y', kind: 'video', top: 1 },
    { sid: 's', kind: 'speaker', top: 2 },
    { sid: 'w', kind: 'screen', top: 0 },
  ];
  const told = (steps: number) => [...capsOf(tracks, steps)].map(([sid, cap]) => `${sid}${cap}`).join(' ');
  assert.equal(told(0), 'a0 x2 y1 s2 w0');
  assert.equal(told(1), 'a0 x1 y1 s2 w0');
  assert.equal(told(3), 'a0 x0 y0 s2 w0');
  assert.equal(told(5), 'a0 x-1 y-1 s2 w0');
  assert.equal(told(6), 'a0 x-1 y-1 s1 w0');
  assert.equal(told(99), 'a0 x-1 y-1 s-1 w-1');
  assert.equal(mostSteps(tracks), 9);
});

test('layers go one at a time while it is bad, and come back one at a time after it was good for a while', () => {
  let relief = nextRelief(noRelief, true, 3, 10_000);
  assert.equal(relief.steps, 1);
  relief = nextRelief(relief, true, 3, 10_000 + settleMs / 2);
  assert.equal(relief.steps, 1, 'what was done has to show first');
  relief = nextRelief(relief, true, 3, 10_000 + settleMs);
  assert.equal(relief.steps, 2);
  relief = nextRelief(relief, false, 3, 12_000);
  relief = nextRelief(relief, false, 3, 12_000 + restore.firstMs - 1);
  assert.equal(relief.steps, 2);
  relief = nextRelief(relief, false, 3, 12_000 + restore.firstMs);
  assert.equal(relief.steps, 1);
  relief = nextRelief(relief, false, 3, 12_000 + 2 * restore.firstMs);
  assert.equal(relief.steps, 0);
});

test('when trouble comes back with a layer, the next attempt waits twice as long', () => {
  let relief = nextRelief(noRelief, true, 3, 10_000);
  let now = 12_000;
  const waits: number[] = [];
  for (let attempt = 0; attempt < 6; attempt += 1) {
    const clearAt = now;
    while (relief.steps > 0) relief = nextRelief(relief, false, 3, (now += 1000));
    waits.push(now - clearAt - 1000);
    relief = nextRelief(relief, true, 3, (now += settleMs));
    now += settleMs;
  }
  assert.deepEqual(waits, [5000, 10_000, 20_000, 40_000, 80_000, 80_000]);
  while (relief.steps > 0) relief = nextRelief(relief, false, 3, (now += 1000));
  for (let second = 0; second <= restore.lastMs / 1000; second += 1)
    relief = nextRelief(relief, false, 3, (now += 1000));
  assert.equal(relief.restoreMs, restore.firstMs, 'after a long time without trouble all is forgotten');
});

const anyTracks = fc.uniqueArray(
  fc.record({
    sid: fc.string({ minLength: 1, maxLength: 3 }),
    kind: fc.constantFrom('audio', 'video', 'speaker', 'screen'),
    top: fc.nat(2),
  }),
  { selector: ({ sid }) => sid, maxLength: 8 },
);

test('each step takes exactly one layer, never of audio, and order of input changes nothing', () => {
  const sum = (caps: Map<string, number>) => [...caps.values()].reduce((total, cap) => total + cap, 0);
  fc.assert(
    fc.property(anyTracks, fc.nat(20), (tracks, steps) => {
      const caps = capsOf(tracks, steps);
      const taken = sum(capsOf(tracks, 0)) - sum(caps);
      assert.equal(taken, Math.min(steps, mostSteps(tracks)));
      for (const { sid, kind, top } of tracks) if (kind === 'audio') assert.equal(caps.get(sid), top);
      const reversed = capsOf([...tracks].reverse(), steps);
      for (const [sid, cap] of caps) assert.equal(reversed.get(sid), cap);
    }),
  );
});
