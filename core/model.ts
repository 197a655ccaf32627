/**
 * The words that decisions are made in. Plain data: no I/O, no clock, no randomness here or anywhere in core/.
 */

/** What a node does for a room. Hub: others link to it. Edge: serves participants. Relay: passes streams on. Standby: kept warm. */
export type Role = 'Hub' | 'Edge' | 'Relay' | 'Standby';

/** How rooms are shared out among nodes. Spread: to the idlest. Pack: to those that have rooms already, up to a mark. */
export const strategies = ['Spread', 'Pack'] as const;
export type Strategy = (typeof strategies)[number];

/** Identity of a Room object; `uid` tells a Room from another made later under its name. */
export interface RoomIdentity {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  /** The name that clients join by. */
  readonly roomName: string;
}

/** One node of a room's placement. */
export interface PlacedNode {
  readonly node: string;
  readonly region: string;
  readonly role: Role;
}

/** Where a room is served, at one epoch. */
export interface Placement {
  readonly epoch: number;
  readonly nodes: readonly PlacedNode[];
}

/** One SFU node as placement sees it. */
export interface NodeView {
  readonly name: string;
  readonly region: string;
  readonly zone: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Heartbeats arrive. */
  readonly ready: boolean;
  /** spec.unschedulable: no new rooms, but what is here stays. */
  readonly unschedulable: boolean;
  /** Rooms are leaving this node. */
  readonly draining: boolean;
  /** It is about to be replaced, by an upgrade that is under way: chosen only where no other node of its region fits. */
  readonly outgoing?: boolean;
  /** Streams (published plus subscribed tracks) and outgoing megabits a second that it can carry. */
  readonly capacity: { readonly streams: number; readonly mbps: number };
  /** What it will carry: the last heartbeat's figures or what its assignments reserve, whichever is more. */
  readonly load: { readonly streams: number; readonly mbps: number; readonly cpu: number };
  /** Success rate of joins (0..1) and loss on its links (0..1) over the last minute. */
  readonly reliability: { readonly joinSuccess: number; readonly linkLoss: number };
  /** Relative price; 100 is ordinary. */
  readonly cost: number;
}

/** One room as placement sees it. */
export interface RoomView {
  readonly identity: RoomIdentity;
  /** Regions that it must be served from; empty for any. */
  readonly regions: readonly string[];
  /** Regions that it would best be served from, most wanted first; empty for no preference. */
  readonly preferredRegions: readonly string[];
  readonly nodeSelector: Readonly<Record<string, string>>;
  /** Streams to reserve for it. */
  readonly streams: number;
  /** Where it is served now, if anywhere. */
  readonly placement: Placement | undefined;
  /** Nodes that it shall not get, besides: they are full, or it has them. */
  readonly avoid?: ReadonlySet<string>;
}
