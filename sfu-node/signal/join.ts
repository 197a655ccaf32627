import type { Route } from '#proto/weir/fleet/v1/fleet.ts';
import { pickServingNode } from '#core/placement/mod.ts';
import type { Clock } from '#platform/clock.ts';
import { codeOf, WeirError } from '#platform/errors.ts';
import { nodesFromWire } from '#platform/wire.ts';
import type { RelayedSession } from '#sfu-node/coordination/relay-holder.ts';
import type { Rooms } from '#sfu-node/media/rooms.ts';
import type { JoinIntent } from './claims.ts';

/** A join waits this long for a room that is being placed or moved, milliseconds: less than the SDKs' 15 s. */
export const JOIN_PATIENCE_MS = 8_000;
/** Pause before the same node or the operator is asked again, milliseconds. */
const RETRY_MS = 250;

/** Where a client's session goes. */
export type JoinTarget =
  | { kind: 'local' }
  | { kind: 'relayed'; session: RelayedSession }
  /** Its node is gone and a resume cannot succeed: the client is sent through a full join, which waits for the new one. */
  | { kind: 'rejoin' };

export interface JoinDeps {
  /** Name of this node. */
  node: string;
  /** Its region: where the client is, as far as is known. */
  region: string;
  rooms: Pick<Rooms, 'find'>;
  routes: {
    get(roomName: string): Route | undefined;
    waitFor(
      roomName: string,
      predicate: (route: Route | undefined) => boolean,
      timeoutMs: number,
      signal?: AbortSignal,
    ): Promise<Route | undefined>;
  };
  requests: { ensure(roomName: string, create: boolean): Promise<Route> };
  relay: { open(servingNode: string, route: Route, intent: JoinIntent): Promise<RelayedSession> };
  clock: Clock;
}

/** These pass by themselves when a room is placed, a node dies or NATS and the operator come back. */
const passing = new Set(['NodeUnreachable', 'RoomNotServed', 'NodeDraining', 'NatsUnavailable', 'OperatorUnavailable']);

/**
 * Finds the node that serves the client's room: this one, another over the relay, or the one that the operator picks.
 * While the room is on its way to a node, it waits, so that a client that comes back during a failover just gets in.
 * @throws WeirError RoomNotFound, JoinAborted, or the last reason for which no node would take the client
 */
export async function resolveJoin(intent: JoinIntent, deps: JoinDeps, signal: AbortSignal): Promise<JoinTarget> {
  const roomName = intent.claims.room;
  const deadline = deps.clock.now() + JOIN_PATIENCE_MS;
  let answered: Route | undefined;
  for (;;) {
    if (signal.aborted) throw new WeirError('JoinAborted', 'the client went away');
    const route = newer(deps.routes.get(roomName), answered);
    try {
      if (servesHere(deps, roomName, route)) return { kind: 'local' };
      if (!route) {
        answered = await deps.requests.ensure(roomName, intent.claims.mayCreateRoom);
        continue;
      }
      const session = await openRelay(intent, route, deps);
      if (!signal.aborted) return { kind: 'relayed', session };
      session.close(1001, 'the client went away');
    } catch (error) {
      if (!passing.has(codeOf(error))) throw error;
      if (intent.reconnect && codeOf(error) === 'NodeUnreachable') return { kind: 'rejoin' };
      const left = deadline - deps.clock.now();
      if (left <= 0) throw error;
      // The operator's answer was for that moment.
      answered = undefined;
      await deps.routes.waitFor(roomName, (next) => isNews(route, next), Math.min(left, RETRY_MS), signal);
    }
  }
}

/** The room is served here, and the routing table does not know better. */
function servesHere(deps: JoinDeps, roomName: string, route: Route | undefined): boolean {
  const served = deps.rooms.find(roomName);
  if (!served) return false;
  const places = route?.nodes.some((placed) => placed.node === deps.node) ?? true;
  return places || (route?.epoch ?? 0) <= served.epoch;
}

async function openRelay(intent: JoinIntent, route: Route, deps: JoinDeps): Promise<RelayedSession> {
  const serving = pickServingNode(nodesFromWire(route.nodes), deps.region)?.node;
  if (serving === undefined) throw new WeirError('RoomNotServed', 'the room is on no node now; try again');
  if (serving === deps.node) {
    const words = `the room is placed on this node at epoch ${route.epoch} and not served yet; try again`;
    throw new WeirError('RoomNotServed', words);
  }
  return deps.relay.open(serving, route, intent);
}

/** The routing table and the operator's answer to us: whichever is further. */
function newer(table: Route | undefined, answer: Route | undefined): Route | undefined {
  if (!table || !answer) return table ?? answer;
  return answer.room?.uid === table.room?.uid && answer.epoch < table.epoch ? table : answer;
}

function isNews(tried: Route | undefined, next: Route | undefined): boolean {
  return next !== undefined && (next.room?.uid !== tried?.room?.uid || next.epoch > (tried?.epoch ?? 0));
}
