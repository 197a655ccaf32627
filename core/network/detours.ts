import { defaultTree, type Tree } from '../paths/mod.ts';
import type { LinkPair } from '../topology/mod.ts';

/** The tree of each node that sends: by its name. */
export type Trees = ReadonlyMap<string, Tree>;

/** One hop of a source's tree that is another than in the default tree: `node` takes its streams from `via`. */
export interface Detour {
  readonly source: string;
  readonly node: string;
  readonly via: string;
}

/** All that is worth writing down of trees: where they differ from the default trees over the same links. */
export function detoursOf(links: readonly LinkPair[], trees: Trees): Detour[] {
  return [...trees].flatMap(([source, tree]) => {
    const usual = defaultTree(links, source);
    return [...tree].flatMap(([node, via]) => (usual.get(node) === via ? [] : [{ source, node, via }]));
  });
}

/** The trees again, from the links and what was written down. */
export function treesOf(
  links: readonly LinkPair[],
  sources: readonly string[],
  detours: readonly Detour[],
): Map<string, Tree> {
  return new Map(
    sources.map((source) => {
      const own = detours.filter((detour) => detour.source === source);
      const changed = own.map(({ node, via }) => [node, via] as const);
      return [source, new Map([...defaultTree(links, source), ...changed])];
    }),
  );
}
