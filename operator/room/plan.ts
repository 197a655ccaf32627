import type { Room } from '#crds/room.ts';
import type { Choices } from '#core/placement/mod.ts';
import type { Placement } from '#core/model.ts';
import type { Assignment, AssignmentStatus, RoomRef } from '#proto/weir/control/v1/control.ts';
import type { Route } from '#proto/weir/fleet/v1/fleet.ts';
import { asAsked, degradationOf, linksWith } from './links.ts';
import type { RoomMemory } from './memory.ts';
import { changeBetween, networkFor, nextLookMs, spanRequest } from './network.ts';
import {
  conditionOf,
  networkFields,
  nextStatus,
  placementFields,
  same,
  sameStatus,
  type RoomStatus,
  type Wanted,
} from './status.ts';
import { assignmentOf, finalizer, madeByJoin, networkOf, placementOf, refOf, routeOf } from './translate.ts';

/** Everything that a decision about one room looks at. */
export interface RoomSnapshot {
  /** namespace/name. */
  readonly key: string;
  readonly room: Room | undefined;
  /** namespace/name of an older Room that has the same roomName. */
  readonly nameTakenBy: string | undefined;
  /** Nodes that serve an object of this key, with what they say of it. */
  readonly serving: readonly { readonly node: string; readonly status: AssignmentStatus }[];
  /** Placed nodes that are lost, gone for good, or were not heard of though there was time. */
  readonly gone: ReadonlySet<string>;
  /** Placed nodes that were not heard of yet: too early for a verdict. */
  readonly unknown: ReadonlySet<string>;
  /** Nodes that can be called. */
  readonly callable: ReadonlySet<string>;
  /** Entry of the routing table under the room's name; without a Room, the one that was written for it. */
  readonly route: Route | undefined;
  /** WebSocket URL of the fleet, told in status. */
  readonly url: string | undefined;
  /** When counts were last written, milliseconds since the epoch; 0 for never. */
  readonly countsWrittenAt: number;
  /** A node on which nobody of the room was for so long leaves it, milliseconds. */
  readonly idleNodeMs: number;
  /** What is remembered of the room from earlier looks, this one included. */
  readonly memory: RoomMemory;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** One step towards what the Room asks for. `reason` and `message` go to condition, event and log alike. */
export type Action =
  | { readonly type: 'addFinalizer' }
  | {
      readonly type: 'writePlacement';
      readonly placement: Placement;
      readonly status: RoomStatus;
      readonly reason: string;
      readonly message: string;
    }
  | {
      readonly type: 'writeStatus';
      readonly status: RoomStatus;
      readonly reason: string;
      readonly message: string;
      readonly event?: 'Normal' | 'Warning';
    }
  | { readonly type: 'apply'; readonly node: string; readonly assignment: Assignment }
  | { readonly type: 'putRoute'; readonly route: Route }
  | { readonly type: 'deleteRoute'; readonly roomName: string }
  | {
      readonly type: 'release';
      readonly node: string;
      readonly room: RoomRef;
      readonly epoch: number;
      readonly reason: string;
    }
  | { readonly type: 'removeFinalizer' }
  | { readonly type: 'deleteRoom'; readonly reason: string; readonly message: string };

export interface Plan {
  readonly actions: readonly Action[];
  /** Look again after so many milliseconds, even if nothing changes. */
  readonly requeueAfterMs?: number;
}

/** Counts are written at most this often a room, milliseconds. */
export const countsIntervalMs = 5000;
/** A room that did not fit is tried again this often besides when the fleet changes, milliseconds. */
const retryPlacementMs = 2000;
/** A node that was not heard of yet is waited for in steps of this, milliseconds. */
const unknownNodeMs = 250;

/**
 * Decides the next steps for one room. Each step makes the snapshot one step better, and when it is carried out the
 * room is looked at anew, so steps that depend on one another are never planned together.
 *
 *   no finalizer --> finalizer --> placement, epoch --> apply on the node --> route --> Ready
 *                                      ^                                                  |
 *                                      +----------- node gone, draining, better ----------+
 */
export function planRoom(snapshot: RoomSnapshot, fleet: Choices): Plan {
  const { room } = snapshot;
  if (!room) return planGone(snapshot);
  if (room.metadata.deletionTimestamp) return planDeletion(snapshot, room);
  if (!room.metadata.finalizers?.includes(finalizer)) return { actions: [{ type: 'addFinalizer' }] };
  if (snapshot.nameTakenBy) return planNameTaken(snapshot, room, snapshot.nameTakenBy);
  return planPlacement(snapshot, room, fleet) ?? planAssignment(snapshot, room) ?? planServed(snapshot, room);
}

/** A node that serves another object of this key, or this one without being in its placement, is told to let go. */
function releases(snapshot: RoomSnapshot, room: Room | undefined): Action[] {
  const placement = room && placementOf(room);
  return snapshot.serving.flatMap(({ node, status }): Action[] => {
    const ref = status.room;
    if (!ref || !snapshot.callable.has(node)) return [];
    const same = ref.uid === room?.metadata.uid;
    if (same && (!placement || placement.nodes.some((placed) => placed.node === node))) return [];
    const reason = same ? 'RoomMoved' : 'RoomDeleted';
    return [
      // Whatever epoch the node has it at: this one has no right to it.
      { type: 'release', node, room: ref, epoch: Math.max(same ? (placement?.epoch ?? 0) : 0, status.epoch), reason },
    ];
  });
}

/** There is no Room: whatever is left of one goes. */
function planGone(snapshot: RoomSnapshot): Plan {
  const actions = releases(snapshot, undefined);
  const roomName = snapshot.route?.room?.roomName;
  if (roomName !== undefined) actions.push({ type: 'deleteRoute', roomName });
  return { actions };
}

function planDeletion(snapshot: RoomSnapshot, room: Room): Plan {
  if (!room.metadata.finalizers?.includes(finalizer)) return { actions: [] };
  const ref = refOf(room);
  const actions: Action[] = snapshot.serving
    // A node that cannot be called does not hold the deletion up: it is told when it is back.
    .filter(({ node }) => snapshot.callable.has(node))
    .map(({ node, status }) => ({
      type: 'release',
      node,
      room: status.room ?? ref,
      epoch: status.epoch,
      reason: 'RoomDeleted',
    }));
  if (snapshot.route?.room?.uid === ref.uid) actions.push({ type: 'deleteRoute', roomName: ref.roomName });
  actions.push({ type: 'removeFinalizer' });
  return { actions };
}

function planNameTaken(snapshot: RoomSnapshot, room: Room, owner: string): Plan {
  const ref = refOf(room);
  const message = `Room ${owner} is older and has the roomName ${ref.roomName}; write another spec.roomName in a new Room, or delete one of them.`;
  const taken: Wanted = { status: 'False', reason: 'RoomNameTaken', message };
  const actions: Action[] = snapshot.serving
    .filter(({ node, status }) => status.room?.uid === ref.uid && snapshot.callable.has(node))
    .map(({ node, status }) => ({ type: 'release', node, room: ref, epoch: status.epoch, reason: 'RoomDeleted' }));
  const status = nextStatus(room.status, {
    ...placementFields(room.status?.epoch ?? 0, []),
    links: [],
    detours: [],
    wanted: { Ready: taken, Scheduled: taken },
    ...base(snapshot, room),
  });
  if (!sameStatus(status, room.status))
    actions.push({ type: 'writeStatus', status, reason: taken.reason, message, event: 'Warning' });
  return { actions };
}

/** A placement where there is none, or where the one there, or its links and ways of streams, cannot stay. */
function planPlacement(snapshot: RoomSnapshot, room: Room, fleet: Choices): Plan | undefined {
  const current = placementOf(room);
  if (current?.nodes.some(({ node }) => snapshot.unknown.has(node)))
    return { actions: [], requeueAfterMs: unknownNodeMs };
  const choice = fleet.span(spanRequest(room, snapshot));
  if ('refused' in choice) {
    // Where it is may be less than asked for, and is better than nothing.
    const stays = current && current.nodes.length > 0 && !current.nodes.some(({ node }) => snapshot.gone.has(node));
    if (stays) return undefined;
    const wanted: Wanted = { status: 'False', reason: choice.reason, message: choice.message };
    const status = nextStatus(room.status, { wanted: { Ready: wanted, Scheduled: wanted }, ...base(snapshot, room) });
    const actions: Action[] = sameStatus(status, room.status)
      ? []
      : [{ type: 'writeStatus', status, reason: 'FailedScheduling', message: choice.message, event: 'Warning' }];
    return { actions, requeueAfterMs: retryPlacementMs };
  }
  const before = networkOf(room);
  const { network, topology } = networkFor(snapshot, room, choice.nodes, fleet);
  const change = changeBetween(before, network, choice, topology);
  if (!change) return undefined;
  const { reason, message } = change;
  const placement: Placement = { epoch: (current?.epoch ?? 0) + 1, nodes: network.nodes };
  const moving = reason === 'Moved' || reason === 'Dropped';
  const target = network.nodes.map(({ node }) => node).join(', ');
  const status = nextStatus(room.status, {
    ...placementFields(placement.epoch, placement.nodes),
    ...networkFields(room.status, network, topology),
    wanted: {
      Scheduled: { status: 'True', reason, message },
      Ready: {
        status: 'False',
        reason: 'Assigning',
        message: `Waiting for ${target} to confirm epoch ${placement.epoch}.`,
      },
      Migrating: moving
        ? { status: 'True', reason: 'Moving', message }
        : { status: 'False', reason: 'Settled', message: 'No move is under way.' },
      ...(current ? {} : { Degraded: asAsked }),
    },
    ...base(snapshot, room),
  });
  return { actions: [{ type: 'writePlacement', placement, status, reason, message }] };
}

/** Every placed node serves the room at its epoch and generation. */
function planAssignment(snapshot: RoomSnapshot, room: Room): Plan | undefined {
  const placement = placementOf(room);
  if (!placement) return undefined;
  const generation = room.metadata.generation ?? 1;
  const network = networkOf(room)!;
  const actions = placement.nodes.flatMap(({ node }): Action[] => {
    const served = snapshot.serving.find(
      (candidate) => candidate.node === node && candidate.status.room?.uid === room.metadata.uid,
    )?.status;
    if (served && served.epoch === placement.epoch && served.generation === generation) return [];
    return [{ type: 'apply', node, assignment: assignmentOf(room, placement, network, node) }];
  });
  return actions.length > 0 ? { actions } : undefined;
}

/** The room is served: the routing table and the status say so, and whoever served it before lets go. */
function planServed(snapshot: RoomSnapshot, room: Room): Plan {
  const placement = placementOf(room);
  if (!placement) return { actions: [] };
  const route = routeOf(room, placement);
  if (!sameRoute(snapshot.route, route)) return { actions: [{ type: 'putRoute', route }] };
  const expiry = planExpiry(snapshot, room);
  if (expiry.actions.length > 0) return expiry;
  const actions: Action[] = [];
  const { counts, waitMs } = countsNow(snapshot, room);
  const names = placement.nodes.map(({ node }) => node).join(', ');
  const message = `Served by ${names} at epoch ${placement.epoch}.`;
  const degraded = degradationOf(snapshot, room);
  const status = nextStatus(room.status, {
    url: snapshot.url,
    ...counts,
    wanted: {
      Ready: { status: 'True', reason: 'Serving', message },
      Migrating: { status: 'False', reason: 'Settled', message: 'No move is under way.' },
      Degraded: degraded,
    },
    ...base(snapshot, room),
  });
  if (!sameStatus(status, room.status)) {
    actions.push({ type: 'writeStatus', status, reason: 'Serving', message, ...newsOf(room, degraded) });
  }
  const waits = [waitMs, expiry.requeueAfterMs, nextLookMs(snapshot)].filter((ms) => ms !== undefined);
  // Last, so that a node which does not let go holds nothing up.
  actions.push(...releases(snapshot, room));
  return { actions, requeueAfterMs: waits.length > 0 ? Math.min(...waits) : undefined };
}

/** What of a status that is about to be written is out of the ordinary: links that fail, and a room that is served again. */
function newsOf(room: Room, degraded: Wanted): Partial<Extract<Action, { type: 'writeStatus' }>> {
  const was = conditionOf(room.status, 'Degraded')?.status === 'True';
  const { reason, message } = degraded;
  if (degraded.status === 'True' && !was) return { event: 'Warning', reason, message };
  if (degraded.status === 'False' && was) return { event: 'Normal', reason: 'LinksWork', message: 'All links work.' };
  // Every placement passes through Assigning.
  const ready = conditionOf(room.status, 'Ready');
  return ready?.status === 'False' && ready.reason !== 'Assigning' ? { event: 'Normal' } : {};
}

/**
 * Counts, and figures of links, as the status shall have them. They ride on every write; for their own sake it is written
 * only so often, and until then (`waitMs`) they stay as they are.
 */
function countsNow(snapshot: RoomSnapshot, room: Room): { counts: Partial<RoomStatus>; waitMs?: number } {
  // A lost node's last word still stands in what is served, at the epoch before.
  const own = snapshot.serving.filter(
    ({ status }) => status.room?.uid === room.metadata.uid && status.epoch === room.status?.epoch,
  );
  const fresh = {
    participants: own.reduce((sum, { status }) => sum + status.participants, 0),
    streams: own.reduce((sum, { status }) => sum + status.streams, 0),
    ...linksWith('figures', snapshot, room),
  };
  const { participants, streams, links } = room.status ?? {};
  const settled =
    conditionOf(room.status, 'Ready')?.status === 'True' &&
    room.status?.observedGeneration === room.metadata.generation;
  if (!settled || same(fresh, { participants, streams, links })) return { counts: fresh };
  const waitMs = snapshot.countsWrittenAt + countsIntervalMs - snapshot.now;
  if (waitMs <= 0) return { counts: fresh };
  // A link that came up or broke is told at once.
  return { counts: linksWith('states', snapshot, room), waitMs };
}

/** A Room that a first join made goes when nobody is there for long enough. */
function planExpiry(snapshot: RoomSnapshot, room: Room): Plan {
  const { emptySince, wasUsed } = snapshot.memory;
  if (!madeByJoin(room) || emptySince === undefined) return { actions: [] };
  const { emptyTimeoutSeconds = 300, departureTimeoutSeconds = 20 } = room.spec;
  const timeoutMs = 1000 * (wasUsed ? departureTimeoutSeconds : emptyTimeoutSeconds);
  const wait = emptySince + timeoutMs - snapshot.now;
  if (wait > 0) return { actions: [], requeueAfterMs: wait };
  const message = wasUsed
    ? `The last participant left ${departureTimeoutSeconds} s ago.`
    : `Nobody came within ${emptyTimeoutSeconds} s.`;
  return { actions: [{ type: 'deleteRoom', reason: 'Empty', message }] };
}

function base(snapshot: Pick<RoomSnapshot, 'now'>, room: Room): { generation: number; now: number } {
  return { generation: room.metadata.generation ?? 1, now: snapshot.now };
}

function sameRoute(a: Route | undefined, b: Route): boolean {
  if (a?.epoch !== b.epoch || a.room?.uid !== b.room?.uid || a.nodes.length !== b.nodes.length) return false;
  return a.nodes.every(({ node, role }, index) => b.nodes[index]?.node === node && b.nodes[index].role === role);
}
