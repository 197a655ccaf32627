/** What a {@link Crowd} and its processes say to each other. */
import type { TimeWindow } from './reception.ts';
import type { Publishes } from './simulated-client.ts';

/** One client to simulate. */
export interface ClientSpec {
  /** WebSocket URL of the node to join through. */
  url: string;
  token: string;
  publishes?: Publishes;
  /** Tracks that are to come to it. */
  expects: number;
}

/** Says what to do; each command is answered in its turn, by its id. */
export type CrowdCommand =
  | { case: 'join'; clients: ClientSpec[]; atOnce: number }
  | { case: 'arrivals' }
  | { case: 'measure'; window: TimeWindow }
  | { case: 'measured' };

/** How far the clients of a process are. */
export interface Arrivals {
  /** Clients whose session stands. */
  open: number;
  /**
   * For each client that all its tracks have come to: from its join to the first packet of the last of them,
   * milliseconds; and the instant of that, nanoseconds.
   */
  received: { afterMs: number; at: number }[];
}

/** What a process counted of the packets that were sent within the window. */
export interface Measured {
  /** Sent by the publishers of this process, by layer. */
  sent: { packets: number[]; octets: number[] };
  /** Each client of this process: packets that came to it, and those of the lowest layer that it sent itself. */
  clients: { received: number; sent: number }[];
  /** Counts of `LatencyCounts`. */
  latency: Uint32Array;
  /** Packets missing by their sequence numbers since the joins, all clients together. */
  gaps: number;
  /** Share of the window that the process's own thread was busy, 0..1. */
  busy: number;
}

export type CrowdAnswer =
  | { case: 'joined' }
  | { case: 'arrivals'; arrivals: Arrivals }
  | { case: 'measuring' }
  | { case: 'measured'; measured: Measured }
  | { case: 'failed'; message: string };
