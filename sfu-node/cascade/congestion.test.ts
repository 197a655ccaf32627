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

/** A link that is looked at once a second, and of which it is known when it is congested. */
function watched(most: number) {
  let relief = noRelief;
  let now = 10_000;
  const look = (congested: boolean, seconds = 1) => {
    for (let each = 0; each < seconds; each += 1) relief = nextRelief(relief, congested, most, (now += 1000));
    return relief.steps;
  };
  return { look, relief: () => relief };
}

const settle = settleMs / 1000;
const firstRestore = restore.firstMs / 1000;

test('one layer goes at once, and more when that was not enough for longer than it takes to show: two, then four', () => {
  const { look } = watched(100);
  assert.equal(look(true), 1);
  assert.equal(look(true, settle - 1), 1, 'what was done has to show first');
  assert.equal(look(true), 3);
  assert.equal(look(true, settle), 7);
  assert.equal(look(true, settle), 15);
  look(false);
  assert.equal(look(true, settle), 16, 'it begins with one again');
});

test('of few layers one goes at a time, of many a quarter at most', () => {
  const of = (most: number) => {
    const { look } = watched(most);
    return [look(true), ...Array.from({ length: 6 }, () => look(true, settle))];
  };
  assert.deepEqual(of(3), [1, 2, 3, 3, 3, 3, 3]);
  assert.deepEqual(of(9), [1, 3, 5, 7, 9, 9, 9]);
  assert.deepEqual(of(30), [1, 3, 7, 14, 21, 28, 30]);
});

test('layers come back one at a time after it was good for a while', () => {
  const { look } = watched(3);
  look(true, 2 * settle + 1);
  assert.equal(look(false, firstRestore), 3);
  assert.equal(look(false), 2);
  assert.equal(look(false, firstRestore - 1), 2);
  assert.equal(look(false), 1);
  assert.equal(look(false, firstRestore), 0);
});

test('a layer that came back goes at the first sign of trouble, and it alone', () => {
  const { look } = watched(3);
  look(true, 2 * settle + 1);
  assert.equal(look(false, firstRestore + 1), 2);
  assert.equal(look(true), 3);
  assert.equal(look(true, settle - 1), 3);
});

test('trouble that is still told of after a layer went takes no second one while it passes', () => {
  const { look } = watched(2);
  assert.equal(look(true), 1);
  assert.equal(look(true, settle - 1), 1);
  assert.equal(look(false, firstRestore), 1);
});

test('when trouble comes back with a layer, the next attempt waits twice as long', () => {
  const { look, relief } = watched(1);
  look(true);
  const waits: number[] = [];
  for (let attempt = 0; attempt < 6; attempt += 1) {
    let seconds = 0;
    while (look(false) > 0) seconds += 1;
    waits.push(seconds);
    look(true, 3);
  }
  assert.deepEqual(waits, [5, 10, 20, 40, 80, 80]);
  while (look(false) > 0);
  look(false, restore.lastMs / 1000 + 1);
  assert.equal(relief().restoreMs, restore.firstMs, 'after a long time without trouble all is forgotten');
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
