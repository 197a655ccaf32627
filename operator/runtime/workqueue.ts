import type { Clock } from '#platform/clock.ts';
import type { RuntimeMetrics } from './metrics.ts';

/** Waiting time of the n-th retry of one key: base * 2^n, at most max. In milliseconds. */
export interface RateLimiter {
  baseMs: number;
  maxMs: number;
}

/** Options of {@link WorkQueue}. */
export interface WorkQueueOptions {
  /** Label of its metrics. */
  name: string;
  clock: Clock;
  /** Default 5 ms doubling to a minute: an unreachable node must not keep a key away for longer. */
  rateLimiter?: RateLimiter;
  metrics?: RuntimeMetrics;
}

/**
 * Keys that want work, after client-go's queue:
 * - a key that already waits is not added twice;
 * - a key that is being worked on is not handed out again until done() is called for it, and if it was added
 *   meanwhile it waits again from then: no two workers ever hold one key, and no change is missed;
 * - delayed adds keep the earliest time of a key;
 * - every key has its own exponential backoff, until forget().
 */
export class WorkQueue {
  readonly name: string;
  readonly #clock: Clock;
  readonly #limiter: RateLimiter;
  readonly #metrics: RuntimeMetrics | undefined;
  readonly #untrack: (() => void) | undefined;

  /** Order of hand-out; `#head` is the first that is still to go, so that taking is not O(n). */
  #order: string[] = [];
  #head = 0;
  /** Keys that want work, with the time since when. */
  readonly #dirty = new Map<string, number>();
  /** Keys that are worked on, with the time since when. */
  readonly #processing = new Map<string, number>();
  readonly #delayed = new Map<string, { at: number; cancel: () => void }>();
  readonly #failures = new Map<string, number>();
  readonly #takers: ((key: string | undefined) => void)[] = [];
  #shutDown = false;

  constructor(options: WorkQueueOptions) {
    this.name = options.name;
    this.#clock = options.clock;
    this.#limiter = options.rateLimiter ?? { baseMs: 5, maxMs: 60_000 };
    this.#metrics = options.metrics;
    this.#untrack = this.#metrics?.trackQueue(this.name, () => this.#gauges());
  }

  /** Keys that wait, without those that are delayed or worked on. */
  get length(): number {
    return this.#order.length - this.#head;
  }

  /** How often addRateLimited was called for the key since forget(). */
  retries(key: string): number {
    return this.#failures.get(key) ?? 0;
  }

  add(key: string): void {
    if (this.#shutDown || this.#dirty.has(key)) return;
    this.#metrics?.queueAdds.inc(this.#labels());
    this.#dirty.set(key, this.#clock.now());
    if (!this.#processing.has(key)) this.#push(key);
  }

  /** Adds after `ms` milliseconds, or at the time already set for the key when that is earlier. */
  addAfter(key: string, ms: number): void {
    if (this.#shutDown) return;
    if (ms <= 0) return this.add(key);
    const at = this.#clock.now() + ms;
    const waiting = this.#delayed.get(key);
    if (waiting && waiting.at <= at) return;
    waiting?.cancel();
    const cancel = this.#clock.after(ms, () => {
      this.#delayed.delete(key);
      this.add(key);
    });
    this.#delayed.set(key, { at, cancel });
  }

  /** Adds after the key's backoff, which doubles. */
  addRateLimited(key: string): void {
    if (this.#shutDown) return;
    const failures = this.retries(key);
    this.#failures.set(key, failures + 1);
    this.#metrics?.queueRetries.inc(this.#labels());
    this.addAfter(key, Math.min(this.#limiter.baseMs * 2 ** failures, this.#limiter.maxMs));
  }

  /** Ends the key's backoff: its next failure starts at the base again. */
  forget(key: string): void {
    this.#failures.delete(key);
  }

  /** The next key; undefined once the queue is shut down. Call {@link done} for every key that came out. */
  async get(): Promise<string | undefined> {
    if (this.#shutDown) return undefined;
    if (this.length > 0) return this.#take();
    return new Promise((resolve) => this.#takers.push(resolve));
  }

  /** The work on a key is over, well or not. */
  done(key: string): void {
    const since = this.#processing.get(key);
    if (since === undefined) return;
    this.#processing.delete(key);
    this.#metrics?.workSeconds.observe(this.#labels(), (this.#clock.now() - since) / 1000);
    if (this.#dirty.has(key) && !this.#shutDown) this.#push(key);
  }

  /**
   * Hands out nothing more. Keys that still wait are dropped, unlike in client-go: the next leader lists everything
   * anyway, and the sooner this one lets go the better.
   */
  shutDown(): void {
    if (this.#shutDown) return;
    this.#shutDown = true;
    for (const { cancel } of this.#delayed.values()) cancel();
    this.#delayed.clear();
    this.#dirty.clear();
    this.#order = [];
    this.#head = 0;
    for (const taker of this.#takers.splice(0)) taker(undefined);
    this.#untrack?.();
  }

  #push(key: string): void {
    this.#order.push(key);
    const taker = this.#takers.shift();
    if (taker) taker(this.#take());
  }

  #take(): string {
    const key = this.#order[this.#head++]!;
    if (this.#head > 1024 && this.#head * 2 > this.#order.length) {
      this.#order = this.#order.slice(this.#head);
      this.#head = 0;
    }
    const now = this.#clock.now();
    this.#metrics?.queueSeconds.observe(this.#labels(), (now - this.#dirty.get(key)!) / 1000);
    this.#dirty.delete(key);
    this.#processing.set(key, now);
    return key;
  }

  #labels(): { name: string; controller: string } {
    return { name: this.name, controller: this.name };
  }

  #gauges() {
    const now = this.#clock.now();
    let unfinished = 0;
    let longest = 0;
    for (const since of this.#processing.values()) {
      unfinished += now - since;
      longest = Math.max(longest, now - since);
    }
    return {
      name: this.name,
      depth: this.length,
      unfinishedSeconds: unfinished / 1000,
      longestSeconds: longest / 1000,
    };
  }
}
