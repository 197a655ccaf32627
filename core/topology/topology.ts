import type { PlacedNode } from '../model.ts';

/** What a Room asks for in spec.topology. */
export type WantedTopology = 'Auto' | 'SingleNode' | 'Mesh' | 'HubAndSpoke';

/** What its nodes form. Hybrid: a hub a region, and the hubs meshed. */
export type TopologyKind = 'SingleNode' | 'Mesh' | 'HubAndSpoke' | 'Hybrid';

/** A node that takes part in a room. */
export interface Member {
  readonly node: string;
  readonly region: string;
  /** Participants of the room on it; the busiest node of a region makes the best hub. */
  readonly participants: number;
  /** It is a hub now: kept while it can be, as another hub moves every stream of the region. */
  readonly isHub?: boolean;
}

/** A cascade link, with its ends in order of their names. */
export interface LinkPair {
  readonly from: string;
  readonly to: string;
}

export interface Topology {
  readonly kind: TopologyKind;
  readonly nodes: readonly PlacedNode[];
  readonly links: readonly LinkPair[];
  /** CamelCase, for programs. */
  readonly reason: string;
  /** For people. */
  readonly message: string;
}

/** Up to so many nodes, every one links to every other: a stream then takes one hop to anywhere. */
export const meshLimit = 3;

/**
 * The shape of a room's nodes.
 *
 * One node: no links.
 * Mesh case: up to three nodes, or a Room that asks for it: all linked to all.
 * Hub case: a Room that asks for HubAndSpoke: one hub, everybody else linked to it.
 * Hybrid case: more than three nodes: a hub a region with its nodes linked to it, and the hubs meshed.
 */
export function shape(wanted: WantedTopology, members: readonly Member[]): Topology {
  const sorted = [...members].sort((a, b) => compare(a.node, b.node));
  if (sorted.length <= 1 || wanted === 'SingleNode') return single(sorted);
  if (wanted === 'Mesh') return mesh(sorted, 'AskedFor', 'The Room asks for a mesh.');
  if (wanted === 'HubAndSpoke') return hubAndSpoke(sorted);
  if (sorted.length <= meshLimit) return mesh(sorted, 'FewNodes', `${sorted.length} nodes: each links to each.`);
  return hybrid(sorted);
}

function single(members: readonly Member[]): Topology {
  const nodes = members.slice(0, 1).map((member) => placed(member, 'Edge'));
  return { kind: 'SingleNode', nodes, links: [], reason: 'OneNode', message: 'One node serves the room.' };
}

function mesh(members: readonly Member[], reason: string, message: string): Topology {
  const nodes = members.map((member) => placed(member, 'Edge'));
  return { kind: 'Mesh', nodes, links: allPairs(members), reason, message };
}

function hubAndSpoke(members: readonly Member[]): Topology {
  const hub = hubOf(members);
  return {
    kind: 'HubAndSpoke',
    nodes: members.map((member) => placed(member, member === hub ? 'Hub' : 'Edge')),
    links: spokes(hub, members),
    reason: 'AskedFor',
    message: `The Room asks for one hub: ${hub.node}.`,
  };
}

function hybrid(members: readonly Member[]): Topology {
  const regions = new Map<string, Member[]>();
  for (const member of members) regions.set(member.region, [...(regions.get(member.region) ?? []), member]);
  const groups = [...regions.values()].map((group) => ({ group, hub: hubOf(group) }));
  const hubs = groups.map(({ hub }) => hub).sort((a, b) => compare(a.node, b.node));
  const isHub = new Set(hubs);
  const names = hubs.map(({ node }) => node).join(', ');
  return {
    kind: 'Hybrid',
    nodes: members.map((member) => placed(member, isHub.has(member) ? 'Hub' : 'Edge')),
    links: [...groups.flatMap(({ group, hub }) => spokes(hub, group)), ...allPairs(hubs)].sort(byEnds),
    reason: 'ManyNodes',
    message: `${members.length} nodes in ${regions.size} regions: linked over ${names}.`,
  };
}

/** The hub that is, if there is one, else the node with most participants, else the first by name. */
function hubOf(members: readonly Member[]): Member {
  return [...members].sort(
    (a, b) =>
      Number(b.isHub ?? false) - Number(a.isHub ?? false) || b.participants - a.participants || compare(a.node, b.node),
  )[0]!;
}

function spokes(hub: Member, members: readonly Member[]): LinkPair[] {
  return members.filter((member) => member !== hub).map((member) => pair(hub.node, member.node));
}

function allPairs(members: readonly Member[]): LinkPair[] {
  return members.flatMap((a, index) => members.slice(index + 1).map((b) => pair(a.node, b.node)));
}

function placed({ node, region }: Member, role: PlacedNode['role']): PlacedNode {
  return { node, region, role };
}

function pair(a: string, b: string): LinkPair {
  return compare(a, b) < 0 ? { from: a, to: b } : { from: b, to: a };
}

function byEnds(a: LinkPair, b: LinkPair): number {
  return compare(a.from, b.from) || compare(a.to, b.to);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
