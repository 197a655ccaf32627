import type { Clock } from '#platform/clock.ts';

const WINDOW_SECONDS = 60;

/** Joins that this node's rooms took or failed over the last minute, by the second. */
export class JoinWindow {
  readonly #clock: Clock;
  readonly #seconds = new Map<number, { succeeded: number; failed: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  succeeded(): void {
    this.#now().succeeded++;
  }

  failed(): void {
    this.#now().failed++;
  }

  counts(): { succeeded: number; failed: number } {
    const oldest = Math.floor(this.#clock.now() / 1000) - WINDOW_SECONDS;
    const sum = { succeeded: 0, failed: 0 };
    for (const [second, counts] of this.#seconds) {
      if (second <= oldest) {
        this.#seconds.delete(second);
        continue;
      }
      sum.succeeded += counts.succeeded;
      sum.failed += counts.failed;
    }
    return sum;
  }

  #now() {
    const second = Math.floor(this.#clock.now() / 1000);
    const known = this.#seconds.get(second);
    if (known) return known;
    const fresh = { succeeded: 0, failed: 0 };
    this.#seconds.set(second, fresh);
    return fresh;
  }
}
