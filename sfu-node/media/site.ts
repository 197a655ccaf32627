import type { PlainTransport, Router } from 'mediasoup/types';
import { DataRouter } from './data-router.ts';
import { Speakers } from './speakers.ts';
import type { CodecName } from './codecs.ts';
import type { MediaWorker, WorkerPool } from './worker-pool.ts';

/** A room on one worker: a router and what belongs to it. A room that outgrows a worker has several sites on its node. */
export class Site {
  readonly router: Router;
  readonly worker: MediaWorker;
  readonly data: DataRouter;
  readonly speakers: Speakers;
  /** Streams of the room on this worker, as they were last counted. */
  streams = 0;
  /** Ways to other sites of the room, each made once. */
  readonly #spans = new Map<Site, Promise<Span>>();

  private constructor(router: Router, worker: MediaWorker, data: DataRouter, speakers: Speakers) {
    this.router = router;
    this.worker = worker;
    this.data = data;
    this.speakers = speakers;
  }

  /** @throws WeirError NoWorker */
  static async create(workers: WorkerPool, codecs: readonly CodecName[], others: readonly Site[] = []): Promise<Site> {
    const { router, worker } = await workers.createRouter(codecs, new Set(others.map((site) => site.worker)));
    try {
      const [data, speakers] = await Promise.all([DataRouter.create(router), Speakers.create(router)]);
      return new Site(router, worker, data, speakers);
    } catch (error) {
      router.close();
      throw error;
    }
  }

  /** The way by which tracks go from here to another site of this node. */
  spanTo(other: Site): Promise<Span> {
    const known = this.#spans.get(other);
    if (known) return known;
    const made = makeSpan(this, other);
    this.#spans.set(other, made);
    made.then(
      ({ near, far }) => {
        const forget = () => this.#spans.delete(other);
        near.observer.once('close', forget);
        far.observer.once('close', forget);
      },
      () => this.#spans.delete(other),
    );
    return made;
  }

  /** Takes the streams of the room on this worker as they are now. */
  count(streams: number): void {
    this.worker.streams += streams - this.streams;
    this.streams = streams;
  }

  close(): void {
    this.count(0);
    this.router.close();
  }
}

/** Two transports on this machine, tied to each other: what is consumed on `near` is produced on `far`. */
export interface Span {
  readonly near: PlainTransport;
  readonly far: PlainTransport;
}

async function makeSpan(from: Site, to: Site): Promise<Span> {
  const listenInfo = { protocol: 'udp', ip: '127.0.0.1' } as const;
  const results = await Promise.allSettled([
    from.router.createPlainTransport({ listenInfo, rtcpMux: true }),
    to.router.createPlainTransport({ listenInfo, rtcpMux: true }),
  ]);
  const [near, far] = results.map((result) => (result.status === 'fulfilled' ? result.value : undefined));
  try {
    if (!near || !far) throw results.find((result) => result.status === 'rejected')?.reason;
    await Promise.all([
      near.connect({ ip: '127.0.0.1', port: far.tuple.localPort }),
      far.connect({ ip: '127.0.0.1', port: near.tuple.localPort }),
    ]);
    return { near, far };
  } catch (error) {
    near?.close();
    far?.close();
    throw error;
  }
}
