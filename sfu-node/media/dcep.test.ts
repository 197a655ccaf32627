import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeOpenLabel, encodeOpen } from './dcep.ts';

test('an OPEN message carries its label', () => {
  assert.equal(decodeOpenLabel(encodeOpen('_reliable', { lossy: false })), '_reliable');
  assert.equal(decodeOpenLabel(encodeOpen('_lossy', { lossy: true })), '_lossy');
});

test('a reliable channel is ordered, a lossy one is not and is never sent again', () => {
  assert.equal(encodeOpen('a', { lossy: false })[1], 0x00);
  assert.equal(encodeOpen('a', { lossy: true })[1], 0x81);
});

test('an ACK, a short message and a cut label are no OPEN', () => {
  assert.equal(decodeOpenLabel(Buffer.from([0x02])), undefined);
  assert.equal(decodeOpenLabel(Buffer.from([0x03, 0])), undefined);
  assert.equal(decodeOpenLabel(encodeOpen('_reliable', { lossy: false }).subarray(0, 15)), undefined);
});
