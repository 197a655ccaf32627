import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VideoQuality } from '@livekit/protocol';
import fc from 'fast-check';
import { demandOf, highestLayer, layersToSend, unite } from './demand.ts';

test('a subscriber needs what it shows and the lowest layer, and all between while its line is too thin', () => {
  const shows = (quality: VideoQuality, current?: number) =>
    demandOf({ disabled: false, quality }, 3, current).layers.toString(2);
  assert.equal(shows(VideoQuality.LOW), '1');
  assert.equal(shows(VideoQuality.MEDIUM), '11');
  assert.equal(shows(VideoQuality.HIGH), '101');
  assert.equal(shows(VideoQuality.HIGH, 2), '101');
  assert.equal(shows(VideoQuality.HIGH, 0), '111');
  assert.equal(demandOf(undefined, 1).layers, 1);
  assert.equal(demandOf({ disabled: true, quality: VideoQuality.HIGH }, 3).paused, true);
});

test('demand of many is what any of them wants, and paused when all of them are', () => {
  assert.equal(unite([]), undefined);
  assert.deepEqual(unite([{ paused: true, layers: 4 }]), { paused: true, layers: 0 });
  const wanted = [
    { paused: true, layers: 4 },
    { paused: false, layers: 1 },
    { paused: false, layers: 2 },
  ];
  assert.deepEqual(unite(wanted), { paused: false, layers: 3 });
});

test('of a layer that is not there the next lower one is sent, and never one above the cap while another is there', () => {
  const want = (layers: number) => ({ paused: false, layers });
  assert.equal(layersToSend(want(0b101), 0b111, 2), 0b101);
  assert.equal(layersToSend(want(0b101), 0b011, 2), 0b011);
  assert.equal(layersToSend(want(0b100), 0b111, 0), 0b001);
  assert.equal(layersToSend(want(0b001), 0b100, 2), 0b100);
  assert.equal(layersToSend(want(0b101), 0b111, 31), 0b101, 'a cap of all bits is none');
  assert.equal(layersToSend({ paused: true, layers: 7 }, 7, 2), 0);
  assert.equal(layersToSend(undefined, 7, 2), 0);
});

test('what is sent is there, is no more than what is wanted in number, and is something whenever there is anything', () => {
  const bits = fc.integer({ min: 1, max: 7 });
  fc.assert(
    fc.property(bits, fc.nat(7), fc.nat(2), (wanted, has, cap) => {
      const sent = layersToSend({ paused: false, layers: wanted }, has, cap);
      const count = (set: number) => set.toString(2).replaceAll('0', '').length;
      assert.equal(sent & ~has, 0);
      assert.ok(count(sent) <= count(wanted));
      assert.equal(sent !== 0, has !== 0);
      if (has & ((1 << (cap + 1)) - 1)) assert.ok(highestLayer(sent) <= cap);
    }),
  );
});
