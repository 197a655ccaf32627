import type { PlacedNode } from '../model.ts';
import { chooseTree, linkCost, switchBelow, type PathLink } from '../paths/mod.ts';
import {
  bridges,
  pairKey,
  pairOf,
  partsOf,
  shape,
  type LinkPair,
  type Member,
  type Topology,
  type WantedTopology,
} from '../topology/mod.ts';
import type { Trees } from './detours.ts';

/** Opening: nothing has come over it yet. Degraded: packets cross, but loss or delay is high. */
export type LinkState = 'Opening' | 'Up' | 'Degraded' | 'Down';

/** A link as its ends see it together. */
export interface LinkHealth {
  readonly state: LinkState;
  /** Round trip time, milliseconds; undefined while it was not measured. */
  readonly rttMs: number | undefined;
  /** Share (0..1) of packets lost. */
  readonly loss: number;
}

/** The nodes of a room, their links, and by which of them streams go. */
export interface Network {
  /** In order of the placement; nodes that only pass streams on come last, as Relay. */
  readonly nodes: readonly PlacedNode[];
  readonly links: readonly LinkPair[];
  /** One tree for each node that serves participants. */
  readonly trees: Trees;
}

export interface NetworkRequest {
  readonly wanted: WantedTopology;
  /** Nodes that serve participants, in order of the placement. */
  readonly members: readonly Member[];
  /** Relays that the room has and may keep. */
  readonly relays: readonly PlacedNode[];
  /** What is declared now, if anything. */
  readonly current: Network | undefined;
  /** What is known of links, by {@link pairKey}. */
  readonly health: ReadonlyMap<string, LinkHealth>;
  /** Links and relays beyond the topology stay, though they may not be needed at this moment. */
  readonly keepSpares: boolean;
  /** Trees may be left for cheaper ones once all links are measured; otherwise only where they go over a link that is down. */
  readonly mayImprove: boolean;
  /** A node of the fleet that can pass streams on besides those that do, if there is one. */
  readonly findRelay: (besides: readonly PlacedNode[]) => PlacedNode | undefined;
}

/** Round trip times of links that were not measured: in a region, and between regions; milliseconds. */
const unmeasuredRttMs = { near: 1, far: 80 } as const;
/** Less delay than this is not worth a detour, milliseconds of round trip time. */
const smallestRttMs = 10;
/** Relays that are tried for one room: when the links of the first do not work either, another comes. */
const maxRelays = 3;
/** Bandwidth that links are taken to have besides what they carry: nodes do not measure it. */
const plentyMbps = 1000;
/** Without leave to improve, a tree must cost a hundred times less: only what avoids a link that is down does. */
const onlyAroundDown = 0.01;

/**
 * Links and trees of a room's nodes.
 *
 * Usual case: the links of the topology, and by each node's tree of least cost.
 * Torn case: links are down so that some nodes cannot be reached: other pairs are linked besides.
 * Relay case: no pair is left to try: a node that serves nobody of the room is linked between.
 */
export function design(request: NetworkRequest): { network: Network; topology: Topology } {
  const { wanted, members } = request;
  const topology = shape(wanted, members);
  const roles = new Map(topology.nodes.map(({ node, role }) => [node, role]));
  const serving = members.map(({ node, region }) => ({ node, region, role: roles.get(node) ?? 'Edge' }));
  if (serving.length < 2) return { network: { nodes: serving, links: [], trees: treeless(serving) }, topology };
  const { relays, links } = withSpares(request, topology, serving);
  const nodes = [...serving, ...relays];
  return { network: { nodes, links, trees: treesFor(request, nodes, links) }, topology };
}

/** Whether the links of the topology that are not down leave nodes apart. */
export function isTorn(
  wanted: WantedTopology,
  members: readonly Member[],
  health: ReadonlyMap<string, LinkHealth>,
): boolean {
  const { links } = shape(wanted, members);
  const names = members.map(({ node }) => node);
  return members.length > 1 && links.length > 0 && partsOf(names, links.filter(worksBy(health))).length > 1;
}

