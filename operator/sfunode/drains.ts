/** What a heartbeat says of a drain. */
export interface DrainReport {
  readonly draining: boolean;
  readonly rooms: number;
}

/**
 * How long nodes take to let their rooms go, as their heartbeats tell: from the first that drains with rooms to the first
 * without. A node that is lost or takes its drain back is not counted.
 */
export class Drains {
  readonly #since = new Map<string, number>();
  readonly #now: () => number;
  readonly #onEnd: (seconds: number) => void;

  /** @param options.onEnd is told when a node has let its last room go */
  constructor(options: { now: () => number; onEnd: (seconds: number) => void }) {
    this.#now = options.now;
    this.#onEnd = options.onEnd;
  }

  /** Takes the newest of a node; undefined when it is not heard any more. */
  take(node: string, report: DrainReport | undefined): void {
    const since = this.#since.get(node);
    if (!report?.draining) return void this.#since.delete(node);
    if (report.rooms > 0) {
      if (since === undefined) this.#since.set(node, this.#now());
    } else if (since !== undefined) {
      this.#since.delete(node);
      this.#onEnd((this.#now() - since) / 1000);
    }
  }
}
