import type { Clock } from '#platform/clock.ts';
import { WeirError } from '#platform/errors.ts';
import {
  acknowledgement,
  FrameReader,
  FrameWriter,
  strayClose,
  type RelayReading,
  type RelayStep,
} from './relay-frames.ts';

/** A frame that is not acknowledged is sent again after so long, milliseconds: doubled from the first to the last. */
const resend = { firstMs: 500, lastMs: 2000 } as const;
/** Bytes that are sent again at once, at most: the other side may be slow, and not deaf. */
const resendBytes = 256 * 1024;
/** A frame is acknowledged within this, milliseconds; by another frame if one goes that way. */
const acknowledgeMs = 100;
/** The last word of a session is said again for so long, milliseconds. */
const lingerMs = 5000;
/** Bytes that wait to be acknowledged, at most. */
const mostKeptBytes = 4 * 2 ** 20;

export interface RelayLineOptions {
  /** Sends a frame to the other side, which may or may not get it; false for one that cannot be sent at all. */
  publish(frame: Uint8Array): boolean;
  /** Whether there is a connection now. Without one, what is published waits for it, and nothing is sent again. */
  connected(): boolean;
  /** The other side's messages, each once and in order. */
  onMessage(bytes: Uint8Array): void;
  /** The other side ended the session. */
  onClose(code: number, reason: string): void;
  /** The session cannot go on. */
  onLost(error: WeirError): void;
  /** Nothing more is sent, and nothing that comes is wanted. */
  onEnd(): void;
  /** Whether the other side acknowledges frames, as older versions do not; undefined while that is not known. */
  acknowledges: boolean | undefined;
  clock: Clock;
}

/**
 * One end of a relayed session. NATS delivers a message at most once, and loses some while a server of it restarts: each
 * frame is kept until the other side has acknowledged it, and sent again while it has not. So a session ends because one of
 * its sides ended it or is gone, and not because NATS had a bad moment.
 *
 * ```
 *             close(), lost            acknowledged, or lingered
 *   open  --------------------> closing --------------------------> ended
 *     \____________ a close or a stray came, nothing can be sent ___/
 * ```
 */
export class RelayLine {
  readonly #options: RelayLineOptions;
  readonly #reader = new FrameReader();
  readonly #writer = new FrameWriter();
  #acknowledges: boolean | undefined;
  #state: 'open' | 'closing' | 'ended' = 'open';
  /** A frame came before its time. */
  #missed = false;
  #pauseMs: number = resend.firstMs;
  #cancelResend: (() => void) | undefined;
  #cancelAcknowledge: (() => void) | undefined;
  #cancelLinger: () => void = () => undefined;

  constructor(options: RelayLineOptions) {
    this.#options = options;
    this.#acknowledges = options.acknowledges;
  }

  /** Whether messages go over it. */
  get open(): boolean {
    return this.#state === 'open';
  }

