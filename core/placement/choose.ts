import type { NodeView, PlacedNode, RoomView, Strategy } from '../model.ts';
import { isPlacedOn, violationOf } from './feasibility.ts';
import { standingStep, type FleetIndex, type RegionIndex, type Tier } from './fleet-index.ts';
import { hysteresis, proximity, score, weights } from './score.ts';

/** Nodes of one group looked at before the next group is: more would cost time and gain at most one group's step. */
const looks = 8;

export interface Chosen {
  readonly nodes: readonly PlacedNode[];
  /** CamelCase, for programs. */
  readonly reason: string;
  /** For people. */
  readonly message: string;
}

export interface Refusal {
  readonly refused: true;
  readonly reason: string;
  /** What is missing, counted over the fleet. */
  readonly message: string;
}

/**
 * Chooses the node of a room.
 *
 * Happy case 1: the room is where it is, and nothing is clearly better: it stays.
 * Happy case 2: a new room: the best of two nodes drawn from those that stand best, nearest region first.
 * Rebalanced: another node gains more than 20 % over where the room is.
 * Moved: the node that the room is on cannot serve it any more: as for a new room.
 * Refusal: no node fits: what is missing, counted.
 */
export function place(room: RoomView, fleet: FleetIndex, random: () => number): Chosen | Refusal {
  const best = bestNode(room, fleet, random);
  return stay(room, fleet, best) ?? choose(room, fleet, best) ?? refuse(room, fleet);
}

function stay(room: RoomView, fleet: FleetIndex, best: NodeView | undefined): Chosen | undefined {
  const placed = room.placement?.nodes[0];
  const current = placed && fleet.get(placed.node);
  if (!current || violationOf(current, room)) return undefined;
  const gain =
    best && best.name !== current.name
      ? scoreIn(fleet, best, room) / Math.max(Number.EPSILON, scoreIn(fleet, current, room))
      : 1;
  if (gain > 1 + hysteresis) return undefined;
  return { nodes: [edge(current)], reason: 'Placed', message: `Served by ${current.name} in ${current.region}.` };
}

function choose(room: RoomView, fleet: FleetIndex, best: NodeView | undefined): Chosen | undefined {
  if (!best) return undefined;
  const nodes = [edge(best)];
  const from = room.placement?.nodes[0];
  if (!from) return { nodes, reason: 'Placed', message: `Placed on ${best.name} in ${best.region}.` };
  const current = fleet.get(from.node);
  const why = current && violationOf(current, room)?.message;
  return current && !why
    ? {
        nodes,
        reason: 'Rebalanced',
        message: `${best.name} in ${best.region} serves it clearly better than ${from.node}.`,
      }
    : {
        nodes,
        reason: 'Moved',
        message: `Moved from ${from.node}, which is ${why ?? 'gone'}, to ${best.name} in ${best.region}.`,
      };
}

function edge({ name, region }: NodeView): PlacedNode {
  return { node: name, region, role: 'Edge' };
}

/** The best node that fits, wherever the room is now; undefined when none does. */
export function bestNode(room: RoomView, fleet: FleetIndex, random: () => number): NodeView | undefined {
  return Object.keys(room.nodeSelector).length === 0 ? bestIndexed(room, fleet, random) : bestScanned(room, fleet);
}

/** The best of the regions' best. */
function bestIndexed(room: RoomView, fleet: FleetIndex, random: () => number): NodeView | undefined {
  let best: NodeView | undefined;
  let bestScore = -1;
  for (const { region, tiers } of candidateRegions(room, fleet)) {
    const near = weights.proximity * proximity(region, room.preferredRegions);
    for (const tier of tiers) {
      // Whether one fits has to be known where it decides about the next tier.
      const decides = tier === tiers[0] && tiers[1].top >= 0;
      const found = bestOfTier(tier, decides ? -1 : bestScore - near, room, fleet, random);
      if (!found) continue;
      const value = scoreIn(fleet, found, room);
      if (!best || value > bestScore || (value === bestScore && comesFirst(found, best, fleet.strategy))) {
        best = found;
        bestScore = value;
      }
      break;
    }
  }
  return best;
}

/** The walk down the groups of a tier; undefined when none fits, or none that does can stand above what is to be reached. */
function bestOfTier(
  tier: Tier,
  toReach: number,
  room: RoomView,
  { strategy }: FleetIndex,
  random: () => number,
): NodeView | undefined {
  for (let group = tier.top; group >= 0; group -= 1) {
    if ((group + 1) * standingStep <= toReach) return undefined;
    const found = bestOfTwo(tier.byStanding[group] ?? [], room, strategy, random);
    if (found) return found;
  }
  return undefined;
}

