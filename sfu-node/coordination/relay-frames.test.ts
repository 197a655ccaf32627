import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FrameReader, FrameWriter, isClose, strayClose } from './relay-frames.ts';

describe('frames of a relayed session', () => {
  it('arrive as they were sent', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 })), (messages) => {
        const writer = new FrameWriter();
        const reader = new FrameReader();
        for (const bytes of messages) {
          const step = reader.read(writer.message(bytes));
          assert.equal(step.kind, 'message');
          assert.deepEqual(step.kind === 'message' && new Uint8Array(step.bytes), bytes);
        }
        assert.deepEqual(reader.read(writer.close(1000, 'bye')), { kind: 'close', code: 1000, reason: 'bye' });
      }),
    );
  });

  it('are refused when one is missing, twice there, or out of order', () => {
    const writer = new FrameWriter();
    const frames = [1, 2, 3].map((n) => writer.message(new Uint8Array([n])));
    const order = (...at: number[]) => {
      const reader = new FrameReader();
      return () => at.forEach((n) => reader.read(frames[n] ?? new Uint8Array()));
    };
    order(0, 1, 2)();
    assert.throws(order(0, 2), { code: 'RelayGap' });
    assert.throws(order(0, 0), { code: 'RelayGap' });
    assert.throws(order(1), { code: 'RelayGap' });
  });

  it('that no protobuf reader takes are refused', () => {
    assert.throws(() => new FrameReader().read(new Uint8Array([255, 255, 255])), { code: 'RelayMalformed' });
  });

  it('of a session that nobody knows are answered by a close that fits any place in the order', () => {
    const reader = new FrameReader();
    reader.read(new FrameWriter().message(new Uint8Array()));
    assert.deepEqual(reader.read(strayClose('unknown')), { kind: 'stray', reason: 'unknown' });
    assert.equal(isClose(strayClose('unknown')), true);
  });
});