function withSpares(
  { relays, current, health, keepSpares, findRelay }: NetworkRequest,
  topology: Topology,
  serving: readonly PlacedNode[],
): { relays: readonly PlacedNode[]; links: readonly LinkPair[] } {
  const works = worksBy(health);
  const members = serving.map(({ node }) => node);
  const apart = (links: readonly LinkPair[], nodes: readonly PlacedNode[]) =>
    isApart(members, nodes, links.filter(works));
  const torn = apart(topology.links, serving);
  if (!torn && !keepSpares) return { relays: [], links: union(topology.links, []) };

  let kept = relays;
  let nodes = [...serving, ...kept];
  let links = union(topology.links, spares(current, nodes));
  const bridge = () => {
    const names = nodes.map(({ node }) => node);
    const regions = new Map(nodes.map(({ node, region }) => [node, region]));
    const costOf = (pair: LinkPair) => linkCost(pathLink(pair, regions, health));
    links = union(links, bridges(names, links.filter(works), links, costOf));
  };
  if (apart(links, nodes)) bridge();
  if (apart(links, nodes) && kept.length < maxRelays) {
    const relay = findRelay(kept);
    if (relay) {
      kept = [...kept, relay];
      nodes = [...nodes, relay];
      bridge();
    }
  }
  return { relays: kept, links };
}

/** Links that are declared and whose ends are still there. */
function spares(current: Network | undefined, nodes: readonly PlacedNode[]): readonly LinkPair[] {
  const names = new Set(nodes.map(({ node }) => node));
  return current?.links.filter(({ from, to }) => names.has(from) && names.has(to)) ?? [];
}

/** Whether members do not reach one another; relays may help and need not be reached. */
function isApart(members: readonly string[], nodes: readonly PlacedNode[], links: readonly LinkPair[]): boolean {
  const isMember = new Set(members);
  const parts = partsOf(
    nodes.map(({ node }) => node),
    links,
  );
  return parts.filter((part) => part.some((node) => isMember.has(node))).length > 1;
}

function treesFor(
  { current, health, mayImprove }: NetworkRequest,
  nodes: readonly PlacedNode[],
  links: readonly LinkPair[],
): Trees {
  const regions = new Map(nodes.map(({ node, region }) => [node, region]));
  const measured = links.map((pair) => pathLink(pair, regions, health));
  const names = nodes.map(({ node }) => node);
  // A link that was not measured yet would lose to a detour over links that were.
  const known = links.every((pair) => health.get(pairKey(pair))?.rttMs !== undefined);
  const below = mayImprove && known ? switchBelow : onlyAroundDown;
  const sources = nodes.filter(({ role }) => role !== 'Relay');
  return new Map(sources.map(({ node }) => [node, chooseTree(measured, node, names, current?.trees.get(node), below)]));
}

function treeless(nodes: readonly PlacedNode[]): Trees {
  return new Map(nodes.map(({ node }) => [node, new Map<string, string>()]));
}

function pathLink(
  pair: LinkPair,
  regions: ReadonlyMap<string, string>,
  health: ReadonlyMap<string, LinkHealth>,
): PathLink {
  const known = health.get(pairKey(pair));
  const near = regions.get(pair.from) === regions.get(pair.to);
  const rttMs = known?.rttMs ?? (near ? unmeasuredRttMs.near : unmeasuredRttMs.far);
  return {
    ...pair,
    rttMs: Math.max(smallestRttMs, rttMs),
    freeMbps: plentyMbps,
    reliability: 1 - (known?.loss ?? 0),
    down: known?.state === 'Down',
  };
}

function worksBy(health: ReadonlyMap<string, LinkHealth>): (pair: LinkPair) => boolean {
  return (pair) => health.get(pairKey(pair))?.state !== 'Down';
}

function union(a: readonly LinkPair[], b: readonly LinkPair[]): readonly LinkPair[] {
  const all = new Map([...a, ...b].map(({ from, to }) => [pairKey(pairOf(from, to)), pairOf(from, to)]));
  return [...all].sort(([x], [y]) => (x < y ? -1 : 1)).map(([, pair]) => pair);
}
