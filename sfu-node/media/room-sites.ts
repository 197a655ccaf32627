import type { SpeakerInfo } from '@livekit/protocol';
import type { Logger } from '#platform/log.ts';
import { routerCodecs, type CodecName } from './codecs.ts';
import type { Participant } from './participant.ts';
import { Site } from './site.ts';
import type { MediaWorker, WorkerPool } from './worker-pool.ts';

/** The sites of a room on this node: one, or several once the room has outgrown a worker. */
export class RoomSites {
  readonly #pool: WorkerPool;
  readonly #sites: [Site, ...Site[]];
  #onSpeakers: (changed: SpeakerInfo[]) => void = () => undefined;
  #closed = false;

  /** @throws WeirError NoWorker */
  static async create(pool: WorkerPool, codecs: readonly CodecName[]): Promise<RoomSites> {
    return new RoomSites(pool, await Site.create(pool, codecs));
  }

  private constructor(pool: WorkerPool, main: Site) {
    this.#pool = pool;
    this.#sites = [main];
    this.#follow(main);
  }

  /** The first one, which has the cascade links. */
  get main(): Site {
    return this.#sites[0];
  }

  /** Workers that carry the room. */
  get workers(): MediaWorker[] {
    return this.#sites.map(({ worker }) => worker);
  }

  /** Where a participant is, or would be while it has no site yet. */
  of(participant: Participant): Site {
    return participant.site ?? this.main;
  }

  /** Calls `listener` when participants begin or cease to speak, at any site. */
  listen(listener: (changed: SpeakerInfo[]) => void): void {
    this.#onSpeakers = listener;
  }

  /** What may be published from now on. */
  allow(codecs: readonly CodecName[]): void {
    for (const { router } of this.#sites) router.updateMediaCodecs(routerCodecs(codecs));
  }

  /**
   * The site for one more participant: a worker that has its fill is left alone while another has less to do.
   * @param options.streamsPerWorker streams of all rooms that one worker is to carry
   */
  async forOneMore(options: { streamsPerWorker: number; codecs: readonly CodecName[]; log: Logger }): Promise<Site> {
    const { streamsPerWorker, codecs, log } = options;
    const [best] = [...this.#sites].sort((a, b) => a.worker.streams - b.worker.streams);
    if (!best) return this.main;
    const other = this.#pool.leastLoaded(new Set(this.workers));
    if (best.worker.streams < streamsPerWorker || !other || other.streams >= best.worker.streams) return best;
    const site = await Site.create(this.#pool, codecs, this.#sites);
    if (this.#closed || this.#sites.some(({ worker }) => worker === site.worker)) {
      site.close();
      return best;
    }
    this.#sites.push(site);
    this.#follow(site);
    log.info({ workers: this.workers.map(({ index }) => index) }, 'Room takes another worker');
    return site;
  }

  /** Counts published and subscribed tracks on each worker anew; answers how many there are in all. */
  count(participants: Iterable<Participant>): number {
    const bySite = new Map(this.#sites.map((site) => [site, 0]));
    for (const participant of participants) {
      const site = this.of(participant);
      bySite.set(site, (bySite.get(site) ?? 0) + participant.streams);
    }
    for (const [site, streams] of bySite) site.count(streams);
    return [...bySite.values()].reduce((sum, count) => sum + count, 0);
  }

  close(): void {
    this.#closed = true;
    for (const site of this.#sites) site.close();
  }

  #follow(site: Site): void {
    site.speakers.listen((changed) => this.#onSpeakers(changed));
  }
}
