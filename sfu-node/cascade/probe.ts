/**
 * What two ends of a link tell each other over the link's own path, five times a second: mediasoup has no keepalive on
 * such transports, and round trip time and loss of the path are known only there.
 */

/** Time between two probes, milliseconds. */
export const probeIntervalMs = 200;
/** A link over which nothing came for so long is down, milliseconds: five probes in a row were lost. */
export const probeSilenceMs = 1000;

export interface Probe {
  readonly sequence: number;
  /** Sender's clock when it was sent, milliseconds. */
  readonly sentAt: number;
  /** `sentAt` of the newest probe that its sender has received, 0 for none yet. */
  readonly echo: number;
  /** How long its sender had that probe, milliseconds. */
  readonly heldMs: number;
  /** Share (0..1) of what was sent to its sender that did not arrive there. */
  readonly loss: number;
}

const probeBytes = 36;

export function encodeProbe(probe: Probe): Buffer {
  const bytes = Buffer.alloc(probeBytes);
  bytes.writeUInt32BE(probe.sequence, 0);
  bytes.writeDoubleBE(probe.sentAt, 4);
  bytes.writeDoubleBE(probe.echo, 12);
  bytes.writeDoubleBE(probe.heldMs, 20);
  bytes.writeDoubleBE(probe.loss, 28);
  return bytes;
}

/** Undefined for what is no probe. */
export function decodeProbe(bytes: Buffer): Probe | undefined {
  if (bytes.length !== probeBytes) return undefined;
  return {
    sequence: bytes.readUInt32BE(0),
    sentAt: bytes.readDoubleBE(4),
    echo: bytes.readDoubleBE(12),
    heldMs: bytes.readDoubleBE(20),
    loss: bytes.readDoubleBE(28),
  };
}

/** What one end knows of its link. */
export interface PathFigures {
  /** Smoothed round trip time, milliseconds; undefined before the first. */
  readonly rttMs: number | undefined;
  /** Share (0..1) of probes lost on the way here, over the last ten seconds. */
  readonly lossIn: number;
  /** The same on the way there, as the other end tells. */
  readonly lossOut: number;
  /** Interarrival jitter (RFC 3550, 6.4.1), milliseconds. */
  readonly jitterMs: number;
}

const window = 50;
const baseWindowMs = 60_000;

/** The lowest figure of the last minute. */
export class Lowest {
  /** What may become the lowest: a rising sequence, the oldest first. */
  readonly #kept: { figure: number; at: number }[] = [];

  take(figure: number, now: number): void {
    while (this.#kept.length > 0 && this.#kept.at(-1)!.figure >= figure) this.#kept.pop();
    this.#kept.push({ figure, at: now });
    while (this.#kept[0] && this.#kept[0].at < now - baseWindowMs) this.#kept.shift();
  }

  get figure(): number | undefined {
    return this.#kept[0]?.figure;
  }
}

/** Turns probes that come in into figures. Times are the caller's clock, milliseconds. */
export class ProbeMeter {
  #rtt: number | undefined;
  #jitter = 0;
  #transit: number | undefined;
  #lossOut = 0;
  #highest = -1;
  /** Whether each of the newest probes arrived, by sequence modulo its size. */
  readonly #arrived = new Map<number, boolean>();
  #last: { sentAt: number; at: number } | undefined;

  /** When the newest probe came; undefined before the first. */
  get heardAt(): number | undefined {
    return this.#last?.at;
  }

  take(probe: Probe, now: number): void {
    const newest = probe.sequence > this.#highest;
    if (this.#highest >= 0) {
      for (let missed = this.#highest + 1; missed < probe.sequence && missed > probe.sequence - window; missed += 1) {
        this.#arrived.set(missed, false);
      }
    }
    this.#arrived.set(probe.sequence, true);
    if (!newest) return;
    this.#highest = probe.sequence;
    for (const sequence of this.#arrived.keys()) {
      if (sequence <= this.#highest - window) this.#arrived.delete(sequence);
    }
    this.#last = { sentAt: probe.sentAt, at: now };
    this.#lossOut = Math.min(1, Math.max(0, probe.loss));
    const transit = now - probe.sentAt;
    if (this.#transit !== undefined) this.#jitter += (Math.abs(transit - this.#transit) - this.#jitter) / 16;
    this.#transit = transit;
    if (probe.echo > 0) this.#measured(Math.max(0, now - probe.echo - probe.heldMs));
  }

  /** What the next probe tells the other end. */
  next(sequence: number, now: number): Probe {
    const { sentAt = 0, at = now } = this.#last ?? {};
    return { sequence, sentAt: now, echo: sentAt, heldMs: now - at, loss: this.figures.lossIn };
  }

  get figures(): PathFigures {
    const lost = [...this.#arrived.values()].filter((arrived) => !arrived).length;
    return {
      rttMs: this.#rtt,
      lossIn: this.#arrived.size > 0 ? lost / this.#arrived.size : 0,
      lossOut: this.#lossOut,
      jitterMs: this.#jitter,
    };
  }

  #measured(rtt: number): void {
    this.#rtt = this.#rtt === undefined ? rtt : this.#rtt + (rtt - this.#rtt) / 8;
  }
}
