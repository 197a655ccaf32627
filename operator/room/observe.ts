import type { Room } from '#crds/room.ts';
import type { Clock } from '#platform/clock.ts';
import type { NodeConnections } from '../fleet/connections.ts';
import type { NodeRegistry } from '../fleet/node-registry.ts';
import type { RouteTable } from '../fleet/route-table.ts';
import type { Occupancy } from './occupancy.ts';
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
  occupancy: Occupancy;
  /** When counts of a room were last written, by uid. */
  countsWritten: ReadonlyMap<string, number>;
  url: string | undefined;
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
  const own = serving.filter(({ status }) => status.room?.uid === uid);
  const counted = room && madeByJoin(room) && own.length > 0;
  const occupancy = counted
    ? sources.occupancy.observe(
        uid,
        own.reduce((sum, { status }) => sum + status.participants, 0),
        now,
      )
    : { emptySince: undefined, wasUsed: false };
  return {
    key,
    room,
    nameTakenBy: room && index.takenBy(room),
    serving,
    gone: new Set(placed.filter((node) => registry.isGone(node))),
    unknown: new Set(placed.filter((node) => !registry.get(node) && !registry.isGone(node))),
    callable: new Set([...placed, ...serving.map(({ node }) => node)].filter((node) => connections.has(node))),
    route: room ? routes.get(roomNameOf(room)) : routes.ofObject(key),
    url: sources.url,
    countsWrittenAt: sources.countsWritten.get(uid) ?? 0,
    ...occupancy,
    now,
  };
}