function candidateRegions(room: RoomView, fleet: FleetIndex): Iterable<RegionIndex> {
  if (room.regions.length === 0) return fleet.regions();
  return room.regions.flatMap((name) => fleet.region(name) ?? []);
}

/** Power of two choices: two nodes drawn among equals, the one that {@link comesFirst} wins. */
function bestOfTwo(
  equals: readonly NodeView[],
  room: RoomView,
  strategy: Strategy,
  random: () => number,
): NodeView | undefined {
  if (equals.length === 0) return undefined;
  const start = Math.floor(random() * equals.length);
  let first: NodeView | undefined;
  // The draw walks on past nodes on which the room does not fit; in a group of many, only so far.
  for (let look = 0; look < equals.length; look += 1) {
    const node = equals[(start + look) % equals.length]!;
    if (violationOf(node, room)) continue;
    if (!first) {
      first = node;
      if (equals.length > 2) {
        const other = equals[Math.floor(random() * equals.length)]!;
        return !violationOf(other, room) && comesFirst(other, first, strategy) ? other : first;
      }
      continue;
    }
    if (comesFirst(node, first, strategy)) first = node;
    if (look >= looks) break;
  }
  return first;
}

/** Labels are not indexed: a selector costs a look at every node. */
function bestScanned(room: RoomView, fleet: FleetIndex): NodeView | undefined {
  const better = (node: NodeView, than: NodeView | undefined) => {
    const gain = than ? scoreIn(fleet, node, room) - scoreIn(fleet, than, room) : 1;
    return !than || gain > 0 || (gain === 0 && comesFirst(node, than, fleet.strategy));
  };
  const bestIn = new Map<string, NodeView>();
  for (const node of fleet.nodes()) {
    if (node.unschedulable && isPlacedOn(node, room)) continue;
    if (violationOf(node, room)) continue;
    const known = bestIn.get(node.region);
    const [stays, knownStays] = [!node.outgoing, !known?.outgoing];
    if (!known || (stays === knownStays ? better(node, known) : stays)) bestIn.set(node.region, node);
  }
  let best: NodeView | undefined;
  for (const node of bestIn.values()) if (better(node, best)) best = node;
  return best;
}

function scoreIn({ strategy }: FleetIndex, node: NodeView, room: RoomView): number {
  return score(node, room.preferredRegions, strategy);
}

/** Fewer streams first (more when rooms are packed), then name: so that the order of input does not matter. */
function comesFirst(a: NodeView, b: NodeView, strategy: Strategy): boolean {
  const [x, y] = strategy === 'Spread' ? [a.load.streams, b.load.streams] : [b.load.streams, a.load.streams];
  return x < y || (x === y && a.name < b.name);
}

/** Why no node fits, counted over the fleet. */
export function refuse(room: RoomView, fleet: FleetIndex): Refusal {
  if (fleet.size === 0) {
    return {
      refused: true,
      reason: 'NoNodes',
      message: 'No SfuNode has registered. Start sfu-nodes, or read their logs for why NATS refuses them.',
    };
  }
  const counts = new Map<string, { count: number; reason: string }>();
  for (const node of fleet.nodes()) {
    const violation = violationOf(node, room);
    if (!violation) continue;
    const entry = counts.get(violation.message) ?? { count: 0, reason: violation.reason };
    entry.count += 1;
    counts.set(violation.message, entry);
  }
  const sorted = [...counts].sort(([a, x], [b, y]) => y.count - x.count || a.localeCompare(b));
  const parts = sorted.map(([message, { count }]) => `${count} ${count === 1 ? 'is' : 'are'} ${message}`);
  const reason = sorted.length === 1 ? sorted[0]![1].reason : 'NoNodeFits';
  return { refused: true, reason, message: `0 of ${fleet.size} nodes fit: ${parts.join('; ')}.` };
}

/** Nodes of a placement that serve participants: neither Standby nor Relay. */
export function servingNodes<T extends PlacedNode>(nodes: readonly T[]): T[] {
  return nodes.filter(({ role }) => role !== 'Standby' && role !== 'Relay');
}

/**
 * The nodes of a room's placement that serve a client, nearest first: those of its region, then the others, each in the
 * order of the placement; among those of one region `here`, the node that the client reached, comes first.
 */
export function nearestNodes(nodes: readonly PlacedNode[], clientRegion: string, here = ''): PlacedNode[] {
  const rank = ({ node, region }: PlacedNode) => (region === clientRegion ? 0 : 2) + (node === here ? 0 : 1);
  return servingNodes(nodes).toSorted((a, b) => rank(a) - rank(b));
}
