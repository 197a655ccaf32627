import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FakeClock } from '#platform/fake-clock.ts';
import { acknowledgement, strayClose } from './relay-frames.ts';
import { RelayLine } from './relay-line.ts';

const delayMs = 5;

/** One end of a session, and what its owner was told. */
class End {
  readonly line: RelayLine;
  readonly heard: number[] = [];
  readonly ends: string[] = [];
  /** Frames that were sent. */
  sent: Uint8Array[] = [];
  /** Whether the frame of this number arrives. */
  arrives: (index: number) => boolean = () => true;
  connected = true;
  /** Whether a frame can be sent at all. */
  fits: (frame: Uint8Array) => boolean = () => true;
  other: End | undefined;

  constructor(clock: FakeClock, acknowledges: boolean | undefined = true) {
    this.line = new RelayLine({
      acknowledges,
      clock,
      publish: (frame) => {
        if (!this.fits(frame)) return false;
        const index = this.sent.push(frame) - 1;
        if (this.arrives(index)) clock.after(delayMs, () => this.other?.line.receive(frame));
        return true;
      },
      connected: () => this.connected,
      onMessage: (bytes) => this.heard.push(bytes[0] ?? -1),
      onClose: (code, reason) => this.ends.push(`closed ${code} ${reason}`),
      onLost: (error) => this.ends.push(`lost ${error.code}`),
      onEnd: () => this.ends.push('end'),
    });
  }

  send(...values: number[]): void {
    for (const value of values) this.line.send(new Uint8Array([value]));
  }
}

function pair(clock: FakeClock): { a: End; b: End } {
  const [a, b] = [new End(clock), new End(clock)];
  a.other = b;
  b.other = a;
  return { a, b };
}

