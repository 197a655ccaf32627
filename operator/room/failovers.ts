import type { NodeRecord } from '../fleet/node-registry.ts';

/** What takes a room off its nodes: `lost` ones are not heard any more, `drained` ones are to end. */
export type FailoverCause = 'lost' | 'drained';

/** A room on its way to other nodes. */
export interface Failover {
  readonly cause: FailoverCause;
  /** When the first of its nodes was heard last, or was left; milliseconds since the epoch. */
  readonly since: number;
}

/** How the rooms that must leave nodes fare until they are served again. */
export class Failovers {
  readonly #rooms = new Map<string, Failover>();
  readonly #node: (name: string) => Pick<NodeRecord, 'alive' | 'lastSeen'> | undefined;
  readonly #now: () => number;
  readonly #onEnd: (cause: FailoverCause, seconds: number) => void;

  /** @param options.onEnd is told when a room is served again, and how long it was not */
  constructor(options: {
    node: (name: string) => Pick<NodeRecord, 'alive' | 'lastSeen'> | undefined;
    now: () => number;
    onEnd: (cause: FailoverCause, seconds: number) => void;
  }) {
    this.#node = options.node;
    this.#now = options.now;
    this.#onEnd = options.onEnd;
  }

  /** A room was placed anew without these nodes, which it cannot stay on. */
  left(uid: string, nodes: readonly string[]): void {
    for (const name of nodes) {
      const node = this.#node(name);
      const found: Failover = node?.alive
        ? { cause: 'drained', since: this.#now() }
        : { cause: 'lost', since: node?.lastSeen ?? this.#now() };
      const known = this.#rooms.get(uid);
      if (!known || found.since < known.since) this.#rooms.set(uid, found);
    }
  }

  /** A room is served by all nodes of its placement. */
  served(uid: string): void {
    const failover = this.#rooms.get(uid);
    if (!failover) return;
    this.#rooms.delete(uid);
    this.#onEnd(failover.cause, (this.#now() - failover.since) / 1000);
  }

  /** A room is no more. */
  forget(uid: string): void {
    this.#rooms.delete(uid);
  }
}
