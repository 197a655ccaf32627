import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rtpPacket } from '../rtp.ts';
import { LatencyCounts, TrackReception } from './reception.ts';
import { monotonicNow, readStamped, stamp, STAMPED_BYTES } from './stamp.ts';

test('packets that are missing between the first and the last are counted as lost, also over the turn of numbers', () => {
  const reception = new TrackReception();
  for (const sequence of [65_533, 65_534, 1, 0, 3]) reception.take(1, sequence, 10);
  assert.deepEqual([reception.packets, reception.octets, reception.lost], [5, 50, 2]);
});

test('what is late or comes twice does not count as lost', () => {
  const reception = new TrackReception();
  for (const sequence of [10, 12, 11, 12]) reception.take(1, sequence, 1);
  assert.equal(reception.lost, 0);
  assert.equal(new TrackReception().lost, 0);
});

test('what a track lost counts on when it comes as another stream', () => {
  const reception = new TrackReception();
  for (const sequence of [1, 3]) reception.take(1, sequence, 1);
  for (const sequence of [40_000, 40_001, 40_004]) reception.take(2, sequence, 1);
  assert.deepEqual([reception.packets, reception.lost], [5, 3]);
});

test('quantiles of latency are those of all processes together', () => {
  const one = new LatencyCounts();
  const other = new LatencyCounts();
  for (let ms = 1; ms <= 50; ms += 1) one.take(ms);
  for (let ms = 51; ms <= 100; ms += 1) other.take(ms);
  one.add(new LatencyCounts(other.counts));
  assert.equal(one.total, 100);
  assert.deepEqual([one.quantile(0.5), one.quantile(0.99), one.quantile(1)], [50, 99, 100]);
  one.take(60_000);
  assert.equal(one.quantile(1), 5000);
});

test('a stamp is read from a packet with header extensions, and from none that is too short', () => {
  const payload = Buffer.alloc(STAMPED_BYTES);
  const sentAt = monotonicNow();
  stamp(payload, 2, sentAt);
  const fields = { payloadType: 96, sequence: 7, timestamp: 0, ssrc: 1, marker: false };
  const extensions = new Map([[1, Buffer.from([1])]]);
  const read = readStamped(rtpPacket({ ...fields, extensions }, payload));
  assert.deepEqual(read, { ssrc: 1, sequence: 7, octets: STAMPED_BYTES, layer: 2, sentAt });
  assert.equal(readStamped(rtpPacket(fields, Buffer.alloc(STAMPED_BYTES - 1))), undefined);
});
