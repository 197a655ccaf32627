/** What the page server tells the page of a Room: its status, as the operator wrote it. */
export interface RoomState {
  /** Whether clients can join; when not, `message` says why. */
  ready: boolean;
  message: string;
  epoch: number;
  /** How the nodes are linked (`Mesh`, ...), and why so. Empty before the first placement. */
  topology: string;
  reason: string;
  nodes: PlacedNode[];
  links: RoomLink[];
}

/** A node that serves the room. */
export interface PlacedNode {
  node: string;
  region: string;
  /** `Hub`, `Edge`, `Relay` or `Standby`. */
  role: string;
}

/** A cascade link between two nodes of the room. */
export interface RoomLink {
  from: string;
  to: string;
  /** `Opening`, `Up`, `Degraded` or `Down`. */
  state: string;
  /** Round trip time in milliseconds, once it was measured. */
  rttMillis?: number;
}

/** What the page server tells the page before it joins. */
export interface Setup {
  /** The room that the demo has made. */
  room: string;
  /** Regions of the fleet. A visitor is in the first one unless they choose. */
  regions: string[];
}

/**
 * `node · region` for people. The node of a participant elsewhere is not on the wire: it is the room's node in their
 * region, when that is one alone.
 *
 * @param region that serves the participant; undefined or empty when nothing is known yet
 * @param node known for the own participant
 */
export function placeOf(state: RoomState | undefined, region: string | undefined, node?: string): string {
  const there = state?.nodes.filter((each) => each.region === region && each.role !== 'Standby') ?? [];
  const name = node ?? (there.length === 1 ? there[0]?.node : undefined);
  return [name, region].filter((part) => part !== undefined && part !== '').join(' · ');
}

/** What a link does, in a few words: `Up · 2 ms`. */
export function describeLink({ state, rttMillis }: RoomLink): string {
  if (rttMillis === undefined || state === 'Opening' || state === 'Down') return state;
  return `${state} · ${rttMillis < 1 ? '< 1' : rttMillis} ms`;
}
