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
}

/** One way from a node to another. */
export interface Path {
  /** Nodes from the first to the last, both included. */
  readonly nodes: readonly string[];
  /** Sum of the costs of its links. */
  readonly cost: number;
}

/** Weights of a link's cost; each part is in [0, 1], so a link costs at most 1. */
export const weights = { latency: 0.5, bandwidth: 0.3, unreliability: 0.2 } as const;

/** A path is left for another only when that costs less than this share of its own. */
export const switchBelow = 0.8;

/** One-way latency that counts as worst, milliseconds: beyond it people talk over one another (ITU-T G.114). */
const worstLatencyMs = 400;
/** Free bandwidth that counts as worst, megabits a second: less does not carry one video. */
const worstMbps = 1;
/** No link is free: of two paths alike the one with fewer hops is better. */
const hopCost = 0.001;

/** Cost of a link, in (0, 1]: 0.5 latency + 0.3 inverse bandwidth + 0.2 (1 - reliability), on normalised figures. */
export function linkCost({ rttMs, freeMbps, reliability }: PathLink): number {
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
 * The path to use: the one in use, at its cost of today, unless it is broken or another costs less than
 * {@link switchBelow} of it. Paths would flap with every measurement otherwise.
 */
export function choosePath(
  links: readonly PathLink[],
  from: string,
  to: string,
  current?: readonly string[],
): Path | undefined {
  const best = cheapestPaths(links, from).get(to);
  const kept = current && pathAlong(links, current);
  if (!kept || kept.nodes[0] !== from || kept.nodes.at(-1) !== to) return best;
  return best && best.cost < switchBelow * kept.cost ? best : kept;
}

/** A path along given nodes at its cost of today; undefined when a link of it is gone. */
function pathAlong(links: readonly PathLink[], nodes: readonly string[]): Path | undefined {
  const neighbours = adjacency(links);
  let cost = 0;
  for (const [index, node] of nodes.entries()) {
    const next = nodes[index + 1];
    if (next === undefined) break;
    const step = neighbours.get(node)?.get(next);
    if (step === undefined) return undefined;
    cost += step;
  }
  return { nodes, cost };
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
