import type { Clock } from '#platform/clock.ts';
import { ApiRefusal } from './refusal.ts';

/** An answer is kept for so long, milliseconds; what the API server's own delegates do. */
const keptMs = 10_000;
const maxKept = 4096;
/** Questions to the API server under way at once; more callers are told to come again. */
const maxAsking = 32;

/** Answers of the API server, asked once for callers that come together and kept for a short time. Failures are not kept. */
export class ReviewCache<T> {
  readonly #clock: Clock;
  readonly #kept = new Map<string, { until: number; answer: Promise<T> }>();
  #asking = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @throws ApiRefusal TooManyRequests, or what `ask` throws */
  async get(key: string, ask: () => Promise<T>): Promise<T> {
    const now = this.#clock.now();
    const kept = this.#kept.get(key);
    if (kept && kept.until > now) return kept.answer;
    if (this.#asking >= maxAsking) {
      throw new ApiRefusal(429, 'TooManyRequests', 'too many callers are being looked up; try again in a second');
    }
    const answer = this.#ask(ask);
    this.#kept.delete(key);
    this.#kept.set(key, { until: now + keptMs, answer });
    if (this.#kept.size > maxKept) this.#dropOldest();
    try {
      return await answer;
    } catch (error) {
      if (this.#kept.get(key)?.answer === answer) this.#kept.delete(key);
      throw error;
    }
  }

  async #ask(ask: () => Promise<T>): Promise<T> {
    this.#asking += 1;
    try {
      return await ask();
    } finally {
      this.#asking -= 1;
    }
  }

  #dropOldest(): void {
    const oldest = this.#kept.keys().next();
    if (!oldest.done) this.#kept.delete(oldest.value);
  }
}