  /** It is known now whether the other side acknowledges frames. */
  setAcknowledges(acknowledges: boolean): void {
    this.#acknowledges = acknowledges;
    if (this.#state === 'ended') return;
    if (acknowledges) return this.#acknowledgeSoon();
    this.#forgetKept();
    if (this.#missed) this.#failForGap();
  }

  send(bytes: Uint8Array): void {
    if (this.open) this.#say(this.#writer.message(bytes, this.#reader.taken));
  }

  /** Says the last word, and sees to it that it is heard. Idempotent. */
  close(code: number, reason: string): void {
    if (!this.open) return;
    this.#state = 'closing';
    this.#cancelLinger = this.#options.clock.after(lingerMs, () => this.end());
    this.#say(this.#writer.close(code, reason, this.#reader.taken));
  }

  receive(data: Uint8Array): void {
    if (this.#state === 'ended') return;
    const reading = this.#read(data);
    if (!reading) return;
    if (this.#writer.acknowledge(reading.acknowledged)) this.#progressed();
    this.#take(reading.step);
  }

  /** Sends what is not acknowledged again, now. */
  resend(): void {
    const frames = this.#writer.kept;
    if (this.#state === 'ended' || frames.length === 0) return;
    let bytes = this.#options.connected() ? 0 : resendBytes;
    for (const frame of frames) {
      if (bytes >= resendBytes) break;
      this.#options.publish(frame);
      bytes += frame.length;
    }
    this.#pauseMs = Math.min(resend.lastMs, 2 * this.#pauseMs);
    this.#resendLater();
  }

  /** Ends this side without another word. Idempotent. */
  end(): void {
    if (this.#state === 'ended') return;
    this.#state = 'ended';
    this.#cancelResend?.();
    this.#cancelAcknowledge?.();
    this.#cancelLinger();
    this.#options.onEnd();
  }

  #read(data: Uint8Array): RelayReading | undefined {
    try {
      return this.#reader.read(data);
    } catch (error) {
      if (!(error instanceof WeirError)) throw error;
      this.#fail(error);
      return undefined;
    }
  }

  #take(step: RelayStep): void {
    const wasOpen = this.open;
    switch (step.kind) {
      case 'message':
        this.#acknowledgeSoon();
        if (wasOpen) this.#options.onMessage(step.bytes);
        return;
      case 'close':
        this.#acknowledge();
        this.end();
        if (wasOpen) this.#options.onClose(step.code, step.reason);
        return;
      case 'stray':
        this.end();
        if (wasOpen) this.#options.onLost(new WeirError('SessionUnknown', step.reason));
        return;
      case 'early':
        this.#missed = true;
        if (this.#acknowledges === false) return this.#failForGap();
        return this.#acknowledge();
      case 'repeated':
        return this.#acknowledge();
      case 'acknowledgement':
        return;
    }
  }

  #say(frame: Uint8Array): void {
    // It says what was taken, too.
    this.#cancelAcknowledge?.();
    this.#cancelAcknowledge = undefined;
    if (!this.#options.publish(frame)) {
      return this.#fail(new WeirError('RelayTooBig', 'a message could not be relayed; the log says why'));
    }
    if (this.#acknowledges === false) this.#forgetKept();
    else if (this.#writer.keptBytes > mostKeptBytes) {
      this.#fail(new WeirError('RelayFull', `the other node has not confirmed ${mostKeptBytes} bytes`));
    } else if (!this.#cancelResend) this.#resendLater();
  }

  #progressed(): void {
    this.#pauseMs = resend.firstMs;
    this.#cancelResend?.();
    this.#cancelResend = undefined;
    if (this.#writer.keptBytes > 0) this.#resendLater();
    else if (this.#state === 'closing') this.end();
  }

  /** Nothing of what was sent will be acknowledged. */
  #forgetKept(): void {
    this.#writer.acknowledge(Infinity);
    this.#progressed();
  }

  #resendLater(): void {
    this.#cancelResend?.();
    this.#cancelResend = this.#options.clock.after(this.#pauseMs, () => this.resend());
  }

  #acknowledgeSoon(): void {
    if (!this.#acknowledges || this.#reader.taken === 0) return;
    this.#cancelAcknowledge ??= this.#options.clock.after(acknowledgeMs, () => this.#acknowledge());
  }

  #acknowledge(): void {
    this.#cancelAcknowledge?.();
    this.#cancelAcknowledge = undefined;
    if (this.#acknowledges) this.#options.publish(acknowledgement(this.#reader.taken));
  }

  #failForGap(): void {
    this.#fail(new WeirError('RelayGap', 'messages were lost, and the other node sends none again'));
  }

  #fail(error: WeirError): void {
    const wasOpen = this.open;
    // Outside of the order, so that the other side takes it whatever else was lost.
    this.#options.publish(strayClose(error.message));
    this.end();
    if (wasOpen) this.#options.onLost(error);
  }
}
