/** What arrives at simulated clients, counted. Pure. */

/** One track at one client: packets, payload bytes, and what is missing between them (RFC 3550, A.1 and A.3). */
export class TrackReception {
  packets = 0;
  octets = 0;
  #ssrc: number | undefined;
  /** Since this stream began: a track may come as another stream later. */
  #first = 0;
  #packets = 0;
  #lostBefore = 0;
  /** Highest sequence number so far, with its turns: it does not wrap. */
  #highest = 0;

  /** @param sequence of the packet, 0..65535 */
  take(ssrc: number, sequence: number, octets: number): void {
    this.packets += 1;
    this.octets += octets;
    if (ssrc !== this.#ssrc) {
      this.#lostBefore = this.lost;
      this.#ssrc = ssrc;
      [this.#first, this.#highest, this.#packets] = [sequence, sequence, 1];
      return;
    }
    this.#packets += 1;
    // How far it is ahead of the highest, -32768..32767: behind it when packets changed places.
    const ahead = ((sequence - this.#highest + 0x8000) & 0xffff) - 0x8000;
    if (ahead > 0) this.#highest += ahead;
  }

  /** Packets that are missing between the first and the last that came of each stream. */
  get lost(): number {
    if (this.#ssrc === undefined) return 0;
    return this.#lostBefore + Math.max(0, this.#highest - this.#first + 1 - this.#packets);
  }
}

const STEP_MS = 0.1;
const LAST_MS = 5000;

/** How many packets took how long, in steps of a tenth of a millisecond up to five seconds. */
export class LatencyCounts {
  readonly #counts: Uint32Array;

  constructor(counts: Uint32Array = new Uint32Array(LAST_MS / STEP_MS + 1)) {
    this.#counts = counts;
  }

  /** What {@link LatencyCounts} of another process is made from. */
  get counts(): Uint32Array {
    return this.#counts;
  }

  take(ms: number): void {
    const step = Math.min(this.#counts.length - 1, Math.max(0, Math.round(ms / STEP_MS)));
    this.#counts[step] = (this.#counts[step] ?? 0) + 1;
  }

  add(other: LatencyCounts): void {
    for (const [step, count] of other.counts.entries()) this.#counts[step] = (this.#counts[step] ?? 0) + count;
  }

  get total(): number {
    return this.#counts.reduce((sum, count) => sum + count, 0);
  }

  /** Milliseconds that a share `q` (0..1) of the packets did not exceed; NaN when there are none. */
  quantile(q: number): number {
    const rank = Math.max(1, Math.ceil(q * this.total));
    let seen = 0;
    for (const [step, count] of this.#counts.entries()) {
      seen += count;
      if (seen >= rank) return step * STEP_MS;
    }
    return Number.NaN;
  }
}

/** A stretch of time in nanoseconds of the machine's monotonic clock. */
export interface TimeWindow {
  readonly from: number;
  readonly to: number;
}

export function isWithin({ from, to }: TimeWindow, at: number): boolean {
  return at >= from && at < to;
}
