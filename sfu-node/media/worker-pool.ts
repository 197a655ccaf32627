import { createWorker } from 'mediasoup';
import type { Router, WebRtcServer, Worker } from 'mediasoup/types';
import type { Clock } from '#platform/clock.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import type { NodeMetrics } from '../metrics.ts';
import { routerCodecs, type CodecName } from './codecs.ts';

/** An address that media sockets bind. */
export interface MediaAddress {
  ip: string;
  /** Address that clients are told, when it is another than `ip`. */
  announcedAddress?: string;
}

export interface WorkerPoolOptions {
  /** Workers to keep alive; one a core is right. */
  count: number;
  /** Where media sockets listen, each on every port. */
  addresses: readonly MediaAddress[];
  /** First of `count` ports, each used for UDP and TCP; 0 lets the system choose. */
  portBase: number;
  clock: Clock;
  log: Logger;
  metrics: NodeMetrics;
}

/** One mediasoup worker with its WebRtcServer (one UDP and one TCP port) and what it carries. */
export interface MediaWorker {
  readonly worker: Worker;
  readonly server: WebRtcServer;
  readonly index: number;
  /** Routers on it. */
  routers: number;
  /** Producers and consumers on it. */
  streams: number;
  /** CPU of the process as a share (0..1) of one core over the last second. */
  cpu: number;
}

const cpuIntervalMs = 1000;
const respawnDelayMs = 1000;
/** How long a room waits for the replacement of a dead worker, milliseconds. */
const replacementMs = 5000;

/**
 * Keeps one mediasoup worker a core alive. Every worker has its own DTLS certificate (mediasoup's default): with a
 * shared one a browser would not restart DTLS when it is moved.
 */
export class WorkerPool {
  readonly #options: WorkerPoolOptions;
  readonly #workers = new Map<number, MediaWorker>();
  readonly #deathListeners = new Set<(worker: MediaWorker) => void>();
  readonly #waiting = new Set<() => void>();
  #cancelCpu: () => void = () => undefined;
  #closed = false;

  private constructor(options: WorkerPoolOptions) {
    this.#options = options;
  }

