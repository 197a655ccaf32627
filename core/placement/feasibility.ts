import type { NodeView, RoomView } from '../model.ts';

/** Why a node cannot serve a room: a reason for programs, and words that complete "N are ...". */
export interface Violation {
  readonly reason: string;
  readonly message: string;
}

type Check = (node: NodeView, room: RoomView) => Violation | undefined;

/** A node serves a room when no check of this chain finds a violation; the first one found is the one told. */
export const checks: readonly Check[] = [
  isNotAvoided, // make sure it did not just refuse a client
  isReady, // make sure heartbeats arrive
  isNotDraining, // make sure that it stays: its rooms are leaving
  isSchedulable, // make sure an administrator allows new rooms, unless the room is there already
  matchesSelector, // make sure it has the labels that the Room asks for
  isInRegion, // make sure it is in one of the regions that the Room asks for
  hasRoom, // make sure the streams of the room fit
];

/** The first thing that keeps a node from serving a room; undefined when nothing does. */
export function violationOf(node: NodeView, room: RoomView): Violation | undefined {
  for (const check of checks) {
    const violation = check(node, room);
    if (violation) return violation;
  }
  return undefined;
}

/** Whether the room is served by this node now. */
export function isPlacedOn(node: NodeView, room: RoomView): boolean {
  return room.placement?.nodes.some((placed) => placed.node === node.name) ?? false;
}

function isNotAvoided(node: NodeView, room: RoomView): Violation | undefined {
  return room.avoid?.has(node.name) ? { reason: 'NodeFull', message: 'full' } : undefined;
}

function isReady(node: NodeView): Violation | undefined {
  return node.ready ? undefined : { reason: 'NodeNotReady', message: 'not ready' };
}

function isNotDraining(node: NodeView): Violation | undefined {
  return node.draining ? { reason: 'NodeDraining', message: 'draining' } : undefined;
}

function isSchedulable(node: NodeView, room: RoomView): Violation | undefined {
  if (!node.unschedulable || isPlacedOn(node, room)) return undefined;
  return { reason: 'NodeUnschedulable', message: 'marked unschedulable' };
}

function matchesSelector(node: NodeView, room: RoomView): Violation | undefined {
  const missing = Object.entries(room.nodeSelector).find(([key, value]) => node.labels[key] !== value);
  return missing && { reason: 'NodeSelectorMismatch', message: `without label ${missing[0]}=${missing[1]}` };
}

function isInRegion(node: NodeView, room: RoomView): Violation | undefined {
  if (room.regions.length === 0 || room.regions.includes(node.region)) return undefined;
  return { reason: 'RegionMismatch', message: `not in region ${room.regions.join(' or ')}` };
}

function hasRoom(node: NodeView, room: RoomView): Violation | undefined {
  // Where the room is, its streams are part of the load already; when they fill the node, others join elsewhere.
  if (isPlacedOn(node, room) || node.load.streams + room.streams <= node.capacity.streams) return undefined;
  return { reason: 'InsufficientStreams', message: `without ${room.streams} free streams` };
}
