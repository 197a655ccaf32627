/** The nodes, links and ways of streams that a room shall have. Pure. */
import type { PlacedNode } from '#core/model.ts';
import { design, type Network } from '#core/network/mod.ts';
import { servingNodes, type Choices, type Chosen, type SpanRequest } from '#core/placement/mod.ts';
import { pairKey, type Member, type Topology } from '#core/topology/mod.ts';
import type { Room } from '#crds/room.ts';
import type { AssignmentStatus } from '#proto/weir/control/v1/control.ts';
import { healthOf, linkPatienceMs, sightsOf } from './links.ts';
import type { RoomMemory } from './memory.ts';
import { furtherStreams, networkOf, placementOf, roomView } from './translate.ts';

/** Links and relays besides the topology's stay for so long after they were needed last, milliseconds. */
export const sparesStayMs = 60_000;
/** Streams are sent another way for its lower cost at most this often a room, milliseconds. */
export const rerouteIntervalMs = 10_000;

/** What of a snapshot is looked at here. */
interface Seen {
  readonly serving: readonly { readonly node: string; readonly status: AssignmentStatus }[];
  readonly memory: RoomMemory;
  readonly idleNodeMs: number;
  readonly now: number;
}

/** What the room asks of the fleet at this moment. */
export function spanRequest(
  room: Room,
  { memory, idleNodeMs, now }: Pick<Seen, 'memory' | 'idleNodeMs' | 'now'>,
): SpanRequest {
  const idle = [...memory.idleSince].filter(([, since]) => now - since >= idleNodeMs);
  return {
    room: roomView(room),
    streamsEach: furtherStreams(room),
    demands: memory.demands,
    idle: new Set(idle.map(([node]) => node)),
    single: room.spec.topology === 'SingleNode',
  };
}

/** Links and ways of streams for the nodes that were chosen, from those that are declared and what is told of them. */
export function networkFor(
  snapshot: Seen,
  room: Room,
  nodes: readonly PlacedNode[],
  fleet: Choices,
): { network: Network; topology: Topology } {
  const { memory, now } = snapshot;
  const view = roomView(room);
  const chosen = new Set(nodes.map(({ node }) => node));
  const relays = (placementOf(room)?.nodes ?? []).filter(
    ({ node, role }) => role === 'Relay' && !chosen.has(node) && fleet.mayRelay(node, view),
  );
  return design({
    wanted: room.spec.topology ?? 'Auto',
    members: membersOf(room, snapshot, nodes),
    relays,
    current: networkOf(room),
    health: healthOf(sightsOf(room, snapshot.serving), memory.brokenSince, now),
    keepSpares: memory.tornAt !== undefined && now - memory.tornAt < sparesStayMs,
    mayImprove: memory.reroutedAt === undefined || now - memory.reroutedAt >= rerouteIntervalMs,
    findRelay: (relays) => fleet.findRelay(view, [...nodes, ...relays]),
  });
}

/** Nodes with what the choice of hubs looks at. */
export function membersOf(room: Room, { serving }: Pick<Seen, 'serving'>, nodes: readonly PlacedNode[]): Member[] {
  const uid = room.metadata.uid;
  const participants = new Map(
    serving.filter(({ status }) => status.room?.uid === uid).map(({ node, status }) => [node, status.participants]),
  );
  return nodes.map(({ node, region, role }) => ({
    node,
    region,
    participants: participants.get(node) ?? 0,
    isHub: role === 'Hub',
  }));
}

/** What is new in a network, in words; undefined when nothing is. */
export function changeBetween(
  before: Network | undefined,
  after: Network,
  choice: Chosen,
  topology: Topology,
): { reason: string; message: string } | undefined {
  const names = (network: Network | undefined) => servingNodes(network?.nodes ?? []).map(({ node }) => node);
  if (names(before).join() !== names(after).join()) return choice;
  const nodes = (network: Network | undefined) => network?.nodes.map(({ node, role }) => `${node} ${role}`).join();
  const links = (network: Network | undefined) => network?.links.map(pairKey).sort().join();
  if (nodes(before) !== nodes(after) || links(before) !== links(after))
    return { reason: 'Relinked', message: linkWords(after, topology) };
  const rerouted = [...after.trees].find(([source, tree]) =>
    [...tree].some(([node, via]) => before?.trees.get(source)?.get(node) !== via),
  );
  if (!rerouted) return undefined;
  const [source, tree] = rerouted;
  const ways = [...tree].map(([node, via]) => `${node} from ${via}`).join(', ');
  return { reason: 'Rerouted', message: `Streams of ${source} go another way: ${ways}.` };
}

function linkWords({ nodes, links }: Network, topology: Topology): string {
  const usual = new Set(topology.links.map(pairKey));
  const spare = links.filter((pair) => !usual.has(pairKey(pair))).map(({ from, to }) => `${from} to ${to}`);
  const relays = nodes.filter(({ role }) => role === 'Relay').map(({ node }) => node);
  const besides = spare.length > 0 ? ` Besides, ${spare.join(' and ')}, as other links are down.` : '';
  const through = relays.length > 0 ? ` ${relays.join(', ')} passes streams on.` : '';
  return `${topology.message}${besides}${through}`;
}

/** Milliseconds until time alone may change what a room of several nodes shall have; undefined when it will not. */
export function nextLookMs({ memory, idleNodeMs, now }: Seen): number | undefined {
  const due = [
    ...[...memory.idleSince.values()].map((since) => since + idleNodeMs),
    ...[...memory.brokenSince.values()].map((since) => since + linkPatienceMs),
    ...(memory.tornAt === undefined ? [] : [memory.tornAt + sparesStayMs]),
    ...(memory.reroutedAt === undefined ? [] : [memory.reroutedAt + rerouteIntervalMs]),
  ];
  const waits = due.map((at) => at - now).filter((wait) => wait > 0);
  return waits.length > 0 ? Math.min(...waits) : undefined;
}