  /** @throws WeirError PortInUse, WorkerNotStarted */
  static async create(options: WorkerPoolOptions): Promise<WorkerPool> {
    const pool = new WorkerPool(options);
    try {
      await Promise.all(Array.from({ length: options.count }, (_, index) => pool.#spawn(index)));
    } catch (error) {
      pool.close();
      throw error;
    }
    pool.#measureCpu();
    return pool;
  }

  /** Workers that are alive. */
  get size(): number {
    return this.#workers.size;
  }

  /** CPU of all workers as a share (0..1) of their cores. */
  get cpu(): number {
    const workers = [...this.#workers.values()];
    return workers.reduce((sum, worker) => sum + worker.cpu, 0) / Math.max(1, this.#options.count);
  }

  /** Process ids of the workers. */
  get pids(): number[] {
    return [...this.#workers.values()].map(({ worker }) => worker.pid);
  }

  /** Calls `listener` after a worker died, when its routers are already closed. */
  onDeath(listener: (worker: MediaWorker) => void): void {
    this.#deathListeners.add(listener);
  }

  /**
   * A router on the least loaded worker (streams, then routers, then index).
   * @param avoid workers that are to be used only when there is no other
   * @throws WeirError NoWorker when none is alive and none comes in time
   */
  async createRouter(
    codecs: readonly CodecName[],
    avoid: ReadonlySet<MediaWorker> = new Set(),
  ): Promise<{ router: Router; worker: MediaWorker }> {
    const worker = this.leastLoaded(avoid) ?? this.leastLoaded() ?? (await this.#replaced());
    if (!worker) {
      throw new WeirError(
        'NoWorker',
        'No media worker is alive on this node, and none came in time; its log says why.',
      );
    }
    worker.routers += 1;
    try {
      const router = await worker.worker.createRouter({ mediaCodecs: routerCodecs(codecs) });
      router.observer.once('close', () => (worker.routers -= 1));
      return { router, worker };
    } catch (error) {
      worker.routers -= 1;
      throw error;
    }
  }

  /** The worker with the fewest streams, then routers, of those that are not to be avoided. */
  leastLoaded(avoid: ReadonlySet<MediaWorker> = new Set()): MediaWorker | undefined {
    const [worker] = [...this.#workers.values()]
      .filter((candidate) => !avoid.has(candidate))
      .sort((a, b) => a.streams - b.streams || a.routers - b.routers || a.index - b.index);
    return worker;
  }

  /** The worker that takes the place of one that died; undefined when none came in time. */
  #replaced(): Promise<MediaWorker | undefined> {
    return new Promise((resolve) => {
      const finish = () => {
        cancel();
        this.#waiting.delete(finish);
        resolve(this.leastLoaded());
      };
      const cancel = this.#options.clock.after(replacementMs, finish);
      this.#waiting.add(finish);
    });
  }

  close(): void {
    this.#closed = true;
    for (const finish of this.#waiting) finish();
    this.#cancelCpu();
    for (const { worker } of this.#workers.values()) worker.close();
    this.#workers.clear();
  }

  async #spawn(index: number): Promise<void> {
    const { addresses, portBase, metrics } = this.#options;
    const worker = await createWorker({ logLevel: 'warn' }).catch((error: unknown) => {
      throw new WeirError(
        'WorkerNotStarted',
        `mediasoup-worker did not start: ${messageOf(error)}. Run make setup, or set MEDIASOUP_WORKER_BIN to a worker that runs on this machine.`,
        { cause: error },
      );
    });
    outliveSignals(worker);
    try {
      const port = portBase === 0 ? undefined : portBase + index;
      const listenInfos = addresses.flatMap(({ ip, announcedAddress }) =>
        (['udp', 'tcp'] as const).map((protocol) => ({ protocol, ip, announcedAddress, port })),
      );
      const server = await worker.createWebRtcServer({ listenInfos }).catch((error: unknown) => {
        throw new WeirError(
          'PortInUse',
          `Media cannot listen on ${addresses.map(({ ip }) => ip).join(' and ')}, port ${port ?? 'any'}: ${messageOf(error)}. Free the port or set WEIR_MEDIA_PORT_BASE to another.`,
          { cause: error, where: 'WEIR_MEDIA_PORT_BASE' },
        );
      });
      if (this.#closed) {
        worker.close();
        return;
      }
      const entry: MediaWorker = { worker, server, index, routers: 0, streams: 0, cpu: 0 };
      this.#workers.set(index, entry);
      metrics.workers.set(this.#workers.size);
      worker.once('died', (error) => this.#onDied(entry, error));
      for (const finish of this.#waiting) finish();
    } catch (error) {
      worker.close();
      throw error;
    }
  }

  #onDied(entry: MediaWorker, error: Error): void {
    const { log, metrics } = this.#options;
    this.#workers.delete(entry.index);
    metrics.workers.set(this.#workers.size);
    metrics.workerDeaths.inc();
    log.error({ err: error, worker: entry.index, pid: entry.worker.pid }, 'Media worker died; replacing it');
    this.#respawn(entry.index);
    for (const listener of this.#deathListeners) listener(entry);
  }

  #respawn(index: number): void {
    if (this.#closed) return;
    this.#spawn(index).catch((error: unknown) => {
      this.#options.log.error({ err: error, worker: index }, 'Media worker could not be replaced; trying again');
      this.#options.clock.after(respawnDelayMs, () => this.#respawn(index));
    });
  }

  #measureCpu(): void {
    const last = new Map<Worker, { at: number; used: number }>();
    const measure = async () => {
      for (const entry of this.#workers.values()) {
        const usage = await entry.worker.getResourceUsage();
        const now = { at: this.#options.clock.now(), used: usage.ru_utime + usage.ru_stime };
        const before = last.get(entry.worker);
        if (before && now.at > before.at) entry.cpu = (now.used - before.used) / (now.at - before.at);
        last.set(entry.worker, now);
      }
    };
    const again = () => {
      measure()
        // A worker that dies while it is asked is dealt with by its 'died' event.
        .catch(() => last.clear())
        .finally(() => {
          if (!this.#closed) this.#cancelCpu = this.#options.clock.after(cpuIntervalMs, again);
        });
    };
    again();
  }
}

/**
 * mediasoup ends its workers the moment that this process is asked to end. Their calls move to other nodes first, and go on
 * until then; {@link WorkerPool.close} ends them.
 */
function outliveSignals(worker: Worker): void {
  const { onSignal } = worker as Worker & { onSignal: () => void };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, onSignal);
}
