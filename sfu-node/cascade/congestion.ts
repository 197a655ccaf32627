/**
 * What a link that is too narrow leaves out. Pure: the caller measures, and does what comes out.
 *
 * Lower-priority video loses its top layers first, active speakers and audio last: a call on a bad line should look worse
 * before anybody is lost from it, and sound right for as long as anything crosses.
 */

/** Of two tracks the one with the lower rank loses layers first. */
const ranks = { video: 0, speaker: 1, screen: 2, audio: 3 } as const;

export interface LinkTrack {
  readonly sid: string;
  readonly kind: keyof typeof ranks;
  /** Highest layer (0 is the lowest) that is wanted on the link and could be sent. */
  readonly top: number;
}

/** What is known of the way there. */
export interface LinkLoad {
  /** Share (0..1) of packets that do not arrive at the other end. */
  readonly loss: number;
  /** Round trip time now, and when nothing queues; milliseconds. Undefined while it was not measured. */
  readonly rttMs: number | undefined;
  readonly baseRttMs: number | undefined;
  readonly sentMbps: number;
  /** What the link may carry, megabits a second. */
  readonly capacityMbps: number;
}

export const limits = {
  /** Share of its capacity that a link may use. */
  use: 0.7,
  /**
   * Loss beyond which layers go; less is made good by retransmission, and need not come of congestion. The bound at which
   * browsers send less as well (draft-ietf-rmcat-gcc-02, 6).
   */
  loss: 0.1,
  /** Queueing delay beyond which layers go, milliseconds. */
  queueMs: 150,
} as const;

/**
 * A link has to be clear of trouble for so long before it gets a layer back, milliseconds. When the trouble comes back with
 * the layer, the next attempt waits twice as long, up to the last: a picture that goes up and down is worse than a small
 * one.
 */
export const restore = { firstMs: 5000, lastMs: 80_000 } as const;
/**
 * What was left out needs this long to show, milliseconds: a queue that is full drains first, of packets that are sent again as
 * well, and losses are told a second later.
 */
export const settleMs = 5000;

/** Why a link is congested; undefined when it is not. */
export function congestionOf({ loss, rttMs, baseRttMs, sentMbps, capacityMbps }: LinkLoad): string | undefined {
  if (sentMbps > limits.use * capacityMbps) return 'CapacityUsed';
  if (loss > limits.loss) return 'Loss';
  if (rttMs !== undefined && baseRttMs !== undefined && rttMs - baseRttMs > limits.queueMs) return 'Delay';
  return undefined;
}

/** How far a link is relieved. Times are of the caller's clock, milliseconds. */
export interface Relief {
  /** Layers that are left out. */
  readonly steps: number;
  /** How many more go next. */
  readonly stride: number;
  /** When the last ones went, and when the last one came back. */
  readonly loweredAt: number;
  readonly restoredAt: number;
  /** Since when nothing was wrong; undefined while something is. */
  readonly clearSince: number | undefined;
  /** How long it has to be clear before the next layer comes back, milliseconds. */
  readonly restoreMs: number;
}

export const noRelief: Relief = {
  ...{ steps: 0, stride: 1, loweredAt: 0, restoredAt: 0 },
  ...{ clearSince: undefined, restoreMs: restore.firstMs },
};

/**
 * The next relief of a link. While it is congested one layer goes, then two more, then four, a quarter of all at most: few are
 * enough when little is too much, and a link of many tracks is relieved in little time. When it was clear for a while one
 * comes back, and goes again at the first sign of trouble.
 * @param most layers that can be left out
 */
export function nextRelief(relief: Relief, congested: boolean, most: number, now: number): Relief {
  const steps = Math.min(relief.steps, most);
  if (!congested) {
    const clearSince = relief.clearSince ?? now;
    const clear = { ...relief, steps, stride: 1, clearSince };
    const clearMs = now - clearSince;
    if (steps > 0 && clearMs >= relief.restoreMs) {
      return { ...clear, steps: steps - 1, restoredAt: now, clearSince: now };
    }
    return { ...clear, restoreMs: clearMs >= restore.lastMs ? restore.firstMs : relief.restoreMs };
  }
  const tried = relief.restoredAt > relief.loweredAt;
  // It was clear until a layer came back.
  const failed = tried && relief.clearSince === relief.restoredAt;
  const restoreMs = failed ? Math.min(restore.lastMs, 2 * relief.restoreMs) : relief.restoreMs;
  const waits = !tried && now - relief.loweredAt < settleMs;
  if (waits || steps >= most) return { ...relief, steps, clearSince: undefined, restoreMs };
  const stride = Math.min(relief.stride, Math.max(1, Math.floor(most / 4)));
  return {
    ...relief,
    ...{ steps: Math.min(most, steps + stride), stride: 2 * stride, loweredAt: now, clearSince: undefined, restoreMs },
  };
}

/** Layers that could be left out of a link: every one of video, none of audio. */
export function mostSteps(tracks: readonly LinkTrack[]): number {
  return tracks.reduce((sum, { kind, top }) => (kind === 'audio' ? sum : sum + top + 1), 0);
}

/**
 * The highest layer of each track that crosses when `steps` layers are left out; -1 for a track that does not cross.
 * All tracks of the lowest rank lose their top layer before any of them loses the next, and the lowest layer of a rank
 * goes only when the rank has nothing else to give.
 */
export function capsOf(tracks: readonly LinkTrack[], steps: number): Map<string, number> {
  const caps = new Map(tracks.map(({ sid, top }) => [sid, top]));
  let left = steps;
  for (const rank of [ranks.video, ranks.speaker, ranks.screen]) {
    const group = tracks.filter(({ kind }) => ranks[kind] === rank).sort((a, b) => (a.sid < b.sid ? -1 : 1));
    while (left > 0) {
      const highest = Math.max(-1, ...group.map(({ sid }) => caps.get(sid) ?? -1));
      const next = group.find(({ sid }) => caps.get(sid) === highest);
      if (highest < 0 || !next) break;
      caps.set(next.sid, highest - 1);
      left -= 1;
    }
  }
  return caps;
}
