import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { keyFrameRequests, parseRtp, rtpPacket, senderReport } from './rtp.ts';

const fields = fc.record({
  payloadType: fc.nat(127),
  sequence: fc.nat(0xffff),
  timestamp: fc.nat(0xffffffff),
  ssrc: fc.nat(0xffffffff),
  marker: fc.boolean(),
  extensions: fc.option(
    fc
      .uniqueArray(fc.tuple(fc.integer({ min: 1, max: 14 }), fc.uint8Array({ minLength: 1, maxLength: 16 })), {
        selector: ([id]) => id,
        minLength: 1,
      })
      .map((entries) => new Map(entries.map(([id, value]) => [id, Buffer.from(value)] as const))),
    { nil: undefined },
  ),
});

test('an RTP packet that was built is read back with the same fields and payload', () => {
  fc.assert(
    fc.property(fields, fc.uint8Array({ maxLength: 1200 }), (wanted, bytes) => {
      const { sequence, timestamp, ssrc, marker } = wanted;
      const read = parseRtp(rtpPacket(wanted, Buffer.from(bytes)));
      assert.deepEqual(read, { sequence, timestamp, ssrc, marker, payload: Buffer.from(bytes) });
    }),
  );
});

test('a packet is laid out as RFC 3550 and RFC 8285 say', () => {
  const packet = rtpPacket(
    {
      payloadType: 96,
      sequence: 0x1_0002,
      timestamp: 3,
      ssrc: 4,
      marker: true,
      extensions: new Map([[7, Buffer.from([9])]]),
    },
    Buffer.from([0xaa]),
  );
  assert.equal(packet.toString('hex'), '90e000020000000300000004' + 'bede0001' + '70090000' + 'aa');
});

test('a sender report tells NTP time and RTP time of one instant', () => {
  const report = senderReport({ ssrc: 1, unixMs: 1500, timestamp: 2, packets: 3, octets: 4 });
  const words = Array.from({ length: 7 }, (_, index) => report.readUInt32BE(index * 4));
  assert.deepEqual(words, [0x80c80006, 1, 2_208_988_801, 2 ** 31, 2, 3, 4]);
});

test('key frames are asked for by PLI and by FIR, in one compound packet', () => {
  const receiverReport = Buffer.from('80c9000100000000', 'hex');
  const pli = Buffer.from('81ce00020000000000000007', 'hex');
  const fir = Buffer.from('84ce00040000000000000000' + '0000000801000000', 'hex');
  assert.deepEqual(keyFrameRequests(Buffer.concat([receiverReport, pli, fir])), [7, 8]);
  assert.deepEqual(keyFrameRequests(receiverReport), []);
});
