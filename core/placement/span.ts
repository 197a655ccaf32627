import type { NodeView, PlacedNode, RoomView } from '../model.ts';
import { bestNode, place, refuse, servingNodes, type Chosen, type Refusal } from './choose.ts';
import { violationOf } from './feasibility.ts';
import type { FleetIndex } from './fleet-index.ts';

/** A room has at most so many nodes. */
export const maxNodes = 64;

/** What a client that is about to join would need: a node of its region that is not full. */
export interface Demand {
  /** Empty when it is not known. */
  readonly region: string;
  /** Nodes of the room that refused the client, as they are full. */
  readonly full: readonly string[];
}

export interface SpanRequest {
  readonly room: RoomView;
  /** Streams to reserve on each further node. */
  readonly streamsEach: number;
  readonly demands: readonly Demand[];
  /** Placed nodes on which nobody was for long enough. */
  readonly idle: ReadonlySet<string>;
  /** One node and no more, whatever is demanded. */
  readonly single: boolean;
}

interface News {
  readonly reason: 'Moved' | 'Dropped' | 'Extended' | 'Shrunk';
  readonly message: string;
}

interface Draft {
  readonly nodes: readonly PlacedNode[];
  readonly news: readonly News[];
}

/**
 * Chooses the nodes that serve a room; nothing moves without need.
 *
 * New room: one node, as {@link place} chooses.
 * Moved: a node that cannot serve it any more is replaced by another of its region, or, were it the last, of any.
 * Dropped: such a node, when no other of its region fits and the room has more.
 * Shrunk: nodes on which nobody was for long leave; one always stays.
 * Extended: a client's region gets a node, and a room whose nodes are full gets another.
 * Refusal: no node is left and none fits.
 */
export function span(request: SpanRequest, fleet: FleetIndex, random: () => number): Chosen | Refusal {
  const placed = servingNodes(request.room.placement?.nodes ?? []);
  const kept = replaceLost(request, placed, fleet, random);
  if (kept.nodes.length === 0) return placeAnew(request.room, placed, fleet, random);
  const draft = extend(request, shrink(request, kept), fleet, random);
  const [first] = draft.news.toSorted((a, b) => importance.indexOf(a.reason) - importance.indexOf(b.reason));
  const names = draft.nodes.map(({ node }) => node).join(', ');
  return {
    nodes: draft.nodes,
    reason: first?.reason ?? 'Placed',
    message: draft.news.map(({ message }) => message).join(' ') || `Served by ${names}.`,
  };
}

const importance: readonly News['reason'][] = ['Moved', 'Dropped', 'Extended', 'Shrunk'];

/** What a demand leads to. met: nothing to do. extend: the room can get a node for it. asIs: it cannot, and goes to a node that there is. */
export type DemandAnswer =
  { readonly kind: 'met' | 'extend' | 'asIs' } | { readonly kind: 'full'; readonly refusal: Refusal };

/** What becomes of a demand on a room that is placed. `full`: all its nodes are, and no other fits. */
function answerTo(demand: Demand, request: SpanRequest, fleet: FleetIndex, random: () => number): DemandAnswer {
  const placed = servingNodes(request.room.placement?.nodes ?? []);
  if (isMet(demand, placed)) return { kind: 'met' };
  if (nodeFor(demand, request, placed, fleet, random)) return { kind: 'extend' };
  const avoid = new Set(demand.full);
  if (placed.some(({ node }) => !avoid.has(node))) return { kind: 'asIs' };
  return { kind: 'full', refusal: refuse({ ...more(request), avoid }, fleet) };
}

/** A node that can pass a room's streams on, near to its nodes: in whatever region, as it serves nobody of the room. */
function findRelay(
  room: RoomView,
  nodes: readonly PlacedNode[],
  fleet: FleetIndex,
  random: () => number,
): PlacedNode | undefined {
  const avoid = new Set(nodes.map(({ node }) => node));
  const preferredRegions = [...new Set(nodes.map(({ region }) => region))];
  const found = bestNode({ ...room, regions: [], preferredRegions, avoid }, fleet, random);
  return found && { node: found.name, region: found.region, role: 'Relay' };
}

/** Whether a relay of a room may stay. */
function mayRelay(node: string, room: RoomView, fleet: FleetIndex): boolean {
  const view = fleet.get(node);
  return view !== undefined && !violationOf(view, { ...room, regions: [] });
}

function replaceLost(
  { room }: SpanRequest,
  placed: readonly PlacedNode[],
  fleet: FleetIndex,
  random: () => number,
): Draft {
  const violations = new Map(placed.map(({ node }) => [node, whyNot(node, room, fleet)]));
  const avoid = new Set(placed.map(({ node }) => node));
  const nodes: PlacedNode[] = [];
  const news: News[] = [];
  for (const each of placed) {
    const why = violations.get(each.node);
    if (why === undefined) {
      nodes.push(each);
      continue;
    }
    const other = allows(room, each.region)
      ? bestNode({ ...inRegion(room, each.region), avoid }, fleet, random)
      : undefined;
    if (other) {
      avoid.add(other.name);
      nodes.push(edge(other));
      news.push({
        reason: 'Moved',
        message: `Moved from ${each.node}, which is ${why}, to ${other.name} in ${other.region}.`,
      });
    } else
      news.push({
        reason: 'Dropped',
        message: `${each.node}, which is ${why}, left; no other node of ${each.region} fits.`,
      });
  }
  return { nodes, news };
}

