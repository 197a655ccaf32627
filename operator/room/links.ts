/** What both ends of a room's cascade links say, as one. Pure. */
import type { LinkHealth, LinkState } from '#core/network/mod.ts';
import { pairKey } from '#core/topology/mod.ts';
import type { Room } from '#crds/room.ts';
import { LinkState as WireState, type AssignmentStatus, type LinkStatus } from '#proto/weir/control/v1/control.ts';
import type { RoomMemory } from './memory.ts';
import type { RoomStatus, Wanted } from './status.ts';

/** A link that does not come up for so long although it is offered counts as down, milliseconds. */
export const linkPatienceMs = 3000;

export type StatusLink = NonNullable<RoomStatus['links']>[number];

/** A declared link, as its ends see it. */
export interface LinkSight extends LinkHealth {
  readonly from: string;
  readonly to: string;
  /** Sent over it in both directions, kilobits a second. */
  readonly kbps: number;
  /** Why it is not up, in words of one of its ends; empty when none says. */
  readonly error: string;
}

type Serving = readonly { readonly node: string; readonly status: AssignmentStatus }[];

/** Every declared link of a room, as its two ends see it together. */
export function sightsOf(room: Room, serving: Serving): LinkSight[] {
  const reports = new Map(
    serving
      .filter(({ status }) => status.room?.uid === room.metadata.uid)
      .flatMap(({ node, status }) => status.links.map((link) => [`${node} ${link.peer}`, link] as const)),
  );
  return (room.status?.links ?? []).map((link) => {
    const ends = [reports.get(`${link.from} ${link.to}`), reports.get(`${link.to} ${link.from}`)];
    return sightOf(
      link,
      ends.filter((end) => end !== undefined),
    );
  });
}

/** By pairKey; a link that fails to come up for long counts as down. */
export function healthOf(
  sights: readonly LinkSight[],
  brokenSince: ReadonlyMap<string, number>,
  now: number,
): Map<string, LinkSight> {
  return new Map(
    sights.map((sight) => {
      const since = brokenSince.get(pairKey(sight)) ?? now;
      const hopeless = sight.state === 'Opening' && sight.error !== '' && now - since >= linkPatienceMs;
      return [pairKey(sight), hopeless ? { ...sight, state: 'Down' } : sight];
    }),
  );
}

/** What of a snapshot is looked at here. */
interface Seen {
  readonly serving: Serving;
  readonly memory: Pick<RoomMemory, 'brokenSince'>;
  readonly now: number;
}

/**
 * Links of the status with their states of now, and with `figures` also with round trip time, loss and bit rate; figures
 * that hardly changed stay as they were, as each change is a write.
 */
export function linksWith(what: 'states' | 'figures', seen: Seen, room: Room): Pick<RoomStatus, 'links'> {
  if (!room.status?.links) return {};
  const health = healthOf(sightsOf(room, seen.serving), seen.memory.brokenSince, seen.now);
  const links = room.status.links.map((link): StatusLink => {
    const sight = health.get(pairKey(link));
    if (!sight) return link;
    const next = { ...link, state: sight.state };
    return what === 'states' ? next : { ...next, ...figuresOf(link, sight) };
  });
  return { links };
}

function figuresOf(before: StatusLink, { rttMs, loss, kbps }: LinkSight): Partial<StatusLink> {
  if (rttMs === undefined) return {};
  return {
    rttMillis: unlessAlike(before.rttMillis, rttMs, { step: 5, factor: 1.25 }),
    lossPercent: unlessAlike(before.lossPercent, loss * 100, { step: 1, factor: 1.25 }),
    kbps: unlessAlike(before.kbps, kbps, { step: 100, factor: 2 }),
  };
}

/** A figure in whole numbers; the one before, unless they differ by `step` and by `factor`: a bit rate changes all the time. */
function unlessAlike(before: number | undefined, now: number, by: { step: number; factor: number }): number {
  if (before === undefined) return Math.round(now);
  const [less, more] = before < now ? [before, now] : [now, before];
  return more - less < by.step || more < less * by.factor ? before : Math.round(now);
}

/** The Degraded condition of a room whose nodes do as they were told. */
export const asAsked: Wanted = { status: 'False', reason: 'AsAsked', message: 'Served as the Room asks.' };
/** Links that the condition names before it counts the others. */
const namedLinks = 3;

/** The Degraded condition: True while a declared link is down, or has not come up for {@link linkPatienceMs}. */
export function degradationOf({ serving, memory, now }: Seen, room: Room): Wanted {
  const health = healthOf(sightsOf(room, serving), memory.brokenSince, now);
  const bad = [...health].filter(([key, sight]) => {
    const since = memory.brokenSince.get(key) ?? now;
    return sight.state === 'Down' || (!works(sight) && now - since >= linkPatienceMs);
  });
  const [first] = bad;
  if (!first) return asAsked;
  const words = bad.slice(0, namedLinks).map(([, sight]) => wordsOf(sight));
  if (bad.length > namedLinks) words.push(`${bad.length - namedLinks} more links do not work.`);
  return { status: 'True', reason: first[1].error ? 'LinkOffersFail' : 'LinkDown', message: words.join(' ') };
}

function wordsOf({ from, to, state, error }: LinkSight): string {
  if (error) return `The link from ${from} to ${to} does not come up: ${error}`;
  return state === 'Down'
    ? `The link from ${from} to ${to} is down; streams take another way if there is one.`
    : `The link from ${from} to ${to} has not come up yet.`;
}

/** Whether packets cross. */
export function works({ state }: LinkHealth): boolean {
  return state === 'Up' || state === 'Degraded';
}

/** One end is enough to call a link down; both must see it before it is up. */
function sightOf({ from, to, state: before }: StatusLink, ends: readonly LinkStatus[]): LinkSight {
  const rtts = ends.map(({ rttMs }) => rttMs).filter((rtt) => rtt > 0);
  const failed = ends.find(({ errorCode }) => errorCode !== '');
  return {
    from,
    to,
    state: stateOf(before ?? 'Opening', ends),
    rttMs: rtts.length > 0 ? rtts.reduce((sum, rtt) => sum + rtt, 0) / rtts.length : undefined,
    loss: Math.max(0, ...ends.map(({ loss }) => loss)),
    kbps: ends.reduce((sum, { kbps }) => sum + kbps, 0),
    error: failed ? `${failed.errorCode}: ${failed.error}` : '',
  };
}

/**
 *   Opening --> Up <--> Degraded
 *      |          \       /
 *      +---------> Down <-+      Down stays until both ends see it up: an offer that is under way is no cure yet.
 */
function stateOf(before: LinkState, ends: readonly LinkStatus[]): LinkState {
  const says = (state: WireState) => ends.some((end) => end.state === state);
  if (says(WireState.DOWN)) return 'Down';
  const isUp = ({ state }: LinkStatus) => state === WireState.UP || state === WireState.DEGRADED;
  if (ends.length === 2 && ends.every(isUp)) return says(WireState.DEGRADED) ? 'Degraded' : 'Up';
  if (before === 'Down' || ends.every(isUp)) return before;
  return 'Opening';
}
