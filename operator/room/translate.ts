/** Between the words of the API, of decisions and of the wire. */
import type { Room } from '#crds/room.ts';
import type { Placement, RoomView } from '#core/model.ts';
import { treesOf, type Network, type Trees } from '#core/network/mod.ts';
import { servingNodes } from '#core/placement/mod.ts';
import { nodesToWire, roleToWire } from '#platform/wire.ts';
import type { Assignment, RoomRef, StreamRoute } from '#proto/weir/control/v1/control.ts';
import type { Route } from '#proto/weir/fleet/v1/fleet.ts';

export const finalizer = 'weir.dev/room';
/** `join` on a Room that a first join made. */
export const createdByAnnotation = 'weir.dev/created-by';
/** Region of the client whose join made the Room: served from there if possible. */
export const preferredRegionAnnotation = 'weir.dev/preferred-region';

/** Streams reserved on a node for a room that says nothing of how many it expects. */
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

/** The nodes, links and ways of streams that status declares; undefined before the first placement. */
export function networkOf(room: Room): Network | undefined {
  const nodes = placementOf(room)?.nodes;
  if (!nodes) return undefined;
  const links = (room.status?.links ?? []).map(({ from, to }) => ({ from, to }));
  const sources = servingNodes(nodes).map(({ node }) => node);
  return { nodes, links, trees: treesOf(links, sources, room.status?.detours ?? []) };
}

/** Streams to reserve on each node but the first: 20, or what the Room expects in all when that is less. */
export function furtherStreams(room: Room): number {
  return Math.min(defaultStreams, room.spec.expectedStreams || defaultStreams);
}

/**
 * Streams to reserve on a node of the room: its share of those that the room has, or {@link furtherStreams} when that is
 * more. The first node reserves what the Room expects, should it be more still.
 */
export function reservedStreams(room: Room, node: string | undefined, nodes: readonly { node: string }[]): number {
  const share = Math.ceil((room.status?.streams ?? 0) / Math.max(1, nodes.length));
  const isFirst = node === nodes[0]?.node;
  return Math.max(isFirst ? room.spec.expectedStreams || defaultStreams : furtherStreams(room), share);
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
    streams: reservedStreams(room, placement?.nodes[0]?.node, placement?.nodes ?? []),
    placement: placement && placement.nodes.length > 0 ? placement : undefined,
  };
}

/** What a node is told of a room: settings, its neighbours, and from which of them it takes the streams of each other node. */
export function assignmentOf(room: Room, placement: Placement, network: Network, node: string): Assignment {
  const { spec } = room;
  const role = placement.nodes.find((placed) => placed.node === node)?.role ?? 'Edge';
  return {
    room: refOf(room),
    epoch: placement.epoch,
    generation: room.metadata.generation ?? 1,
    role: roleToWire(role),
    placement: nodesToWire(placement.nodes),
    links: neighboursOf(network, node),
    routes: routesTo(network.trees, node),
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

function neighboursOf({ links }: Network, node: string): string[] {
  return links.flatMap(({ from, to }) => (from === node ? [to] : to === node ? [from] : [])).sort();
}

function routesTo(trees: Trees, node: string): StreamRoute[] {
  const routes = [...trees].flatMap(([source, tree]) => {
    const via = tree.get(node);
    return via === undefined ? [] : [{ source, via }];
  });
  return routes.sort((a, b) => (a.source < b.source ? -1 : 1));
}

/** The room's entry in the routing table. */
export function routeOf(room: Room, placement: Placement): Route {
  return { room: refOf(room), epoch: placement.epoch, nodes: nodesToWire(placement.nodes) };
}
