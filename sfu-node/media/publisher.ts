import type { MediaKind, Producer, WebRtcTransport } from 'mediasoup/types';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { isSvc } from './codecs.ts';
import { PublisherChannels, type DataReceived } from './data-channels.ts';
import { answerPublisherOffer, type SendingSection } from './sdp.ts';
import { createClientTransport, keyFrameRequestDelayMs, logStates } from './transport.ts';
import type { Site } from './site.ts';

export interface PublisherOptions {
  site: Site;
  log: Logger;
  /** Upper bound of what the client may send, kilobits a second; 0 for none. */
  maxBitrateKbps: number;
  /** A data message came from the client. */
  onData: (received: DataReceived) => void;
  /** The connection is lost and will not come back. */
  onLost: (reason: string) => void;
}

/** What an offer changed: tracks that are sent since, and mids that no longer send. */
export interface OfferOutcome {
  readonly sdp: string;
  readonly produced: readonly { readonly section: SendingSection; readonly producer: Producer }[];
  readonly ended: readonly Producer[];
}

/** Says whether a section that sends may be produced, and with how many spatial layers in one stream (SVC). */
export type Admission = (section: {
  kind: MediaKind;
  cid: string;
  mid: string;
}) => { spatialLayers: number; paused: boolean } | undefined;

/** The connection on which one client sends: the client offers, this side answers. */
export class Publisher {
  readonly #options: PublisherOptions;
  readonly #transport: WebRtcTransport;
  readonly #producers = new Map<string, Producer>();
  #channels: PublisherChannels | undefined;
  #version = 0;
  #dtlsGiven = false;
  #iceUfrag: string | undefined;

  private constructor(options: PublisherOptions, transport: WebRtcTransport) {
    this.#options = options;
    this.#transport = transport;
  }

  static async create(options: PublisherOptions): Promise<Publisher> {
    const transport = await createClientTransport(options.site.router, options.site.worker.server);
    const publisher = new Publisher(options, transport);
    logStates(transport, 'publisher', options.log);
    transport.on('icestatechange', (state) => {
      if (state === 'disconnected') options.onLost('IceConsentExpired');
    });
    transport.on('dtlsstatechange', (state) => {
      if (state === 'failed' || state === 'closed') options.onLost(`Dtls${state === 'failed' ? 'Failed' : 'Closed'}`);
    });
    return publisher;
  }

  get transport(): WebRtcTransport {
    return this.#transport;
  }

  /**
   * Answers an offer: produces every section that is admitted and new, ends what is no longer sent.
   * @throws WeirError InvalidSdp
   */
  async handleOffer(sdp: string, admit: Admission): Promise<OfferOutcome> {
    this.#version += 1;
    let answer = this.#answer(sdp);
    if (this.#iceUfrag !== undefined && answer.iceUfrag !== this.#iceUfrag) {
      await this.#transport.restartIce();
      answer = this.#answer(sdp);
    }
    this.#iceUfrag = answer.iceUfrag;
    this.#channels ??= await PublisherChannels.create(this.#transport, this.#options.site.data, this.#options.onData);
    if (!this.#dtlsGiven) {
      this.#dtlsGiven = true;
      try {
        await this.#transport.connect({ dtlsParameters: answer.dtlsParameters });
        if (this.#options.maxBitrateKbps > 0) {
          await this.#transport.setMaxIncomingBitrate(this.#options.maxBitrateKbps * 1000);
        }
      } catch (error) {
        throw new WeirError('InvalidSdp', `The offer's DTLS parameters were refused: ${messageOf(error)}.`, {
          cause: error,
        });
      }
    }
    const ended = this.#endMissing(answer.sending);
    const produced: { section: SendingSection; producer: Producer }[] = [];
    for (const section of answer.sending) {
      if (this.#producers.has(section.mid)) continue;
      const admission = admit(section);
      if (!admission) continue;
      const producer = await this.#produce(section, admission);
      this.#producers.set(section.mid, producer);
      produced.push({ section, producer });
    }
    return { sdp: answer.sdp, produced, ended };
  }

  /** The client has offered. */
  get offered(): boolean {
    return this.#version > 0;
  }

  /** Media can flow: the client has our answer. */
  get connected(): boolean {
    return this.#transport.dtlsState === 'connected';
  }

  /** mediasoup's score of each track that is sent: that of its best layer; undefined while nothing is known. */
  get scores(): (number | undefined)[] {
    return [...this.#producers.values()]
      .filter(({ paused }) => !paused)
      .map(({ score }) => (score.length > 0 ? Math.max(...score.map((layer) => layer.score)) : undefined));
  }

  close(): void {
    this.#channels?.close();
    this.#transport.close();
    this.#producers.clear();
  }

  #answer(sdp: string) {
    return answerPublisherOffer(sdp, this.#transport, this.#options.site.router.rtpCapabilities, this.#version);
  }

  #endMissing(sending: readonly SendingSection[]): Producer[] {
    const ended: Producer[] = [];
    for (const [mid, producer] of this.#producers) {
      const section = sending.find((candidate) => candidate.mid === mid);
      if (section && section.cid === producer.appData['cid']) continue;
      this.#producers.delete(mid);
      producer.close();
      ended.push(producer);
    }
    return ended;
  }

  async #produce(section: SendingSection, admission: { spatialLayers: number; paused: boolean }): Promise<Producer> {
    const { rtpParameters, kind, cid } = section;
    const [first, ...others] = rtpParameters.encodings ?? [];
    const svc = kind === 'video' && others.length === 0 && isSvc(rtpParameters.codecs[0]?.mimeType ?? '');
    if (first && svc && admission.spatialLayers > 1) first.scalabilityMode = `L${admission.spatialLayers}T3_KEY`;
    try {
      const keyFrameRequestDelay = kind === 'video' ? keyFrameRequestDelayMs : undefined;
      return await this.#transport.produce({
        kind,
        rtpParameters,
        paused: admission.paused,
        keyFrameRequestDelay,
        appData: { cid },
      });
    } catch (error) {
      throw new WeirError('InvalidSdp', `Section ${section.mid} was refused: ${messageOf(error)}.`, { cause: error });
    }
  }
}
