import type { Clock } from '#platform/clock.ts';
import type { Logger } from '#platform/log.ts';
import type { Rooms } from '#sfu-node/media/rooms.ts';
import type { NodeMetrics } from '#sfu-node/metrics.ts';
import type { NodeCapacity } from './capacity.ts';
import { RoomRequests } from './ensure.ts';
import { Heartbeats, type NodeFacts } from './heartbeat.ts';
import type { NatsLink } from './nats-link.ts';
import { Peers } from './peers.ts';
import { RelayHolder } from './relay-holder.ts';
import { RelayServer } from './relay-server.ts';
import { JoinWindow } from './reliability.ts';
import { Routes } from './routes.ts';

export interface CoordinationOptions {
  /** Name of this node. */
  node: string;
  /** Identity of this process. */
  instance: string;
  nats: NatsLink;
  rooms: Rooms;
  /** What this node can carry. */
  capacity: NodeCapacity;
  /** Mean loss (0..1) of this node's cascade links; 0 when it is not given. */
  linkLoss?: () => number;
  metrics: NodeMetrics;
  clock: Clock;
  log: Logger;
}

/** How this node takes part in the fleet, over NATS: routes, heartbeats, relayed sessions. It does without NATS until that comes. */
export class Coordination {
  readonly routes: Routes;
  readonly requests: RoomRequests;
  readonly holder: RelayHolder;
  readonly joins: JoinWindow;
  readonly #peers: Peers;
  readonly #options: CoordinationOptions;
  #heartbeats: Heartbeats | undefined;

  static create(options: CoordinationOptions): Coordination {
    return new Coordination(options);
  }

  private constructor(options: CoordinationOptions) {
    const { node, instance, nats, rooms, capacity, metrics, clock, log } = options;
    this.#options = options;
    this.joins = new JoinWindow(clock);
    this.routes = Routes.create({ nats, clock, log });
    this.requests = new RoomRequests(nats, clock);
    this.#peers = Peers.create({ nats, clock, log });
    this.holder = RelayHolder.create({
      ...{ node, instance, nats, peers: this.#peers, routes: this.routes, metrics, clock, log },
    });
    const { joins } = this;
    RelayServer.create({ node, instance, nats, peers: this.#peers, rooms, capacity, joins, metrics, clock, log });
  }

  /** Begins to say to the fleet what this node is: call once, when all its listeners stand. */
  announce(facts: NodeFacts): void {
    const { nats, rooms, capacity, linkLoss, clock, log } = this.#options;
    this.#heartbeats ??= Heartbeats.create({ facts, capacity, rooms, joins: this.joins, linkLoss, nats, clock, log });
  }

  /** Says to the fleet now what this node is, without waiting for the next time. */
  beat(): void {
    this.#heartbeats?.beat();
  }

  /** Tells the fleet that this node is gone now, and nothing more. */
  announceDeparture(): void {
    this.#options.rooms.setDraining(true);
    this.#heartbeats?.beat(true);
    this.#heartbeats?.close();
  }

  async close(): Promise<void> {
    this.#heartbeats?.close();
    this.#peers.close();
    await this.routes.close();
  }
}
