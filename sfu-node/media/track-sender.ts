import type {
  Consumer,
  MediaKind,
  PlainTransport,
  Producer,
  Router,
  RtpCapabilities,
  RtpParameters,
} from 'mediasoup/types';
import { spatialLayersOf } from './codecs.ts';
import { highestLayer, layersToSend, sameDemand, type LayerDemand } from './demand.ts';
import { keyFrameRequestDelayMs } from './transport.ts';

/** How a track arrives at the far end of a transport pair: what to produce there. */
export interface TrackSupply {
  readonly kind: MediaKind;
  readonly rtpParameters: RtpParameters;
}

/** No bandwidth estimation between routers: a link is watched and relieved as a whole. */
const linkFeedback = new Set(['nack', 'ccm']);
const clientExtensions = new Set([
  'urn:ietf:params:rtp-hdrext:sdes:mid',
  'http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time',
  'http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01',
]);
const dependencyDescriptor = 'https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension';
/** mediasoup's own id of it in every router. */
const dependencyDescriptorId = 7;

/**
 * Sends one track to another router over a transport pair, in the layers that are wanted there and no others.
 *
 * A pipe (mediasoup's PipeTransport) carries every layer always. Here each simulcast layer has a consumer of its own,
 * pinned to it and paused while nobody behind wants that layer; the far end takes their streams for the layers of one
 * producer. A track in one stream (audio, SVC, one layer) has one consumer and crosses whole or not at all: of the K-SVC
 * that browsers send, an ordinary consumer passes on one layer alone, so for SVC it is a pipe's.
 */
export class TrackSender {
  readonly supply: TrackSupply;
  readonly #producer: Producer;
  /** One a layer, lowest first; one alone for a track in one stream. */
  readonly #consumers: readonly Consumer[];
  readonly #onFailure: (error: unknown) => void;
  #demand: LayerDemand | undefined;
  #cap = 31;
  /** Layers that are sent, as bits. */
  #sent = 0;
  #queue: Promise<void> = Promise.resolve();
  readonly #update = () => this.#apply();

  private constructor(producer: Producer, consumers: readonly Consumer[], onFailure: (error: unknown) => void) {
    this.#producer = producer;
    this.#consumers = consumers;
    this.#onFailure = onFailure;
    this.supply = { kind: producer.kind, rtpParameters: joined(producer, consumers) };
    producer.on('score', this.#update);
  }

  /** Nothing is sent before {@link setDemand} asks for it. */
  static async create(
    transport: PlainTransport,
    router: Router,
    producer: Producer,
    onFailure: (error: unknown) => void,
  ): Promise<TrackSender> {
    const rtpCapabilities = linkCapabilities(router.rtpCapabilities);
    const layers = Math.max(1, producer.rtpParameters.encodings?.length ?? 1);
    const made = await Promise.allSettled(
      Array.from({ length: layers }, (_, spatialLayer) =>
        transport.consume({
          producerId: producer.id,
          rtpCapabilities,
          paused: true,
          enableRtx: true,
          ...(layers > 1 ? { preferredLayers: { spatialLayer } } : { pipe: isSvc(producer) }),
        }),
      ),
    );
    const consumers = made.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    const failed = made.find((result) => result.status === 'rejected');
    if (failed || producer.closed) {
      for (const consumer of consumers) consumer.close();
      throw failed?.reason ?? new Error('the producer was closed');
    }
    return new TrackSender(producer, consumers, onFailure);
  }

  get closed(): boolean {
    return this.#consumers.some(({ closed }) => closed);
  }

  /** Highest layer (0 is the lowest) that could be sent. */
  get top(): number {
    return this.#consumers.length - 1;
  }

  /** Highest layer that is wanted and could be sent; -1 while nothing is wanted. */
  get wantedTop(): number {
    const demand = this.#demand;
    return demand && !demand.paused ? Math.min(this.top, highestLayer(demand.layers)) : -1;
  }

  /**
   * Packets that were sent, and those of them that the other end reported as lost, since this sender was made; and the
   * round trip time of its reports, milliseconds, undefined before there is one.
   */
  async counters(): Promise<{ sent: number; lost: number; rttMs: number | undefined }> {
    const stats = await Promise.all(this.#consumers.map((consumer) => consumer.getStats()));
    const own = stats.flat().filter(({ type }) => type === 'outbound-rtp');
    const sum = (pick: (entry: (typeof own)[number]) => number) => own.reduce((total, entry) => total + pick(entry), 0);
    const rtts = own.flatMap(({ roundTripTime = 0 }) => (roundTripTime > 0 ? [roundTripTime] : []));
    return {
      sent: sum(({ packetCount }) => packetCount),
      lost: sum(({ packetsLost }) => packetsLost),
      rttMs: rtts.length > 0 ? Math.min(...rtts) : undefined,
    };
  }

  setDemand(demand: LayerDemand | undefined): void {
    if (sameDemand(demand, this.#demand)) return;
    this.#demand = demand;
    this.#apply();
  }

  /** Sends no layer above this one (0 is the lowest), whatever is wanted; -1 sends nothing. */
  setCap(layer: number): void {
    if (layer === this.#cap) return;
    this.#cap = layer;
    this.#apply();
  }

  close(): void {
    this.#producer.off('score', this.#update);
    for (const consumer of this.#consumers) consumer.close();
  }

  #apply(): void {
    const wanted = this.#cap < 0 ? 0 : this.#layersToSend();
    const before = this.#sent;
    if (wanted === before) return;
    this.#sent = wanted;
    const on = this.#consumers.filter((_, layer) => (wanted & ~before & (1 << layer)) !== 0);
    const off = this.#consumers.filter((_, layer) => (before & ~wanted & (1 << layer)) !== 0);
    this.#act(async () => {
      await Promise.all([...on.map((consumer) => consumer.resume()), ...off.map((consumer) => consumer.pause())]);
    });
  }

  /** Layers to send now, as bits; a track in one stream is its lowest. */
  #layersToSend(): number {
    const demand = this.#demand;
    if (!demand || demand.paused) return 0;
    return this.#consumers.length > 1 ? layersToSend(demand, this.#alive(), this.#cap) : 1;
  }

  /** Layers that the producer gets now, as bits. A consumer that is resumed before its layer comes sends a lower one twice. */
  #alive(): number {
    return this.#producer.score.reduce(
      (bits, { encodingIdx, score }) => (score > 0 ? bits | (1 << encodingIdx) : bits),
      0,
    );
  }

