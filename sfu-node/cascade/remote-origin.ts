import type { Producer, RtpParameters } from 'mediasoup/types';
import type { TrackSupply as SupplyMessage } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { codeOf, messageOf } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { sameDemand, unite, type LayerDemand } from '../media/demand.ts';
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
  /** Another took its place long enough ago. */
  expired: boolean;
  cancelExpiry: () => void;
}

/** Pauses before the same is asked again, milliseconds: doubled from the first to the last. */
const retry = { firstMs: 100, lastMs: 2000 } as const;
/**
 * What nobody wants any more is kept so long, milliseconds: many who leave come back at once, and a subscriber that takes
 * a lower layer stays on the higher one until a key frame of the lower comes.
 */
const lingerMs = 500;
/** Refusals that say that nothing is sent over the link: there is nothing to let go of. */
const notSending = new Set(['UnknownLink', 'RoomNotServed']);

/**
 * A track that is published on another node, as it comes in here: asked for over the link towards that node when somebody
 * wants it, in the layers that somebody wants, and let go of when nobody does.
 *
 * What is wanted and what the other end has confirmed are compared until they are the same, so lost requests, a link that
 * was replaced and a NATS that is away only cost time. When the way changes, the stream over the new link is there before
 * the one over the old link goes. One request is under way at a time.
 */
export class RemoteOrigin implements TrackOrigin {
  readonly #options: RemoteOriginOptions;
  /** What is to be confirmed: all that is wanted, and what was wanted just before. */
  #wanted: LayerDemand | undefined;
  #held: Held | undefined;
  /** Streams whose place another took: they go on while holders change over. */
  readonly #old = new Set<Held>();
  /** Links whose other end may send the track: it was asked for there, and not let go of since. */
  readonly #asked = new Set<Link>();
  /** What the link's other end has confirmed; undefined while that is not known. */
  #confirmed: LayerDemand | undefined;
  /** The other end said that the track comes as another stream. */
  #stale = false;
  #version: number;
  #running = false;
  #again = false;
  #failures = 0;
  #cancelWait: () => void = () => undefined;
  #cancelLinger: () => void = () => undefined;
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
    if (this.#closed) return;
    this.#cancelLinger();
    const before = this.#wanted;
    this.#wanted = before && unite(demand ? [before, demand] : [before]);
    if (!before || sameDemand(this.#wanted, demand)) {
      this.#wanted = demand;
    } else {
      this.#cancelLinger = this.#options.clock.after(lingerMs, () => {
        this.#wanted = demand;
        this.poke();
      });
    }
    this.poke();
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
    this.#cancelLinger();
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
    this.#sweep();
    const { upstream, source } = this.#options;
    const wanted = this.#wanted;
    // Without one nothing can be asked for; whoever brings a link pokes.
    const link = wanted && upstream.linkTowards(source);
    const same = link !== undefined && this.#held?.link === link && !this.#held.producer.closed;
    if (link && !(same && !this.#stale && sameDemand(wanted, this.#confirmed))) {
      await this.#ask(link, wanted);
      return false;
    }
    const idle = [...this.#asked].find((asked) => !wanted || this.#isIdle(asked, link));
    if (!idle) return true;
    await this.#letGo(idle);
    return false;
  }

  /** Whether a link is neither the way now, nor one that holders still change over from. */
  #isIdle(asked: Link, way: Link | undefined): boolean {
    if (asked === way || asked === this.#held?.link) return false;
    return ![...this.#old].some(({ link, expired }) => link === asked && !expired);
  }

  /** Ends old streams whose sender needs no word of it: it has ended them itself, or its link is closed. */
  #sweep(): void {
    for (const old of this.#old) {
      if (old.expired && (old.link.closed || old.link === this.#held?.link)) this.#end(old);
    }
  }

  async #ask(link: Link, wanted: LayerDemand): Promise<void> {
    const { upstream, trackSid } = this.#options;
    this.#stale = false;
    this.#asked.add(link);
    // The other end may take the request though its answer is lost: nothing is known until one comes.
    this.#confirmed = undefined;
    const supply = await upstream.request(link, trackSid, this.#next(), wanted).catch((error: unknown) => {
      if (codeOf(error) === 'UnknownLink') upstream.linkIsGone(link);
      throw error;
    });
    if (!supply) return;
    const known = [...(this.#held ? [this.#held] : []), ...this.#old].find(
      (held) => held.link === link && held.stream === supply.stream && !held.producer.closed,
    );
    this.#use(known ?? (await this.#receive(link, supply)));
    this.#confirmed = wanted;
  }

  async #receive(link: Link, supply: SupplyMessage): Promise<Held> {
    const kind = supply.kind === 'audio' ? 'audio' : 'video';
    const rtpParameters = JSON.parse(supply.rtpParametersJson) as RtpParameters;
    const producer = await receiveTrack(link.transport, { kind, rtpParameters });
    return { link, stream: supply.stream, producer, expired: false, cancelExpiry: () => undefined };
  }

  #use(next: Held): void {
    const before = this.#held;
    if (next === before) return;
    const { trackSid, clock, log, onProducer } = this.#options;
    this.#held = next;
    this.#old.delete(next);
    next.expired = false;
    next.cancelExpiry();
    log.debug({ track: trackSid, peer: next.link.peer, instead: before?.link.peer }, 'Track comes over a cascade link');
    onProducer();
    if (!before) return;
    this.#old.add(before);
    before.cancelExpiry = clock.after(retireMs, () => {
      before.expired = true;
      this.poke();
    });
  }

  /** Has the other end of a link stop sending, and ends what came over it. */
  async #letGo(link: Link): Promise<void> {
    const { upstream, trackSid } = this.#options;
    if (this.#held?.link === link) this.#confirmed = undefined;
    if (!link.closed) {
      await upstream.request(link, trackSid, this.#next(), undefined).catch((error: unknown) => {
        if (!notSending.has(codeOf(error))) throw error;
      });
    }
    this.#asked.delete(link);
    for (const held of [...(this.#held ? [this.#held] : []), ...this.#old]) if (held.link === link) this.#end(held);
  }

  #end(held: Held): void {
    this.#old.delete(held);
    if (this.#held === held) this.#held = undefined;
    held.cancelExpiry();
    held.producer.close();
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
        'What is wanted of a track is not confirmed over its link yet; asking again',
      );
    }
    this.#cancelWait();
    this.#cancelWait = clock.after(ms, () => this.poke());
  }
}
