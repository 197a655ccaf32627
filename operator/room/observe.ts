import type { Room } from '#crds/room.ts';
import type { Clock } from '#platform/clock.ts';
import type { NodeConnections } from '../fleet/connections.ts';
import type { NodeRegistry } from '../fleet/node-registry.ts';
import type { RouteTable } from '../fleet/route-table.ts';
import { isTorn } from '#core/network/mod.ts';
import { servingNodes } from '#core/placement/mod.ts';
import { pairKey } from '#core/topology/mod.ts';
import { healthOf, sightsOf, works } from './links.ts';
import { nothingRemembered, type RoomMemories, type Sight } from './memory.ts';
import { membersOf } from './network.ts';
import type { RoomSnapshot } from './plan.ts';
import type { RoomIndex } from './room-index.ts';
import { madeByJoin, placementOf, roomNameOf } from './translate.ts';

/** Where the state of rooms is read from. */
export interface RoomSources {
  rooms: { get(key: string): Room | undefined };
  index: RoomIndex;
  registry: NodeRegistry;
  connections: NodeConnections;
  routes: RouteTable;
  memories: RoomMemories;
  /** When counts of a room were last written, by uid. */
  countsWritten: ReadonlyMap<string, number>;
  url: string | undefined;
  /** A node on which nobody of a room was for so long leaves it, milliseconds. */
  idleNodeMs: number;
  clock: Clock;
}

/** Reads all that a decision about a room looks at. Changes nothing. */
export function observeRoom(key: string, sources: RoomSources): RoomSnapshot {
  const { rooms, index, registry, connections, routes, clock } = sources;
  const room = rooms.get(key);
  const now = clock.now();
  const uid = room?.metadata.uid ?? '';
  const serving = registry.serversOf(key);
  const placed = (room && placementOf(room)?.nodes.map(({ node }) => node)) ?? [];
  const route = room ? routes.get(roomNameOf(room)) : routes.ofObject(key);
  return {
    key,
    room,
    nameTakenBy: room && index.takenBy(room),
    serving,
    gone: new Set(placed.filter((node) => registry.isGone(node))),
    unknown: new Set(placed.filter((node) => !registry.get(node) && !registry.isGone(node))),
    callable: new Set([...placed, ...serving.map(({ node }) => node)].filter((node) => connections.has(node))),
    route,
    url: sources.url,
    idleNodeMs: sources.idleNodeMs,
    countsWrittenAt: sources.countsWritten.get(uid) ?? 0,
    memory: room ? sources.memories.look(uid, sightOf(room, { serving, route, now })) : nothingRemembered,
    now,
  };
}

/** What is to be remembered of a room, as its nodes tell at this moment. */
export function sightOf(room: Room, { serving, route, now }: Pick<RoomSnapshot, 'serving' | 'route' | 'now'>): Sight {
  const own = serving.filter(({ status }) => status.room?.uid === room.metadata.uid);
  const counted = madeByJoin(room) && own.length > 0;
  const participants = new Map(own.map(({ node, status }) => [node, status.participants]));
  const nodes = servingNodes(placementOf(room)?.nodes ?? []);
  const confirmed = new Set(route?.nodes.map(({ node }) => node));
  // One that has not confirmed anything yet has nobody either; of one that did and is not heard, nothing is known.
  const isIdle = ({ node }: { node: string }) => (participants.get(node) ?? (confirmed.has(node) ? 1 : 0)) === 0;
  const sights = sightsOf(room, serving);
  const alone = nodes.length < 2;
  return {
    now,
    nodes,
    participants: counted ? own.reduce((sum, { status }) => sum + status.participants, 0) : undefined,
    idle: alone ? [] : nodes.filter(isIdle).map(({ node }) => node),
    broken: sights.filter((sight) => !works(sight)).map(pairKey),
    torn:
      !alone &&
      isTorn(room.spec.topology ?? 'Auto', membersOf(room, { serving }, nodes), healthOf(sights, new Map(), now)),
  };
}
