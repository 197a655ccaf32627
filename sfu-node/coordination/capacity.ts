import type { Clock } from '#platform/clock.ts';
import type { Logger } from '#platform/log.ts';

/** What said that a node carries too much. */
export type Strain = 'EventLoopSlow' | 'CpuHigh' | 'DatagramsDropped';

/** How a node is doing, over the last two seconds. */
export interface Vitals {
  /** 99th percentile of the event loop's delay, milliseconds. */
  readonly eventLoopLagMs: number;
  /** CPU of node and workers as a share (0..1) of the cores that they may use. */
  readonly cpu: number;
  /** Share (0..1) of the datagrams for it that the kernel dropped, as nobody read them in time. */
  readonly droppedShare: number;
  /** Streams that it carries. */
  readonly streams: number;
}

/** What was learnt so far. Times are milliseconds since the epoch. */
export interface Learnt {
  /** Streams that it says it can carry. */
  readonly streams: number;
  /** Why that is less than what it was set up for; undefined when it is not. */
  readonly limitedBy: Strain | undefined;
  /** Since when it has been strained, or at ease, without a break or a step; undefined when it is not. */
  readonly strainedSince: number | undefined;
  readonly atEaseSince: number | undefined;
  readonly lookedAt: number;
}

/** From `strained` on a figure is too much; below `ease` it is fine. In between nothing is changed. */
export const limits = {
  eventLoopLagMs: { strained: 100, ease: 50 },
  cpu: { strained: 0.85, ease: 0.7 },
  droppedShare: { strained: 0.01, ease: 0.001 },
} as const;
/** A step down after so long a strain, and a step up after so long at ease; milliseconds. */
export const sustainedMs = { down: 10_000, up: 30_000 } as const;
/** A step down goes to a share of what is carried, and at most halves; a step up adds a share of what it was set up for. */
export const steps = { down: 0.9, downAtMost: 0.5, up: 0.05 } as const;
/** It never goes below this share of what it was set up for: what strains it may not be its streams. */
export const lowest = 0.1;
/** Looks that are farther apart say nothing of the time between them, milliseconds. */
const gapMs = 5000;

/** What is known before the first look. */
export function nothingLearnt(configured: number, now: number): Learnt {
  return { streams: configured, limitedBy: undefined, strainedSince: undefined, atEaseSince: undefined, lookedAt: now };
}

/**
 * What a node knows of its capacity after one more look at its vitals: strained for long, it can carry less than it does
 * now; at ease for long, a little more than it thought.
 */
export function learn(before: Learnt, vitals: Vitals, configured: number, now: number): Learnt {
  const strain = strainOf(vitals);
  const unbroken = now - before.lookedAt <= gapMs;
  const since = (at: number | undefined) => (unbroken ? (at ?? now) : now);
  const strainedSince = strain ? since(before.strainedSince) : undefined;
  const atEaseSince = isAtEase(vitals) ? since(before.atEaseSince) : undefined;
  const after = { ...before, strainedSince, atEaseSince, lookedAt: now };
  if (strain && strainedSince !== undefined && now - strainedSince >= sustainedMs.down) {
    const least = Math.max(1, Math.ceil(configured * lowest), Math.floor(before.streams * steps.downAtMost));
    const wanted = Math.floor(steps.down * Math.min(before.streams, vitals.streams));
    const streams = Math.min(before.streams, Math.max(least, wanted));
    // The next step waits until this one can have had an effect.
    return { ...after, streams, limitedBy: streams < configured ? strain : undefined, strainedSince: now };
  }
  if (before.streams < configured && atEaseSince !== undefined && now - atEaseSince >= sustainedMs.up) {
    const streams = Math.min(configured, before.streams + Math.max(1, Math.floor(configured * steps.up)));
    return { ...after, streams, limitedBy: streams < configured ? before.limitedBy : undefined, atEaseSince: now };
  }
  return after;
}

function strainOf({ eventLoopLagMs, cpu, droppedShare }: Vitals): Strain | undefined {
  if (eventLoopLagMs > limits.eventLoopLagMs.strained) return 'EventLoopSlow';
  if (cpu > limits.cpu.strained) return 'CpuHigh';
  return droppedShare > limits.droppedShare.strained ? 'DatagramsDropped' : undefined;
}

function isAtEase({ eventLoopLagMs, cpu, droppedShare }: Vitals): boolean {
  return (
    eventLoopLagMs < limits.eventLoopLagMs.ease && cpu < limits.cpu.ease && droppedShare < limits.droppedShare.ease
  );
}

export interface NodeCapacityOptions {
  /** What the node was set up to carry: streams, and outgoing megabits a second. */
  configured: { streams: number; mbps: number };
  /** Learns from {@link NodeCapacity.observe}; otherwise it stays as configured. */
  learns: boolean;
  clock: Clock;
  log: Logger;
}

/** What this node can carry, as it knows it now. */
export class NodeCapacity {
  readonly configured: { readonly streams: number; readonly mbps: number };
  readonly #options: NodeCapacityOptions;
  #learnt: Learnt;

  constructor(options: NodeCapacityOptions) {
    this.#options = options;
    this.configured = options.configured;
    this.#learnt = nothingLearnt(options.configured.streams, options.clock.now());
  }

  get streams(): number {
    return this.#learnt.streams;
  }

  get mbps(): number {
    return this.configured.mbps;
  }

  get limitedBy(): Strain | undefined {
    return this.#learnt.limitedBy;
  }

  /** Takes one more look. */
  observe(vitals: Vitals): void {
    const { learns, clock, log } = this.#options;
    if (!learns) return;
    const before = this.#learnt;
    this.#learnt = learn(before, vitals, this.configured.streams, clock.now());
    const { streams, limitedBy } = this.#learnt;
    if (streams === before.streams) return;
    const fields = { streams, configured: this.configured.streams, reason: limitedBy, ...rounded(vitals) };
    if (streams < before.streams) log.warn(fields, 'This node is strained: it takes fewer streams from now on');
    else log.info(fields, 'This node is at ease: it takes more streams again');
  }
}

function rounded({ eventLoopLagMs, cpu, droppedShare, streams }: Vitals) {
  return {
    carried: streams,
    eventLoopLagMs: Math.round(eventLoopLagMs),
    cpu: Number(cpu.toFixed(2)),
    droppedShare: Number(droppedShare.toFixed(4)),
  };
}
