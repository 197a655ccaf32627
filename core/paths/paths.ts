/** A link as paths see it. Links work both ways. */
export interface PathLink {
  readonly from: string;
  readonly to: string;
  /** Round trip time, milliseconds. */
  readonly rttMs: number;
  /** What it can carry besides what it carries, megabits a second. */
  readonly freeMbps: number;
  /** Share (0..1) of packets that arrive. */
  readonly reliability: number;
  /** Nothing comes over it: used only where there is no other way. */
  readonly down?: boolean;
}

/** One way from a node to another. */
export interface Path {
  /** Nodes from the first to the last, both included. */
  readonly nodes: readonly string[];
  /** Sum of the costs of its links. */
  readonly cost: number;
}

/** The way of one source's streams: each node they reach, and the neighbour it takes them from. The source is not in it. */
export type Tree = ReadonlyMap<string, string>;

/** Weights of a link's cost; each part is in [0, 1], so a link costs at most 1. */
export const weights = { latency: 0.5, bandwidth: 0.3, unreliability: 0.2 } as const;

/** A tree is left for another only when that costs less than this share of its own for some node. */
export const switchBelow = 0.8;

/** One-way latency that counts as worst, milliseconds: beyond it people talk over one another (ITU-T G.114). */
const worstLatencyMs = 400;
/** Free bandwidth that counts as worst, megabits a second: less does not carry one video. */
const worstMbps = 1;
/** No link is free: of two paths alike the one with fewer hops is better. */
const hopCost = 0.001;
/** A link that is down costs more than any way around it. */
const downCost = 1000;

/**
 * Cost of a link: 0.5 latency + 0.3 inverse bandwidth + 0.2 (1 - reliability), on normalised figures, so in (0, 1];
 * 1000 when it is down.
 */
export function linkCost({ rttMs, freeMbps, reliability, down = false }: PathLink): number {
  if (down) return downCost;
  const latency = Math.min(1, rttMs / 2 / worstLatencyMs);
  const bandwidth = Math.min(1, worstMbps / Math.max(worstMbps, freeMbps));
  const unreliability = 1 - Math.min(1, Math.max(0, reliability));
  const cost = weights.latency * latency + weights.bandwidth * bandwidth + weights.unreliability * unreliability;
  return Math.max(hopCost, cost);
}

/**
 * The cheapest path from a node to every node that it reaches (Dijkstra). Together they are a tree: a stream that follows
 * them crosses a link at most once. Of paths of one cost the one whose last hop is first by name is taken, so that the
 * order of input changes nothing.
 */
export function cheapestPaths(links: readonly PathLink[], from: string): Map<string, Path> {
  const neighbours = adjacency(links);
  const done = new Map<string, Path>();
  const open = new Map<string, Path>([[from, { nodes: [from], cost: 0 }]]);
  while (open.size > 0) {
    const [node, path] = [...open].reduce((best, next) => (comesFirst(next, best) ? next : best));
    open.delete(node);
    done.set(node, path);
    for (const [next, cost] of neighbours.get(node) ?? []) {
      if (done.has(next)) continue;
      const candidate: Path = { nodes: [...path.nodes, next], cost: path.cost + cost };
      const known = open.get(next);
      if (!known || comesFirst([next, candidate], [next, known])) open.set(next, candidate);
    }
  }
  return done;
}

/**
 * The tree by which the streams of one node reach others: the one in use, whole, unless a link of it is gone, it does not
 * reach one of `nodes`, or the cheapest one costs less than `below` of it for some node. Trees would flap with every
 * measurement otherwise; and as one place decides on whole trees, there are never loops.
 */
export function chooseTree(
  links: readonly PathLink[],
  source: string,
  nodes: readonly string[],
  current?: Tree,
  below: number = switchBelow,
): Tree {
  const best = cheapestPaths(links, source);
  const reached = nodes.filter((node) => node !== source && best.has(node));
  const costs = current && treeCosts(links, source, current);
  const stays = reached.every((node) => {
    const cost = costs?.get(node);
    return cost !== undefined && best.get(node)!.cost >= below * cost;
  });
  return stays && current?.size === reached.length ? current : treeOf(best, reached);
}

/** The tree in which every hop costs the same: how streams go while nothing else is said. */
export function defaultTree(links: readonly Pick<PathLink, 'from' | 'to'>[], source: string): Tree {
  const alike = links.map(({ from, to }) => ({ from, to, rttMs: 0, freeMbps: Infinity, reliability: 1 }));
  const paths = cheapestPaths(alike, source);
  return treeOf(
    paths,
    [...paths.keys()].filter((node) => node !== source),
  );
}

/** Parents of `nodes` and of all nodes on the way to them, in order of name. */
function treeOf(paths: ReadonlyMap<string, Path>, nodes: readonly string[]): Tree {
  const parents = new Map<string, string>();
  for (const node of nodes) {
    const way = paths.get(node)?.nodes ?? [];
    for (const [index, step] of way.entries()) if (index > 0) parents.set(step, way[index - 1]!);
  }
  return new Map([...parents].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** What the way to each node of a tree costs today; nodes whose way is broken or goes in circles are left out. */
function treeCosts(links: readonly PathLink[], source: string, tree: Tree): Map<string, number> {
  const neighbours = adjacency(links);
  const costs = new Map<string, number>();
  for (const node of tree.keys()) {
    let cost = 0;
    let at = node;
    for (let hops = 0; at !== source && hops <= tree.size; hops += 1) {
      const parent = tree.get(at);
      cost += (parent !== undefined ? neighbours.get(parent)?.get(at) : undefined) ?? NaN;
      at = parent ?? source;
    }
    if (at === source && !Number.isNaN(cost)) costs.set(node, cost);
  }
  return costs;
}

/** Neighbours of each node with the cost of the cheapest link to them. */
function adjacency(links: readonly PathLink[]): Map<string, Map<string, number>> {
  const neighbours = new Map<string, Map<string, number>>();
  const add = (a: string, b: string, cost: number) => {
    const row = neighbours.get(a) ?? new Map<string, number>();
    neighbours.set(a, row.set(b, Math.min(cost, row.get(b) ?? Infinity)));
  };
  for (const link of links) {
    if (link.from === link.to) continue;
    const cost = linkCost(link);
    add(link.from, link.to, cost);
    add(link.to, link.from, cost);
  }
  return neighbours;
}

function comesFirst([nodeA, a]: [string, Path], [nodeB, b]: [string, Path]): boolean {
  if (a.cost !== b.cost) return a.cost < b.cost;
  if (nodeA !== nodeB) return nodeA < nodeB;
  return (a.nodes.at(-2) ?? '') < (b.nodes.at(-2) ?? '');
}