describe('a relayed session', () => {
  it('carries every message once and in order, whatever is lost on the way', () => {
    const losses = fc.array(fc.boolean(), { maxLength: 60 });
    fc.assert(
      fc.property(losses, losses, fc.array(fc.nat(300), { maxLength: 20 }), (lostOfA, lostOfB, pauses) => {
        const clock = new FakeClock();
        const { a, b } = pair(clock);
        a.arrives = (index) => lostOfA[index] !== true;
        b.arrives = (index) => lostOfB[index] !== true;
        for (const [value, pause] of pauses.entries()) {
          a.send(value);
          b.send(value);
          clock.advance(pause);
        }
        clock.advance(60 * 2000 * 2);
        const all = pauses.map((_, value) => value);
        assert.deepEqual(a.heard, all);
        assert.deepEqual(b.heard, all);
        assert.equal(clock.pending, 0, 'nothing more is sent');
      }),
    );
  });

  it('sends nothing twice on a way that loses nothing', () => {
    const clock = new FakeClock();
    const { a, b } = pair(clock);
    a.send(1, 2, 3);
    clock.advance(10_000);
    assert.equal(a.sent.length, 3);
    assert.deepEqual(b.sent, [acknowledgement(3)], 'one acknowledgement for all');
  });

  it('acknowledges by what goes that way anyway', () => {
    const clock = new FakeClock();
    const { a, b } = pair(clock);
    a.send(1);
    clock.advance(50);
    b.send(2);
    clock.advance(10_000);
    assert.equal(b.sent.length, 1);
    assert.equal(a.sent.length, 2, 'its message, and that it has the answer');
  });

  it('sends again at once what a connection that was lost may have taken with it', () => {
    const clock = new FakeClock();
    const { a, b } = pair(clock);
    a.arrives = () => false;
    a.send(1, 2);
    a.arrives = () => true;
    a.line.resend();
    clock.advance(delayMs);
    assert.deepEqual(b.heard, [1, 2]);
  });

  it('sends nothing again while there is no connection, and goes on with one', () => {
    const clock = new FakeClock();
    const { a, b } = pair(clock);
    a.arrives = () => false;
    a.connected = false;
    a.send(1);
    clock.advance(60_000);
    assert.equal(a.sent.length, 1);
    a.arrives = () => true;
    a.connected = true;
    clock.advance(3000);
    assert.deepEqual(b.heard, [1]);
  });

  it('has its last word heard, and then ends on both sides', () => {
    const clock = new FakeClock();
    const { a, b } = pair(clock);
    a.arrives = (index) => index >= 2;
    a.send(1);
    a.line.close(4000, 'enough');
    assert.equal(a.line.open, false);
    clock.advance(2000);
    assert.deepEqual(b.heard, [1]);
    assert.deepEqual(b.ends, ['end', 'closed 4000 enough']);
    assert.deepEqual(a.ends, ['end']);
    assert.equal(clock.pending, 0);
  });

  it('ends a while after its last word when nobody is there any more', () => {
    const clock = new FakeClock();
    const { a } = pair(clock);
    a.arrives = () => false;
    a.line.close(1000, 'bye');
    clock.advance(4999);
    assert.deepEqual(a.ends, []);
    clock.advance(1);
    assert.deepEqual(a.ends, ['end']);
    assert.equal(clock.pending, 0);
  });

  it('is lost when the other side does not know it', () => {
    const clock = new FakeClock();
    const { a } = pair(clock);
    a.line.receive(strayClose('unknown'));
    assert.deepEqual(a.ends, ['end', 'lost SessionUnknown']);
    a.send(1);
    assert.equal(a.sent.length, 0);
  });

  it('is lost on both sides when a message cannot be sent at all', () => {
    const clock = new FakeClock();
    const { a, b } = pair(clock);
    a.fits = (frame) => frame.length < 100;
    a.send(1);
    a.line.send(new Uint8Array(100));
    clock.advance(100);
    assert.deepEqual(a.ends, ['end', 'lost RelayTooBig']);
    assert.deepEqual(b.ends, ['end', 'lost SessionUnknown']);
  });

  it('is lost when it would keep too much for a side that does not answer', () => {
    const clock = new FakeClock();
    const { a } = pair(clock);
    a.arrives = () => false;
    for (let n = 0; n < 5; n += 1) a.line.send(new Uint8Array(2 ** 20));
    assert.deepEqual(a.ends, ['end', 'lost RelayFull']);
    assert.equal(clock.pending, 0);
  });

  it('sends a side that is slow no more than it may take at once', () => {
    const clock = new FakeClock();
    const { a } = pair(clock);
    a.arrives = () => false;
    for (let n = 0; n < 10; n += 1) a.line.send(new Uint8Array(100 * 1024));
    clock.advance(500);
    assert.equal(a.sent.length, 10 + 3);
  });

  describe('with a node of a version that acknowledges nothing', () => {
    it('sends nothing again, and no acknowledgement', () => {
      const clock = new FakeClock();
      const a = new End(clock, false);
      const b = new End(clock, false);
      a.other = b;
      a.send(1, 2);
      clock.advance(10_000);
      assert.deepEqual(b.heard, [1, 2]);
      assert.equal(a.sent.length, 2);
      assert.equal(b.sent.length, 0);
      a.line.close(1000, 'bye');
      assert.deepEqual(a.ends, ['end']);
    });

    it('is lost when a message is missing', () => {
      const clock = new FakeClock();
      const a = new End(clock, false);
      const b = new End(clock, false);
      a.other = b;
      a.arrives = (index) => index !== 0;
      a.send(1, 2);
      clock.advance(delayMs);
      assert.deepEqual(b.ends, ['end', 'lost RelayGap']);
    });

    it('is lost as well when that turns out only after a message went missing', () => {
      const clock = new FakeClock();
      const a = new End(clock, false);
      const b = new End(clock, undefined);
      a.other = b;
      a.arrives = (index) => index !== 0;
      a.send(1, 2);
      clock.advance(delayMs);
      assert.deepEqual(b.ends, []);
      b.line.setAcknowledges(false);
      assert.deepEqual(b.ends, ['end', 'lost RelayGap']);
    });
  });

  it('acknowledges what came before it was known that the other side wants it', () => {
    const clock = new FakeClock();
    const a = new End(clock);
    const b = new End(clock, undefined);
    [a.other, b.other] = [b, a];
    a.send(1);
    clock.advance(delayMs);
    b.line.setAcknowledges(true);
    clock.advance(200);
    assert.deepEqual(b.sent, [acknowledgement(1)]);
    assert.equal(clock.pending, 0);
  });
});
