import type { Producer, RtpParameters } from 'mediasoup/types';
import type { TrackSupply as SupplyMessage } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { codeOf, messageOf } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { sameDemand, type LayerDemand } from '../media/demand.ts';
import type { Site } from '../media/site.ts';
import type { TrackOrigin } from '../media/track.ts';
import { receiveTrack } from '../media/track-sender.ts';
import type { Link } from './link.ts';
import { retireMs } from './link-outputs.ts';

/** What a remote origin needs of its room's links. */
export interface Upstream {
  readonly site: Site;
  /** The link by which streams of a node come in now; undefined while there is none that carries packets. */
  linkTowards(source: string): Link | undefined;
  /** The other end does not have a link any more. */
  linkIsGone(link: Link): void;
  /** Asks the other end of a link for a track; undefined when it was let go there. */
  request(
    link: Link,
    trackSid: string,
    version: number,
    demand: LayerDemand | undefined,
  ): Promise<SupplyMessage | undefined>;
}

export interface RemoteOriginOptions {
  readonly trackSid: string;
  /** Node that the track is published on. */
  readonly source: string;
  readonly upstream: Upstream;
  readonly clock: Clock;
  readonly log: Logger;
  /** The producer came, or another took its place. */
  readonly onProducer: () => void;
}

/** A stream that comes in over a link. */
interface Held {
  readonly link: Link;
  readonly stream: string;
  readonly producer: Producer;
}

/** Pauses before the same is asked again, milliseconds: doubled from the first to the last. */
const retry = { firstMs: 100, lastMs: 2000 } as const;
/**
 * What nobody wants any more is kept so long, milliseconds: many who leave come back at once, and a subscriber that takes
 * a lower layer stays on the higher one until a key frame of the lower comes.
 */
const lingerMs = 500;

/**
 * A track that is published on another node, as it comes in here: asked for over the link towards that node when somebody
 * wants it, in the layers that somebody wants, and let go of when nobody does.
 *
 * What is wanted and what the other end has confirmed are compared until they are the same, so lost requests, a link that
 * was replaced and a NATS that is away only cost time. When the way changes, the stream over the new link is there before
 * the one over the old link goes.
 */
export class RemoteOrigin implements TrackOrigin {
  readonly #options: RemoteOriginOptions;
  #wanted: LayerDemand | undefined;
  #held: Held | undefined;
  /** What the link's other end has confirmed. */
  #confirmed: LayerDemand | undefined;
  /** The other end said that the track comes as another stream. */
  #stale = false;
  #version: number;
  #running = false;
  #again = false;
  #failures = 0;
  #cancelWait: () => void = () => undefined;
  #closed = false;

  constructor(options: RemoteOriginOptions) {
    this.#options = options;
    // Grows over restarts of the track here, so that the other end never takes a request of before for a newer one.
    this.#version = options.clock.now();
  }

  get site(): Site {
    return this.#options.upstream.site;
  }

  get producer(): Producer | undefined {
    return this.#held?.producer;
  }

  setDemand(demand: LayerDemand | undefined): void {
    const before = this.#wanted;
    this.#wanted = demand;
    if (this.#closed || before === undefined || !isLess(demand, before)) return this.poke();
    this.#cancelWait();
    this.#cancelWait = this.#options.clock.after(lingerMs, () => this.poke());
  }

  /** Looks again: a link came or went, the way changed. */
  poke(): void {
    this.#cancelWait();
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    void this.#run().finally(() => {
      this.#running = false;
      if (this.#again) {
        this.#again = false;
        this.poke();
      }
    });
  }

  /** The other end sends the track as another stream since. */
  streamChanged(): void {
    this.#stale = true;
    this.#failures = 0;
    this.poke();
  }

  /** The track has ended. */
  close(): void {
    this.#closed = true;
    this.#wanted = undefined;
    this.poke();
  }

  async #run(): Promise<void> {
    for (let step = 0; step < 8; step += 1) {
      try {
        if (await this.#settled()) {
          this.#failures = 0;
          return;
        }
      } catch (error) {
        return this.#wait(error);
      }
    }
    this.#wait(undefined);
  }

  /** Does the next thing that is missing; true when nothing is. */
  async #settled(): Promise<boolean> {
    const { upstream, source } = this.#options;
    const wanted = this.#wanted;
    if (!wanted) {
      const held = this.#held;
      if (!held) return true;
      await this.#letGo(held);
      return false;
    }
    const link = upstream.linkTowards(source);
    // Whoever brings a link pokes.
    if (!link) return true;
    const same = this.#held?.link === link && !this.#held.producer.closed;
    if (same && !this.#stale && sameDemand(wanted, this.#confirmed)) return true;
    await this.#ask(link, wanted);
    return false;
  }

  async #ask(link: Link, wanted: LayerDemand): Promise<void> {
    const { upstream, trackSid, clock, log } = this.#options;
    this.#stale = false;
    const supply = await upstream.request(link, trackSid, this.#next(), wanted).catch((error: unknown) => {
      if (codeOf(error) === 'UnknownLink') upstream.linkIsGone(link);
      throw error;
    });
    if (!supply) return;
    const before = this.#held;
    if (before?.link === link && before.stream === supply.stream && !before.producer.closed) {
      this.#confirmed = wanted;
      return;
    }
    const kind = supply.kind === 'audio' ? 'audio' : 'video';
    const rtpParameters = JSON.parse(supply.rtpParametersJson) as RtpParameters;
    const producer = await receiveTrack(link.transport, { kind, rtpParameters });
    this.#held = { link, stream: supply.stream, producer };
    this.#confirmed = wanted;
    this.#options.onProducer();
    log.debug({ track: trackSid, peer: link.peer, instead: before?.link.peer }, 'Track comes over a cascade link');
    if (before) clock.after(retireMs, () => void this.#retire(before));
  }

  async #letGo(held: Held): Promise<void> {
    const { upstream, trackSid } = this.#options;
    if (!held.link.closed) {
      await upstream.request(held.link, trackSid, this.#next(), undefined).catch((error: unknown) => {
        if (codeOf(error) !== 'UnknownLink') throw error;
      });
    }
    if (this.#held === held && !this.#wanted) {
      this.#held = undefined;
      this.#confirmed = undefined;
    }
    held.producer.close();
  }

  /** Ends what came by an older way. On the same link the other end has ended the stream itself. */
  async #retire(old: Held): Promise<void> {
    if (!old.link.closed && this.#held?.link !== old.link) {
      await this.#options.upstream
        .request(old.link, this.#options.trackSid, this.#next(), undefined)
        .catch((error: unknown) => {
          this.#options.log.debug(
            { track: this.#options.trackSid, reason: messageOf(error) },
            'Old way was not let go',
          );
        });
    }
    old.producer.close();
  }

  #next(): number {
    return (this.#version += 1);
  }

  #wait(error: unknown): void {
    const { clock, log, trackSid } = this.#options;
    this.#failures += 1;
    const ms = Math.min(retry.lastMs, retry.firstMs * 2 ** (this.#failures - 1));
    if (error !== undefined && this.#failures % 5 === 0) {
      log.warn(
        { track: trackSid, code: codeOf(error), reason: messageOf(error) },
        'Track does not come over its link yet',
      );
    }
    if (this.#closed && this.#failures > 10) return;
    this.#cancelWait();
    this.#cancelWait = clock.after(ms, () => this.poke());
  }
}

function isLess(demand: LayerDemand | undefined, before: LayerDemand): boolean {
  if (!demand || demand.paused) return true;
  return !before.paused && (demand.layers & before.layers) === demand.layers && demand.layers !== before.layers;
}
