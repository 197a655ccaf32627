import { availableParallelism } from 'node:os';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { messageOf } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { subjects } from '#platform/subjects.ts';
import type { Rooms, RoomsLoad } from '#sfu-node/media/rooms.ts';
import type { NodeCapacity } from './capacity.ts';
import { droppedShare, readDatagrams } from './datagrams.ts';
import type { NatsLink } from './nats-link.ts';
import type { JoinWindow } from './reliability.ts';

export const HEARTBEAT_MS = 200;
/** Event loop, CPU, datagrams and loss are measured over this many heartbeats. */
const LAG_BEATS = 10;

/** What stays the same in every heartbeat of this process. */
export type NodeFacts = Pick<
  Heartbeat,
  'node' | 'instance' | 'region' | 'zone' | 'controlAddress' | 'url' | 'addresses' | 'version' | 'labels' | 'pod'
>;

export interface HeartbeatsOptions {
  facts: NodeFacts;
  /** What the node can carry; it is told how the node is doing. */
  capacity: NodeCapacity;
  rooms: Rooms;
  joins: JoinWindow;
  /** Mean loss (0..1) of this node's cascade links; 0 when it is not given. */
  linkLoss?: () => number;
  nats: NatsLink;
  clock: Clock;
  log: Logger;
}

/** Says everything about this node on NATS, every 200 ms while it is connected; nothing is stored up meanwhile. */
export class Heartbeats {
  readonly #options: HeartbeatsOptions;
  readonly #delay: ReturnType<typeof monitorEventLoopDelay>;
  #sequence = 0;
  #lagMs = 0;
  #cpu = 0;
  #linkLoss = 0;
  #cpuAt: { usage: NodeJS.CpuUsage; at: number };
  #datagrams = readDatagrams();
  #cancel: () => void = () => {};
  #closed = false;

  static create(options: HeartbeatsOptions): Heartbeats {
    const heartbeats = new Heartbeats(options);
    heartbeats.#schedule();
    options.nats.onConnected(() => heartbeats.beat());
    return heartbeats;
  }

  private constructor(options: HeartbeatsOptions) {
    this.#options = options;
    this.#delay = monitorEventLoopDelay({ resolution: 10 });
    this.#delay.enable();
    this.#cpuAt = { usage: process.cpuUsage(), at: options.clock.now() };
  }

  /** Sends one now. @param leaving it is the last one */
  beat(leaving = false): void {
    const { nats, log, facts } = this.#options;
    if (this.#closed || !nats.connected || !nats.connection) return;
    try {
      nats.connection.publish(subjects.heartbeat(facts.node), Heartbeat.encode(this.#compose(leaving)).finish());
    } catch (error) {
      log.warn({ reason: messageOf(error) }, 'a heartbeat could not be sent');
    }
  }

  close(): void {
    this.#closed = true;
    this.#cancel();
    this.#delay.disable();
  }

  #compose(leaving: boolean): Heartbeat {
    const { facts, capacity, rooms, joins } = this.#options;
    const { streams, mbps, configured, limitedBy } = capacity;
    const load = rooms.load();
    const counts = joins.counts();
    if (this.#sequence % LAG_BEATS === 0) this.#measure(load);
    return {
      ...facts,
      sequence: ++this.#sequence,
      capacity: { streams, mbps },
      configured: { streams: configured.streams, mbps: configured.mbps },
      limitedBy: limitedBy ?? '',
      draining: rooms.draining,
      leaving,
      load: { ...load, cpu: Math.min(1, load.cpu + this.#cpu), eventLoopLagMs: this.#lagMs },
      reliability: { joinsSucceeded: counts.succeeded, joinsFailed: counts.failed, linkLoss: this.#linkLoss },
    };
  }

  /** This process's own share of the cores, its event loop's delay and datagrams since the last time; loss of links now. */
  #measure({ cpu, streams }: RoomsLoad): void {
    const now = this.#options.clock.now();
    const usage = process.cpuUsage();
    const elapsedMicros = (now - this.#cpuAt.at) * 1000;
    if (elapsedMicros > 0) {
      const used = usage.user + usage.system - this.#cpuAt.usage.user - this.#cpuAt.usage.system;
      this.#cpu = used / elapsedMicros / availableParallelism();
      this.#cpuAt = { usage, at: now };
    }
    const p99 = this.#delay.percentile(99) / 1e6;
    // The monitor counts its own 10 ms step as delay.
    this.#lagMs = Number.isFinite(p99) ? Math.max(0, p99 - 10) : 0;
    this.#delay.reset();
    this.#linkLoss = this.#options.linkLoss?.() ?? 0;
    const datagrams = readDatagrams();
    const vitals = {
      eventLoopLagMs: this.#lagMs,
      cpu: Math.min(1, cpu + this.#cpu),
      droppedShare: droppedShare(this.#datagrams, datagrams),
      streams,
    };
    this.#datagrams = datagrams;
    this.#options.capacity.observe(vitals);
  }

  #schedule(): void {
    this.#cancel = this.#options.clock.after(HEARTBEAT_MS, () => {
      if (this.#closed) return;
      this.#schedule();
      this.beat();
    });
  }
}
