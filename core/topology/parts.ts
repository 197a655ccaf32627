import type { LinkPair } from './topology.ts';

/** The parts into which links divide nodes: each part's nodes reach one another, in the order in which they are given. */
export function partsOf(nodes: readonly string[], links: readonly LinkPair[]): string[][] {
  const root = new Map(nodes.map((node) => [node, node]));
  const find = (node: string): string => {
    const up = root.get(node) ?? node;
    return up === node ? node : find(up);
  };
  for (const { from, to } of links) if (root.has(from) && root.has(to)) root.set(find(to), find(from));
  const parts = new Map<string, string[]>();
  for (const node of nodes) {
    const top = find(node);
    parts.set(top, [...(parts.get(top) ?? []), node]);
  }
  return [...parts.values()];
}

/**
 * Pairs of nodes to link besides `declared`, so that nodes which the links that work (`working`) leave in several parts
 * reach one another: cheapest first, one between two parts. Parts between which every pair is declared already, and does
 * not work, stay apart.
 */
export function bridges(
  nodes: readonly string[],
  working: readonly LinkPair[],
  declared: readonly LinkPair[],
  cost: (pair: LinkPair) => number,
): LinkPair[] {
  const known = new Set(declared.map(pairKey));
  const sorted = [...nodes].sort();
  const candidates = sorted
    .flatMap((from, index) => sorted.slice(index + 1).map((to) => ({ from, to })))
    .filter((pair) => !known.has(pairKey(pair)))
    .map((pair) => ({ pair, cost: cost(pair) }))
    .sort((a, b) => a.cost - b.cost);
  const found: LinkPair[] = [];
  for (const { pair } of candidates) {
    const parts = partsOf(nodes, [...working, ...found]);
    if (parts.length === 1) break;
    if (!parts.some((part) => part.includes(pair.from) && part.includes(pair.to))) found.push(pair);
  }
  return found;
}

/** A pair's name; ends are in order of their names. */
export function pairKey({ from, to }: LinkPair): string {
  return `${from}/${to}`;
}

/** Two nodes as a pair. */
export function pairOf(a: string, b: string): LinkPair {
  return a < b ? { from: a, to: b } : { from: b, to: a };
}
