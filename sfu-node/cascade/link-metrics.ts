import { LinkState } from '#proto/weir/control/v1/control.ts';
import type { LinkFigures } from './link.ts';

/** One link of one room, as this end sees it now. */
export interface LinkSample {
  /** Region of the node at the other end; empty when the placement does not tell. */
  readonly region: string;
  readonly state: LinkState;
  /** Undefined while there is none that was up. */
  readonly figures: LinkFigures | undefined;
  readonly ageMs: number;
  /** Video layers that are left out because the link is congested. */
  readonly layersLeftOut: number;
}

/** Tracks that cross links to this node and from it. */
export interface LinkTracks {
  readonly in: number;
  readonly out: number;
}

/** What the links to one region have in common. Of times and shares the worst, as an average hides one that is bad. */
export interface RegionFigures {
  /** Longest round trip time, seconds. */
  rtt: number;
  /** Highest loss on the way here, 0..1. */
  loss: number;
  /** Highest jitter, seconds. */
  jitter: number;
  /** Bits a second over all links. */
  sent: number;
  received: number;
  /** Age of the youngest, seconds. */
  age: number;
  layersLeftOut: number;
}

/** States by the names that the Room's status has for them. */
export type LinkStates = Record<'Opening' | 'Up' | 'Degraded' | 'Down', number>;

export interface NodeLinks {
  readonly states: LinkStates;
  /** Of links over which packets come now, by region of the peer. */
  readonly regions: ReadonlyMap<string, RegionFigures>;
  readonly tracks: LinkTracks;
  /** Mean loss (0..1) of those links on the way here; 0 when there are none. */
  readonly loss: number;
}

/** Gathers what is known of all links of a node. */
export function gatherLinks(samples: readonly LinkSample[], tracks: readonly LinkTracks[] = []): NodeLinks {
  const states: LinkStates = { Opening: 0, Up: 0, Degraded: 0, Down: 0 };
  for (const { state } of samples) states[nameOf(state)] += 1;
  const carrying = samples.flatMap(({ state, figures, ...rest }) =>
    figures && (state === LinkState.UP || state === LinkState.DEGRADED) ? [{ ...rest, figures }] : [],
  );
  const regions = new Map<string, RegionFigures>();
  for (const { region, figures, ageMs, layersLeftOut } of carrying) {
    const now = regions.get(region);
    regions.set(region, {
      rtt: Math.max(now?.rtt ?? 0, (figures.rttMs ?? 0) / 1000),
      loss: Math.max(now?.loss ?? 0, figures.lossIn),
      jitter: Math.max(now?.jitter ?? 0, figures.jitterMs / 1000),
      sent: (now?.sent ?? 0) + figures.sentKbps * 1000,
      received: (now?.received ?? 0) + figures.receivedKbps * 1000,
      age: Math.min(now?.age ?? Infinity, ageMs / 1000),
      layersLeftOut: (now?.layersLeftOut ?? 0) + layersLeftOut,
    });
  }
  const lost = carrying.reduce((sum, { figures }) => sum + figures.lossIn, 0);
  return {
    states,
    regions,
    tracks: tracks.reduce((sum, each) => ({ in: sum.in + each.in, out: sum.out + each.out }), { in: 0, out: 0 }),
    loss: carrying.length > 0 ? lost / carrying.length : 0,
  };
}

function nameOf(state: LinkState): keyof LinkStates {
  if (state === LinkState.UP) return 'Up';
  if (state === LinkState.DEGRADED) return 'Degraded';
  return state === LinkState.DOWN ? 'Down' : 'Opening';
}
