/** What a bad network does to packets, one direction at a time. Pure: time comes in, and chance comes from a seed. */
import { seededRandom } from '#tools/local/seeded-random.ts';

/** How one direction treats packets. */
export interface Impairment {
  /** Time that every packet takes, milliseconds. */
  delayMs: number;
  /** Up to so many milliseconds more, evenly spread. Packets keep their order, as in the queues of real networks. */
  jitterMs: number;
  /** Share (0..1) of packets that are lost, each on its own. */
  loss: number;
  /** Megabits a second that pass, IP and UDP headers included; Infinity for no limit. */
  mbps: number;
  /** Longest wait for the rate, milliseconds: a packet that would wait longer is dropped (drop-tail). */
  queueMs: number;
}

/** A network that does nothing to packets. */
export const UNIMPAIRED: Impairment = { delayMs: 0, jitterMs: 0, loss: 0, mbps: Infinity, queueMs: 200 };

/** Why a packet does not arrive: lost by chance, no room in the queue of the rate limit, or the direction is cut. */
export type DropReason = 'loss' | 'queue' | 'cut';

/** What becomes of one packet; milliseconds on the clock by which it was asked. */
export type Verdict = { deliverAt: number } | { dropped: DropReason };

/** Bytes of the IPv4 and UDP headers. */
const HEADER_BYTES = 28;

/**
 * One direction of a path. Each packet draws the same number of chances whatever the impairment, so which packets are
 * lost depends on the seed, their place in the sequence and `loss` alone, and a higher loss loses those of a lower one too.
 */
export class ImpairedDirection {
  readonly #random: () => number;
  #impairment: Impairment = UNIMPAIRED;
  #isCut = false;
  /** When the rate limit has let everything pass that it took. */
  #busyUntil = -Infinity;
  /** When the last packet that is not dropped arrives. */
  #lastDelivery = -Infinity;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  get impairment(): Impairment {
    return this.#impairment;
  }

  get isCut(): boolean {
    return this.#isCut;
  }

  /**
   * Changes what is given and leaves the rest. Packets that are on their way keep their time.
   *
   * @throws RangeError naming the field that makes no sense
   */
  impair(change: Partial<Impairment>): void {
    const next = { ...this.#impairment, ...change };
    for (const field of ['delayMs', 'jitterMs', 'queueMs'] as const) {
      if (!(next[field] >= 0)) throw new RangeError(`${field} is ${next[field]}: write milliseconds, 0 or more`);
    }
    if (!(next.loss >= 0 && next.loss <= 1)) throw new RangeError(`loss is ${next.loss}: write a share from 0 to 1`);
    if (!(next.mbps > 0)) throw new RangeError(`mbps is ${next.mbps}: write more than 0, or cut the direction`);
    this.#impairment = next;
  }

  /** Drops every packet from now on. */
  cut(): void {
    this.#isCut = true;
  }

  /** Ends a cut, and every impairment. */
  heal(): void {
    this.#isCut = false;
    this.#impairment = UNIMPAIRED;
  }

  /**
   * Decides on the next packet of the sequence.
   *
   * @param bytes of its UDP payload
   * @param now milliseconds, never less than before
   */
  decide(bytes: number, now: number): Verdict {
    const { delayMs, jitterMs, loss, mbps, queueMs } = this.#impairment;
    const [lossChance, jitterChance] = [this.#random(), this.#random()];
    if (this.#isCut) return { dropped: 'cut' };
    if (lossChance < loss) return { dropped: 'loss' };
    const sendAt = Math.max(now, this.#busyUntil);
    if (sendAt - now > queueMs) return { dropped: 'queue' };
    this.#busyUntil = sendAt + ((bytes + HEADER_BYTES) * 8) / (mbps * 1000);
    const arrival = this.#busyUntil + delayMs + jitterChance * jitterMs;
    this.#lastDelivery = Math.max(arrival, this.#lastDelivery);
    return { deliverAt: this.#lastDelivery };
  }
}
