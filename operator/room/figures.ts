/** Figures of all rooms together, for metrics. Pure. */
import type { LinkState } from '#core/network/mod.ts';
import type { Room } from '#crds/room.ts';

export interface NetworkFigures {
  /** Placed Rooms by how many nodes they have: 1, 2, 3 or 4+. */
  readonly nodes: Readonly<Record<'1' | '2' | '3' | '4+', number>>;
  readonly links: Readonly<Record<LinkState, number>>;
  /** The longest round trip time between two regions, which stand in order of name; seconds. */
  readonly rtts: readonly { readonly from: string; readonly to: string; readonly seconds: number }[];
}

/** Counts nodes and links over Rooms, as their status has them. */
export function networkFigures(rooms: Iterable<Room>): NetworkFigures {
  const nodes = { '1': 0, '2': 0, '3': 0, '4+': 0 };
  const links = { Opening: 0, Up: 0, Degraded: 0, Down: 0 };
  const rtts = new Map<string, { from: string; to: string; seconds: number }>();
  for (const { status } of rooms) {
    const placement = status?.placement ?? [];
    if (placement.length > 0) nodes[countLabel(placement.length)] += 1;
    const regions = new Map(placement.map(({ node, region }) => [node, region ?? '']));
    for (const { from, to, state = 'Opening', rttMillis } of status?.links ?? []) {
      links[state] += 1;
      if (rttMillis === undefined || state === 'Down') continue;
      const [a = '', b = ''] = [regions.get(from) ?? '', regions.get(to) ?? ''].sort();
      const seconds = Math.max(rttMillis / 1000, rtts.get(`${a} ${b}`)?.seconds ?? 0);
      rtts.set(`${a} ${b}`, { from: a, to: b, seconds });
    }
  }
  return { nodes, links, rtts: [...rtts.values()] };
}

function countLabel(count: number): '1' | '2' | '3' | '4+' {
  return count >= 4 ? '4+' : count === 3 ? '3' : count === 2 ? '2' : '1';
}
