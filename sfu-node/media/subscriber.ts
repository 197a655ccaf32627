import type { Consumer, Producer, WebRtcTransport } from 'mediasoup/types';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { spatialLayersOf } from './codecs.ts';
import { SubscriberChannels, type DataKind } from './data-channels.ts';
import { demandOf, spatialLayerOf, type TrackSetting } from './demand.ts';
import { dtlsParametersOf, parseSdp, refusedMids, SubscriberOffer, type OfferedTrack } from './sdp.ts';
import type { Site } from './site.ts';
import { streamIdOf, type PublishedTrack, type TrackHold } from './track.ts';
import { createClientTransport, logStates } from './transport.ts';

export interface SubscriberOptions {
  site: Site;
  log: Logger;
  /** Sends an offer; the client's answer carries the same id. */
  sendOffer: (sdp: string, id: number) => void;
  /** Media can flow. */
  onConnected: () => void;
  /** The client's answer refused a track: it has no codec for it. */
  onRefused: (track: PublishedTrack) => void;
  /** The client takes a track. */
  onSubscribed: (track: PublishedTrack) => void;
  /** A track's consumer started or ended. */
  onStreams: () => void;
  /** The connection is lost and will not come back. */
  onLost: (reason: string) => void;
}

/** A track that the client shall have. */
interface Wanted {
  readonly track: PublishedTrack;
  hold: TrackHold | undefined;
  /** The track on this site: not there yet, or no more, while it is on its way from another node. */
  producer: Producer | undefined;
}

/** A track that was offered: its section, and the consumer that fills it. */
interface Subscription {
  readonly track: PublishedTrack;
  readonly mid: string;
  consumer: Consumer;
  /** The client answered: it can decode what is sent. */
  negotiated: boolean;
  /** Spatial layer that the client's line carries now. */
  layer: number | undefined;
}

/** A consumer that an offer put in place of another in its section. */
interface Replacement {
  readonly subscription: Subscription;
  readonly before: Consumer;
}

/**
 * The connection on which one client receives: this side offers, the client answers.
 *
 * What is wanted and what was offered are two sets; a round of negotiation makes the second like the first. One round
 * is under way at a time, and what changes meanwhile goes into the next:
 *
 *   want() / unwant() --> [dirty] --> round: consume added, close removed --> offer --> answer --> resume added
 *                            ^                                                             |
 *                            +----------------------- changed meanwhile -------------------+
 *
 * A track that comes in another way since (another cascade link, say) keeps its section: the client goes on with the
 * same MediaStreamTrack, filled by another stream.
 */
export class Subscriber {
  readonly #options: SubscriberOptions;
  readonly #transport: WebRtcTransport;
  readonly #channels: SubscriberChannels;
  readonly #offer: SubscriberOffer;
  readonly #wanted = new Map<string, Wanted>();
  readonly #settings = new Map<string, TrackSetting>();
  readonly #subscriptions = new Map<string, Subscription>();
  /** Tracks that this client has no codec for: not offered again. */
  readonly #refused = new Set<string>();
  readonly #midsToClose: string[] = [];
  #nextMid = 0;
  #offerId = 0;
  /** The offer that is out; undefined when the client has answered. */
  #outstanding: number | undefined;
  /** What was offered and not answered yet; an offer that takes the place of an unanswered one takes this over. */
  #added: Subscription[] = [];
  #replaced: Replacement[] = [];
  #negotiating = false;
  #dirty = false;
  #connected = false;
  #closed = false;

  private constructor(options: SubscriberOptions, transport: WebRtcTransport, channels: SubscriberChannels) {
    this.#options = options;
    this.#transport = transport;
    this.#channels = channels;
    this.#offer = new SubscriberOffer(transport);
  }

  static async create(options: SubscriberOptions): Promise<Subscriber> {
    const transport = await createClientTransport(options.site.router, options.site.worker.server);
    const channels = await SubscriberChannels.create(transport, options.site.data);
    const subscriber = new Subscriber(options, transport, channels);
    logStates(transport, 'subscriber', options.log);
    transport.on('icestatechange', (state) => {
      if (state === 'disconnected') options.onLost('IceConsentExpired');
    });
    transport.on('dtlsstatechange', (state) => {
      if (state === 'connected') options.onConnected();
      if (state === 'failed' || state === 'closed') options.onLost(`Dtls${state === 'failed' ? 'Failed' : 'Closed'}`);
    });
    return subscriber;
  }

  get transport(): WebRtcTransport {
    return this.#transport;
  }

  /** Tracks that are sent, or will be when the client answers. */
  get streams(): number {
    return this.#subscriptions.size;
  }

