import type { Route } from '#proto/weir/fleet/v1/fleet.ts';
import type { PlacedNode } from '#core/model.ts';
import { nearestNodes } from '#core/placement/mod.ts';
import type { Clock } from '#platform/clock.ts';
import { codeOf, WeirError } from '#platform/errors.ts';
import { nodesFromWire } from '#platform/wire.ts';
import type { RoomRequests } from '#sfu-node/coordination/ensure.ts';
import type { RelayedSession } from '#sfu-node/coordination/relay-holder.ts';
import type { Rooms } from '#sfu-node/media/rooms.ts';
import { isFull } from './capacity.ts';
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
  /** Its region. */
  region: string;
  rooms: Pick<Rooms, 'find' | 'load' | 'nodeOf'>;
  /** Streams that this node carries; a room gets another node for whoever comes then. Absent: no limit. */
  capacity?: { streams: number };
  routes: {
    get(roomName: string): Route | undefined;
    waitFor(
      roomName: string,
      predicate: (route: Route | undefined) => boolean,
      timeoutMs: number,
      signal?: AbortSignal,
    ): Promise<Route | undefined>;
  };
  requests: Pick<RoomRequests, 'ensure' | 'extend'>;
  relay: { open(servingNode: string, route: Route, intent: JoinIntent): Promise<RelayedSession> };
  clock: Clock;
}

/** These pass by themselves when a room is placed, a node dies or NATS and the operator come back. */
const passing = new Set(['NodeUnreachable', 'RoomNotServed', 'NodeDraining', 'NatsUnavailable', 'OperatorUnavailable']);

/**
 * Finds the node that serves the client's room: this one, another over the relay, or the one that the operator picks.
 * A room that has no node in the client's region, or whose nodes there are full, gets one if it can; the nearest that
 * there is takes the client otherwise. While the room is on its way to a node, the join waits, so that a client that comes
 * back during a failover just gets in.
 * @throws WeirError RoomNotFound, JoinAborted, NodeFull, NoCapacity, or the last reason for which no node would take the client
 */
export async function resolveJoin(intent: JoinIntent, deps: JoinDeps, signal: AbortSignal): Promise<JoinTarget> {
  const roomName = intent.claims.room;
  const { region } = intent;
  const deadline = deps.clock.now() + JOIN_PATIENCE_MS;
  const full = new Set<string>();
  let answered: Route | undefined;
  for (;;) {
    if (signal.aborted) throw new WeirError('JoinAborted', 'the client went away');
    const route = newer(deps.routes.get(roomName), answered);
    const nodes = nodesOf(deps, roomName, route);
    try {
      if (nodes.length === 0 && !route) {
        const create = intent.claims.mayCreateRoom;
        answered = await deps.requests.ensure(roomName, { create, region, full: [] });
        continue;
      }
      if (!intent.reconnect && !hasNodeFor(region, nodes, full)) {
        const extended = await deps.requests.extend(roomName, { region, full: [...full] });
        if (extended && isNews(route, extended)) {
          answered = extended;
          continue;
        }
      }
      const target = await openNearest(intent, route, nodes, full, deps);
      if (target.kind !== 'relayed' || !signal.aborted) return target;
      target.session.close(1001, 'the client went away');
    } catch (error) {
      if (error instanceof FullNode) {
        full.add(error.node);
        continue;
      }
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

/** A node that has no capacity left for the client. */
class FullNode extends Error {
  readonly node: string;

  constructor(node: string) {
    super(`node ${node} is full`);
    this.node = node;
  }
}

/** The nodes of the room, with this one if it serves the room and the routing table does not know better. */
function nodesOf(deps: JoinDeps, roomName: string, route: Route | undefined): PlacedNode[] {
  const nodes = nodesFromWire(route?.nodes ?? []);
  const served = deps.rooms.find(roomName);
  const isNewer = served !== undefined && (route?.epoch ?? 0) <= served.epoch;
  if (!isNewer || nodes.some(({ node }) => node === deps.node)) return nodes;
  return [...nodes, { node: deps.node, region: deps.region, role: 'Edge' }];
}

function hasNodeFor(region: string, nodes: readonly PlacedNode[], full: ReadonlySet<string>): boolean {
  return nearestNodes(nodes, region).some((each) => each.region === region && !full.has(each.node));
}

/** Opens a session on the node that is nearest to the client and not full. */
async function openNearest(
  intent: JoinIntent,
  route: Route | undefined,
  nodes: readonly PlacedNode[],
  full: ReadonlySet<string>,
  deps: JoinDeps,
): Promise<JoinTarget> {
  const near = nearestNodes(nodes, intent.region, deps.node);
  // A session is resumed where it is, wherever a new one would go.
  const own = intent.reconnect ? deps.rooms.nodeOf(intent.claims.room, intent.participantSid) : undefined;
  const serving = (near.find(({ node }) => node === own) ?? near.find(({ node }) => !full.has(node)))?.node;
  if (serving === undefined) {
    if (near.length === 0) throw new WeirError('RoomNotServed', 'the room is on no node now; try again');
    throw new WeirError(
      'NodeFull',
      `the nodes of the room carry all the streams that they can: ${[...full].join(', ')}`,
    );
  }
  if (serving === deps.node) return hereOrFull(intent, route, deps);
  // Only this node can be served without a route, and it was ruled out.
  if (!route) throw new WeirError('RoomNotServed', 'the room is on no node now; try again');
  const session = await deps.relay.open(serving, route, intent).catch((error: unknown) => {
    throw codeOf(error) === 'NodeFull' ? new FullNode(serving) : error;
  });
  return { kind: 'relayed', session };
}

function hereOrFull(intent: JoinIntent, route: Route | undefined, deps: JoinDeps): JoinTarget {
  if (!deps.rooms.find(intent.claims.room)) {
    const words = `the room is placed on this node at epoch ${route?.epoch ?? 0} and not served yet; try again`;
    throw new WeirError('RoomNotServed', words);
  }
  if (!intent.reconnect && isFull(deps.rooms, deps.capacity)) throw new FullNode(deps.node);
  return { kind: 'local' };
}

/** The routing table and the operator's answer to us: whichever is further. */
function newer(table: Route | undefined, answer: Route | undefined): Route | undefined {
  if (!table || !answer) return table ?? answer;
  return answer.room?.uid === table.room?.uid && answer.epoch < table.epoch ? table : answer;
}

function isNews(tried: Route | undefined, next: Route | undefined): boolean {
  return next !== undefined && (next.room?.uid !== tried?.room?.uid || next.epoch > (tried?.epoch ?? 0));
}
