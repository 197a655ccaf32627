import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { acknowledgement, FrameReader, FrameWriter, isMessage, strayClose } from './relay-frames.ts';

const bytesOf = (...values: number[]) => new Uint8Array(values);

describe('frames of a relayed session', () => {
  it('arrive as they were sent', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 })), (messages) => {
        const writer = new FrameWriter();
        const reader = new FrameReader();
        for (const bytes of messages) {
          const { step } = reader.read(writer.message(bytes, 0));
          assert.equal(step.kind, 'message');
          assert.deepEqual(step.kind === 'message' && new Uint8Array(step.bytes), bytes);
        }
        const { step } = reader.read(writer.close(1000, 'bye', 0));
        assert.deepEqual(step, { kind: 'close', code: 1000, reason: 'bye' });
      }),
    );
  });

  it('are taken in their order, each once', () => {
    const writer = new FrameWriter();
    const frames = [1, 2, 3].map((n) => writer.message(bytesOf(n), 0));
    const reader = new FrameReader();
    const kinds = [0, 2, 0, 1, 1, 2].map((n) => reader.read(frames[n] ?? bytesOf()).step.kind);
    assert.deepEqual(kinds, ['message', 'early', 'repeated', 'message', 'repeated', 'message']);
    assert.equal(reader.taken, 3);
  });

  it('are kept until the other side has them', () => {
    const writer = new FrameWriter();
    const frames = [1, 2, 3].map((n) => writer.message(bytesOf(n), 0));
    assert.deepEqual(writer.kept, frames);
    assert.equal(writer.acknowledge(2), true);
    assert.deepEqual(writer.kept, frames.slice(2));
    assert.equal(writer.keptBytes, frames[2]?.length);
    assert.equal(writer.acknowledge(1), false, 'it is known already');
    writer.acknowledge(3);
    assert.equal(writer.keptBytes, 0);
  });

  it('say what was taken of the other direction', () => {
    const reader = new FrameReader();
    assert.equal(reader.read(new FrameWriter().message(bytesOf(1), 7)).acknowledged, 7);
    assert.deepEqual(reader.read(acknowledgement(9)), { step: { kind: 'acknowledgement' }, acknowledged: 9 });
    assert.deepEqual(
      reader.read(bytesOf()),
      { step: { kind: 'acknowledgement' }, acknowledged: 0 },
      'the empty message by which NATS says that nobody listens',
    );
  });

  it('that no protobuf reader takes are refused', () => {
    assert.throws(() => new FrameReader().read(bytesOf(255, 255, 255)), { code: 'RelayMalformed' });
  });

  it('of a session that nobody knows are answered by a close that fits any place in the order', () => {
    const reader = new FrameReader();
    reader.read(new FrameWriter().message(bytesOf(), 0));
    assert.deepEqual(reader.read(strayClose('unknown')).step, { kind: 'stray', reason: 'unknown' });
    assert.equal(isMessage(new FrameWriter().message(bytesOf(1), 0)), true);
    for (const quiet of [strayClose('unknown'), acknowledgement(1), bytesOf(), bytesOf(255, 255, 255)]) {
      assert.equal(isMessage(quiet), false);
    }
  });
});
