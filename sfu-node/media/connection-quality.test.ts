import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConnectionQuality } from '@livekit/protocol';
import { qualityOf } from './connection-quality.ts';

test('a connection is as good as its worst stream, and lost without signalling', () => {
  const quality = (scores: (number | undefined)[], lost = false) => qualityOf('PA_1', scores, lost).quality;
  assert.equal(quality([]), ConnectionQuality.EXCELLENT);
  assert.equal(quality([10, undefined, 9]), ConnectionQuality.EXCELLENT);
  assert.equal(quality([10, 6]), ConnectionQuality.GOOD);
  assert.equal(quality([10, 2]), ConnectionQuality.POOR);
  assert.equal(quality([10], true), ConnectionQuality.LOST);
});