  /** mediasoup's score of each track that the client gets; undefined where nothing is sent now. */
  get scores(): (number | undefined)[] {
    return [...this.#subscriptions.values()].map(({ negotiated, consumer }) => {
      const silent = !negotiated || consumer.closed || consumer.paused || consumer.producerPaused;
      return silent || consumer.score.producerScore === 0 ? undefined : consumer.score.score;
    });
  }

  /** Makes the first offer: with the data channels, and with what is wanted by then. */
  start(): void {
    this.#dirty = true;
    this.#negotiate();
  }

  want(track: PublishedTrack): void {
    if (this.#closed || this.#wanted.get(track.sid)?.track === track) return;
    this.#wanted.get(track.sid)?.hold?.release();
    const wanted: Wanted = { track, hold: undefined, producer: undefined };
    this.#wanted.set(track.sid, wanted);
    const demand = demandOf(this.#settings.get(track.sid), track.layers);
    wanted.hold = track.hold(this.#options.site, demand, (producer) => {
      wanted.producer = producer;
      if (this.#started) this.#changed();
    });
  }

  unwant(trackSid: string): void {
    this.#settings.delete(trackSid);
    this.#refused.delete(trackSid);
    const wanted = this.#wanted.get(trackSid);
    if (!wanted) return;
    this.#wanted.delete(trackSid);
    wanted.hold?.release();
    if (this.#started) this.#changed();
  }

  /** Says what is shown of a track; kept for when the track is offered. */
  set(trackSid: string, setting: TrackSetting): void {
    this.#settings.set(trackSid, setting);
    this.#tellDemand(trackSid);
    const subscription = this.#subscriptions.get(trackSid);
    if (subscription?.negotiated) this.#applySetting(subscription);
  }

  /** Sends one data message; dropped when the client's channels are not open. */
  sendData(kind: DataKind, payload: Uint8Array): void {
    if (!this.#closed) this.#channels.send(kind, payload);
  }

  /**
   * Takes the answer to an offer.
   * @throws WeirError InvalidSdp
   */
  async handleAnswer(sdp: string, id: number): Promise<void> {
    // An answer to an older offer says nothing of the one that is out. Clients that do not echo ids send 0.
    this.#options.log.debug({ offer: id, outstanding: this.#outstanding }, 'Subscriber answers');
    if (this.#outstanding === undefined || (id !== 0 && id !== this.#outstanding)) return;
    const answer = parseSdp(sdp);
    if (!this.#connected) {
      const dtlsParameters = dtlsParametersOf(answer);
      this.#connected = true;
      await this.#transport.connect({ dtlsParameters }).catch((error: unknown) => {
        throw new WeirError('InvalidSdp', `The answer's DTLS parameters were refused: ${messageOf(error)}.`, {
          cause: error,
        });
      });
    }
    const refused = refusedMids(answer);
    for (const { subscription, before } of this.#replaced.splice(0)) {
      this.#applySetting(subscription);
      before.close();
    }
    for (const subscription of this.#added.splice(0)) {
      if (this.#subscriptions.get(subscription.track.sid) !== subscription) continue;
      if (refused.has(subscription.mid)) {
        this.#refused.add(subscription.track.sid);
        this.#end(subscription);
        this.#options.onRefused(subscription.track);
      } else if (!subscription.consumer.closed) {
        subscription.negotiated = true;
        this.#applySetting(subscription);
        this.#options.onSubscribed(subscription.track);
      }
    }
    this.#outstanding = undefined;
    this.#negotiate();
  }

  /** Offers again with fresh ICE parameters, for a client that came back on another network path. */
  async restartIce(): Promise<void> {
    this.#offer.restartIce(await this.#transport.restartIce());
    this.#outstanding = undefined;
    this.#dirty = true;
    this.#negotiate();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { hold } of this.#wanted.values()) hold?.release();
    this.#channels.close();
    this.#transport.close();
    this.#subscriptions.clear();
    this.#wanted.clear();
  }

  /** The first offer was made or is being made: before it, what is wanted is only noted. */
  get #started(): boolean {
    return this.#offerId > 0 || this.#negotiating;
  }

  #changed(): void {
    this.#dirty = true;
    this.#negotiate();
  }

  #negotiate(): void {
    if (this.#closed || this.#negotiating || this.#outstanding !== undefined || !this.#dirty) return;
    this.#dirty = false;
    this.#negotiating = true;
    this.#round()
      .catch((error: unknown) => {
        if (!this.#closed) this.#options.log.warn({ err: error }, 'Negotiation with a subscriber failed');
      })
      .finally(() => {
        this.#negotiating = false;
        this.#negotiate();
      });
  }

  async #round(): Promise<void> {
    for (const subscription of this.#subscriptions.values()) {
      if (this.#wanted.get(subscription.track.sid)?.track !== subscription.track) this.#end(subscription);
    }
    const ready = [...this.#wanted.values()].filter(({ producer }) => producer && !producer.closed);
    const missing = ready.filter(({ track: { sid } }) => !this.#subscriptions.has(sid) && !this.#refused.has(sid));
    const moved = ready.flatMap((wanted) => {
      const subscription = this.#subscriptions.get(wanted.track.sid);
      return subscription && subscription.consumer.producerId !== wanted.producer?.id ? { wanted, subscription } : [];
    });
    const [adding, replacing] = await Promise.all([
      Promise.allSettled(missing.map((wanted) => this.#add(wanted))),
      Promise.allSettled(moved.map(({ wanted, subscription }) => this.#replace(wanted, subscription))),
    ]);
    if (this.#closed) return;
    // One whose producer closed in between is not there any more; what comes in its place is a change of its own.
    const added = fulfilled(adding).filter(({ consumer }) => !consumer.closed);
    const replaced = fulfilled(replacing);
    for (const subscription of added) this.#subscriptions.set(subscription.track.sid, subscription);
    const closedMids = this.#midsToClose.splice(0);
    for (const { subscription, before } of replaced) {
      this.#offer.replace(before.rtpParameters, subscription.consumer.rtpParameters);
    }
    const offered: OfferedTrack[] = added.map(({ track, consumer, mid }) => ({
      mid,
      kind: consumer.kind,
      rtpParameters: consumer.rtpParameters,
      streamId: streamIdOf(track),
      trackId: track.sid,
    }));
    this.#offerId += 1;
    this.#outstanding = this.#offerId;
    this.#added.push(...added);
    this.#replaced.push(...replaced);
    const counts = { added: added.length, replaced: replaced.length, closed: closedMids.length };
    this.#options.log.debug({ offer: this.#offerId, ...counts }, 'Subscriber gets an offer');
    this.#options.sendOffer(this.#offer.next(offered, closedMids), this.#offerId);
    this.#options.onStreams();
  }

  async #add({ track, producer }: Wanted): Promise<Subscription> {
    const mid = String(this.#nextMid++);
    const consumer = await this.#consume(producer!, mid);
    const subscription: Subscription = { track, mid, consumer, negotiated: false, layer: undefined };
    this.#followLayer(subscription, consumer);
    return subscription;
  }

  /** Fills a section anew. The client goes on with the old stream until it has answered. */
  async #replace({ producer }: Wanted, subscription: Subscription): Promise<Replacement> {
    const consumer = await this.#consume(producer!, subscription.mid);
    const before = subscription.consumer;
    subscription.consumer = consumer;
    this.#followLayer(subscription, consumer);
    return { subscription, before };
  }

  #consume(producer: Producer, mid: string): Promise<Consumer> {
    return this.#transport.consume({
      producerId: producer.id,
      rtpCapabilities: this.#options.site.router.rtpCapabilities,
      mid,
      // Until the client has answered it would drop what comes, the first key frame too.
      paused: true,
    });
  }

  #followLayer(subscription: Subscription, consumer: Consumer): void {
    consumer.on('layerschange', (layers) => {
      if (subscription.consumer !== consumer) return;
      subscription.layer = layers?.spatialLayer;
      this.#tellDemand(subscription.track.sid);
    });
  }

  #tellDemand(trackSid: string): void {
    const wanted = this.#wanted.get(trackSid);
    const layer = this.#subscriptions.get(trackSid)?.layer;
    wanted?.hold?.update(demandOf(this.#settings.get(trackSid), wanted.track.layers, layer));
  }

  #end(subscription: Subscription): void {
    if (this.#subscriptions.get(subscription.track.sid) !== subscription) return;
    this.#subscriptions.delete(subscription.track.sid);
    this.#midsToClose.push(subscription.mid);
    subscription.consumer.close();
    this.#dirty = true;
    this.#options.onStreams();
  }

  #applySetting({ track, consumer }: Subscription): void {
    const setting = this.#settings.get(track.sid);
    const act = async () => {
      if (setting?.disabled) return consumer.pause();
      if (setting && (consumer.type === 'simulcast' || consumer.type === 'svc')) {
        const spatialLayer = spatialLayerOf(setting.quality, spatialLayersOf(consumer.rtpParameters));
        await consumer.setPreferredLayers({ spatialLayer });
      }
      await consumer.resume();
    };
    act().catch((error: unknown) => {
      // Closed in between: nothing to set any more.
      if (!consumer.closed)
        this.#options.log.warn({ err: error, track: track.sid }, 'Track settings could not be applied');
    });
  }
}

function fulfilled<T>(results: readonly PromiseSettledResult<T>[]): T[] {
  return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
}