/** None of its nodes can stay, and none of their regions has another. */
function placeAnew(
  room: RoomView,
  placed: readonly PlacedNode[],
  fleet: FleetIndex,
  random: () => number,
): Chosen | Refusal {
  const placement = room.placement && placed.length > 0 ? { ...room.placement, nodes: placed } : undefined;
  const anew = place({ ...room, placement }, fleet, random);
  const alive = placed.filter(({ node }) => fleet.get(node)?.ready);
  if (!('refused' in anew) || alive.length === 0 || alive.length === placed.length) return anew;
  // Less than asked for, and better than nothing: nodes that drain, say, go on serving.
  const left = placed.filter((node) => !alive.includes(node)).map(({ node }) => node);
  return { nodes: alive, reason: 'Dropped', message: `${left.join(', ')} left; no other node fits. ${anew.message}` };
}

function shrink({ idle, single }: SpanRequest, { nodes, news }: Draft): Draft {
  if (nodes.length < 2) return { nodes, news };
  const used = nodes.filter(({ node }) => !idle.has(node));
  const stay = used.length > 0 ? used : nodes.slice(0, 1);
  const kept = single ? stay.slice(0, 1) : stay;
  if (kept.length === nodes.length) return { nodes, news };
  const left = nodes.filter((node) => !kept.includes(node)).map(({ node }) => node);
  const why = single ? 'the Room asks for a single node' : 'nobody of the room was there any more';
  return { nodes: kept, news: [...news, { reason: 'Shrunk', message: `Left ${left.join(', ')}: ${why}.` }] };
}

function extend(request: SpanRequest, draft: Draft, fleet: FleetIndex, random: () => number): Draft {
  let { nodes, news } = draft;
  for (const demand of request.demands) {
    const found = nodeFor(demand, request, nodes, fleet, random);
    if (!found) continue;
    const why =
      demand.full.length > 0
        ? `${demand.full.join(', ')} had no room for a client`
        : `a client of ${demand.region} came`;
    nodes = [...nodes, edge(found)];
    news = [...news, { reason: 'Extended', message: `Extended to ${found.name} in ${found.region}: ${why}.` }];
  }
  return { nodes, news };
}

/** Whether one of the nodes suits a client. */
export function isMet({ region, full }: Demand, nodes: readonly PlacedNode[]): boolean {
  return nodes.some((each) => (region === '' || each.region === region) && !full.includes(each.node));
}

/** The node by which a demand is met: one of the client's region; where all nodes are full, any. */
function nodeFor(
  demand: Demand,
  request: SpanRequest,
  nodes: readonly PlacedNode[],
  fleet: FleetIndex,
  random: () => number,
): NodeView | undefined {
  const { region, full } = demand;
  if (request.single || nodes.length >= maxNodes || isMet(demand, nodes)) return undefined;
  const room = { ...more(request), avoid: new Set([...full, ...nodes.map(({ node }) => node)]) };
  const near = region !== '' && allows(room, region) ? bestNode(inRegion(room, region), fleet, random) : undefined;
  if (near || nodes.some(({ node }) => !full.includes(node))) return near;
  return bestNode(room, fleet, random);
}

/** The room as one of its further nodes sees it. */
function more({ room, streamsEach }: SpanRequest): RoomView {
  return { ...room, streams: streamsEach };
}

function inRegion(room: RoomView, region: string): RoomView {
  return { ...room, regions: [region], preferredRegions: [region] };
}

function allows({ regions }: RoomView, region: string): boolean {
  return regions.length === 0 || regions.includes(region);
}

function whyNot(node: string, room: RoomView, fleet: FleetIndex): string | undefined {
  const view = fleet.get(node);
  return view ? violationOf(view, room)?.message : 'gone';
}

function edge({ name, region }: NodeView): PlacedNode {
  return { node: name, region, role: 'Edge' };
}

/** What can be asked of a fleet, for a room at a time. */
export interface Choices {
  span(request: SpanRequest): Chosen | Refusal;
  answerTo(demand: Demand, request: SpanRequest): DemandAnswer;
  findRelay(room: RoomView, nodes: readonly PlacedNode[]): PlacedNode | undefined;
  mayRelay(node: string, room: RoomView): boolean;
}

/** The choices that a fleet offers. */
export function choicesOf(fleet: FleetIndex, random: () => number): Choices {
  return {
    span: (request) => span(request, fleet, random),
    answerTo: (demand, request) => answerTo(demand, request, fleet, random),
    findRelay: (room, nodes) => findRelay(room, nodes, fleet, random),
    mayRelay: (node, room) => mayRelay(node, room, fleet),
  };
}
