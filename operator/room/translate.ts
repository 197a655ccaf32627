/** Between the words of the API, of decisions and of the wire. */
import type { Room } from '#crds/room.ts';
import type { Placement, RoomView } from '#core/model.ts';
import { nodesToWire, roleToWire } from '#platform/wire.ts';
import type { Assignment, RoomRef } from '#proto/weir/control/v1/control.ts';
import type { Route } from '#proto/weir/fleet/v1/fleet.ts';

export const finalizer = 'weir.dev/room';
/** `join` on a Room that a first join made. */
export const createdByAnnotation = 'weir.dev/created-by';
/** Region of the client whose join made the Room: served from there if possible. */
export const preferredRegionAnnotation = 'weir.dev/preferred-region';

/** Streams reserved for a room that says nothing of how many it expects. */
const defaultStreams = 20;

/** The name that clients join by. */
export function roomNameOf(room: Room): string {
  return room.spec.roomName ?? room.metadata.name ?? '';
}

export function refOf(room: Room): RoomRef {
  const { uid = '', namespace = '', name = '' } = room.metadata;
  return { uid, namespace, name, roomName: roomNameOf(room) };
}

export function madeByJoin(room: Room): boolean {
  return room.metadata.annotations?.[createdByAnnotation] === 'join';
}

/** Where status says that the room is served; undefined before its first placement. */
export function placementOf(room: Room): Placement | undefined {
  const { epoch, placement } = room.status ?? {};
  if (epoch === undefined) return undefined;
  const nodes = (placement ?? []).map(({ node, region, role }) => ({ node, region: region ?? '', role }));
  return { epoch, nodes };
}

/** Streams to reserve: what the Room expects, or what it has when that is more. */
export function reservedStreams(room: Room): number {
  return Math.max(room.spec.expectedStreams || defaultStreams, room.status?.streams ?? 0);
}

export function roomView(room: Room): RoomView {
  const regions = room.spec.regions ?? [];
  const preferred = room.metadata.annotations?.[preferredRegionAnnotation];
  const placement = placementOf(room);
  return {
    identity: refOf(room),
    regions,
    preferredRegions: regions.length === 0 && preferred ? [preferred] : regions,
    nodeSelector: room.spec.nodeSelector ?? {},
    streams: reservedStreams(room),
    placement: placement && placement.nodes.length > 0 ? placement : undefined,
  };
}

/** What a node is told of a room. */
export function assignmentOf(room: Room, placement: Placement, node: string): Assignment {
  const { spec } = room;
  const role = placement.nodes.find((placed) => placed.node === node)?.role ?? 'Edge';
  return {
    room: refOf(room),
    epoch: placement.epoch,
    generation: room.metadata.generation ?? 1,
    role: roleToWire(role),
    placement: nodesToWire(placement.nodes),
    links: [],
    routes: [],
    settings: {
      maxParticipants: spec.maxParticipants ?? 0,
      codecs: spec.media?.codecs ?? [],
      maxVideoBitrateKbps: spec.media?.maxVideoBitrateKbps ?? 0,
      audioOnly: spec.media?.audioOnly ?? false,
      metadata: spec.metadata ?? '',
      emptyTimeoutSeconds: spec.emptyTimeoutSeconds ?? 0,
      departureTimeoutSeconds: spec.departureTimeoutSeconds ?? 0,
    },
  };
}

/** The room's entry in the routing table. */
export function routeOf(room: Room, placement: Placement): Route {
  return { room: refOf(room), epoch: placement.epoch, nodes: nodesToWire(placement.nodes) };
}
