import type { VideoQuality } from '@livekit/protocol';
import type { Consumer, Router, WebRtcServer, WebRtcTransport } from 'mediasoup/types';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { SubscriberChannels, type DataKind } from './data-channels.ts';
import type { DataRouter } from './data-router.ts';
import { dtlsParametersOf, parseSdp, refusedMids, SubscriberOffer, type OfferedTrack } from './sdp.ts';
import { spatialLayerOf, streamIdOf, type PublishedTrack } from './track.ts';
import { createClientTransport } from './transport.ts';

/** What a subscriber wants of one track. */
export interface TrackDemand {
  /** Nothing is sent while true. */
  readonly disabled: boolean;
  /** Highest quality that is shown. */
  readonly quality: VideoQuality;
}

export interface SubscriberOptions {
  router: Router;
  server: WebRtcServer;
  data: DataRouter;
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

/** A track that was offered: its consumer and its section. */
interface Subscription {
  readonly track: PublishedTrack;
  readonly consumer: Consumer;
  readonly mid: string;
  /** The client answered: it can decode what is sent. */
  negotiated: boolean;
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
 */
export class Subscriber {
  readonly #options: SubscriberOptions;
  readonly #transport: WebRtcTransport;
  readonly #channels: SubscriberChannels;
  readonly #offer: SubscriberOffer;
  readonly #wanted = new Map<string, PublishedTrack>();
  readonly #demands = new Map<string, TrackDemand>();
  readonly #subscriptions = new Map<string, Subscription>();
  /** Tracks that this client has no codec for: not offered again. */
  readonly #refused = new Set<string>();
  readonly #midsToClose: string[] = [];
  #nextMid = 0;
  #offerId = 0;
  #outstanding: { id: number; added: Subscription[] } | undefined;
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
    const transport = await createClientTransport(options.router, options.server);
    const channels = await SubscriberChannels.create(transport, options.data);
    const subscriber = new Subscriber(options, transport, channels);
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

  /** Makes the first offer: with the data channels, and with what is wanted by then. */
  start(): void {
    this.#dirty = true;
    this.#negotiate();
  }

  want(track: PublishedTrack): void {
    this.#wanted.set(track.sid, track);
    if (this.#offerId > 0 || this.#negotiating) this.#changed();
  }

  unwant(trackSid: string): void {
    this.#demands.delete(trackSid);
    this.#refused.delete(trackSid);
    if (this.#wanted.delete(trackSid)) this.#changed();
  }

  /** Says what is shown of a track; kept for when the track is offered. */
  setDemand(trackSid: string, demand: TrackDemand): void {
    this.#demands.set(trackSid, demand);
    const subscription = this.#subscriptions.get(trackSid);
    if (subscription?.negotiated) this.#applyDemand(subscription);
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
    const outstanding = this.#outstanding;
    // An answer to an older offer says nothing of the one that is out. Clients that do not echo ids send 0.
    if (!outstanding || (id !== 0 && id !== outstanding.id)) return;
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
    for (const subscription of outstanding.added) {
      if (refused.has(subscription.mid)) {
        this.#refused.add(subscription.track.sid);
        this.#end(subscription);
        this.#options.onRefused(subscription.track);
      } else if (!subscription.consumer.closed) {
        subscription.negotiated = true;
        this.#applyDemand(subscription);
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
    this.#channels.close();
    this.#transport.close();
    this.#subscriptions.clear();
    this.#wanted.clear();
  }

  #changed(): void {
    this.#dirty = true;
    this.#negotiate();
  }

  #negotiate(): void {
    if (this.#closed || this.#negotiating || this.#outstanding || !this.#dirty) return;
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
      if (this.#wanted.get(subscription.track.sid) !== subscription.track) this.#end(subscription);
    }
    const missing = [...this.#wanted.values()].filter(
      ({ sid, producer }) => !this.#subscriptions.has(sid) && !this.#refused.has(sid) && !producer.closed,
    );
    const results = await Promise.allSettled(missing.map((track) => this.#consume(track)));
    if (this.#closed) return;
    const added: Subscription[] = [];
    for (const result of results) {
      // A track whose producer closed in between is no longer wanted either; the next round sees that.
      if (result.status === 'fulfilled' && !result.value.consumer.closed) added.push(result.value);
    }
    for (const subscription of added) this.#subscriptions.set(subscription.track.sid, subscription);
    const closedMids = this.#midsToClose.splice(0);
    const offered: OfferedTrack[] = added.map(({ track, consumer, mid }) => ({
      mid,
      kind: consumer.kind,
      rtpParameters: consumer.rtpParameters,
      streamId: streamIdOf(track),
      trackId: track.sid,
    }));
    this.#offerId += 1;
    this.#outstanding = { id: this.#offerId, added };
    this.#options.sendOffer(this.#offer.next(offered, closedMids), this.#offerId);
    this.#options.onStreams();
  }

  async #consume(track: PublishedTrack): Promise<Subscription> {
    const mid = String(this.#nextMid++);
    const consumer = await this.#transport.consume({
      producerId: track.producer.id,
      rtpCapabilities: this.#options.router.rtpCapabilities,
      mid,
      // Until the client has answered it would drop what comes, the first key frame too.
      paused: true,
    });
    const subscription = { track, consumer, mid, negotiated: false };
    consumer.once('producerclose', () => {
      this.#end(subscription);
      if (this.#wanted.get(track.sid) === track) this.#wanted.delete(track.sid);
      this.#changed();
    });
    return subscription;
  }

  #end(subscription: Subscription): void {
    if (this.#subscriptions.get(subscription.track.sid) !== subscription) return;
    this.#subscriptions.delete(subscription.track.sid);
    this.#midsToClose.push(subscription.mid);
    subscription.consumer.close();
    this.#dirty = true;
    this.#options.onStreams();
  }

  #applyDemand({ track, consumer }: Subscription): void {
    const demand = this.#demands.get(track.sid);
    const act = async () => {
      if (demand?.disabled) return consumer.pause();
      if (demand && consumer.kind === 'video' && (consumer.type === 'simulcast' || consumer.type === 'svc')) {
        const layers = spatialLayers(track);
        await consumer.setPreferredLayers({ spatialLayer: spatialLayerOf(demand.quality, layers) });
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

function spatialLayers({ producer }: PublishedTrack): number {
  const encodings = producer.rtpParameters.encodings ?? [];
  if (encodings.length > 1) return encodings.length;
  const mode = /^[LS](\d)/.exec(encodings[0]?.scalabilityMode ?? '');
  return mode ? Number(mode[1]) : 1;
}