  /** One after the other, so that the last word holds. */
  #act(work: () => Promise<void>): void {
    this.#queue = this.#queue.then(work).catch((error: unknown) => {
      if (!this.closed) this.#onFailure(error);
    });
  }
}

/** Takes in a track on the far transport of a pair. */
export function receiveTrack(transport: PlainTransport, { kind, rtpParameters }: TrackSupply): Promise<Producer> {
  const keyFrameRequestDelay = kind === 'video' ? keyFrameRequestDelayMs : undefined;
  return transport.produce({ kind, rtpParameters, keyFrameRequestDelay });
}

/** Whether a producer sends several spatial layers in one stream. */
function isSvc({ rtpParameters }: Producer): boolean {
  return rtpParameters.encodings?.length === 1 && spatialLayersOf(rtpParameters) > 1;
}

/** The streams of a producer's consumers as the layers of one producer. */
function joined({ rtpParameters }: Producer, consumers: readonly Consumer[]): RtpParameters {
  const [first] = consumers;
  if (!first) throw new Error('a track has at least one stream');
  const { codecs, headerExtensions = [], rtcp } = first.rtpParameters;
  // Consumers never name it, though the packets of an SVC stream carry it: without it the far end sees no layers.
  const isNamed = headerExtensions.some(({ uri }) => uri === dependencyDescriptor);
  const has = rtpParameters.headerExtensions?.some(({ uri }) => uri === dependencyDescriptor) ?? false;
  const descriptor = has && !isNamed ? [{ uri: dependencyDescriptor, id: dependencyDescriptorId } as const] : [];
  const encodings = consumers.map((consumer, layer) => {
    const { ssrc, rtx, dtx } = consumer.rtpParameters.encodings?.[0] ?? {};
    const { scalabilityMode } = rtpParameters.encodings?.[layer] ?? {};
    return { ssrc, ...(rtx && { rtx }), ...(dtx && { dtx }), ...(scalabilityMode && { scalabilityMode }) };
  });
  return {
    codecs,
    headerExtensions: [...headerExtensions, ...descriptor],
    rtcp: { cname: rtcp?.cname, reducedSize: true },
    encodings,
  };
}

function linkCapabilities({ codecs = [], headerExtensions = [] }: RtpCapabilities): RtpCapabilities {
  return {
    codecs: codecs.map((codec) => ({
      ...codec,
      rtcpFeedback: codec.rtcpFeedback?.filter(({ type }) => linkFeedback.has(type)),
    })),
    headerExtensions: headerExtensions.filter(({ uri }) => !clientExtensions.has(uri)),
  };
}
