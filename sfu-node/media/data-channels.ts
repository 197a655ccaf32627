import type { DataConsumer, DataProducer, WebRtcTransport } from 'mediasoup/types';
import { decodeOpenLabel, encodeOpen, ppid } from './dcep.ts';
import type { DataRouter } from './data-router.ts';

/** Delivery of a data message: reliable and in order, or neither. */
export type DataKind = 'reliable' | 'lossy';

export interface DataReceived {
  readonly kind: DataKind;
  readonly payload: Buffer;
}

/** Most that waits for one client to open its channels, bytes. */
const maxEarlyBytes = 1_048_576;

/** Labels that LiveKit clients know. */
const labels: Record<DataKind, string> = { reliable: '_reliable', lossy: '_lossy' };

/**
 * Streams on which a client's channels are expected. As the DTLS client it numbers them 0, 2, 4 ... in the order in
 * which it made them, which differs by SDK; what each one is, its DCEP OPEN tells.
 */
const clientStreamIds = [0, 2, 4, 6];

/** The data channels that a client opened on its publisher connection. */
export class PublisherChannels {
  readonly #closers: (() => void)[];

  private constructor(closers: (() => void)[]) {
    this.#closers = closers;
  }

  /** Must be done before the client's association is up, or the OPEN messages are lost. */
  static async create(
    transport: WebRtcTransport,
    data: DataRouter,
    onData: (received: DataReceived) => void,
  ): Promise<PublisherChannels> {
    const closers = await Promise.all(
      clientStreamIds.map(async (streamId) => {
        const producer = await transport.produceData({ sctpStreamParameters: { streamId, ordered: true } });
        const consumer = await data.transport.consumeData({ dataProducerId: producer.id });
        let kind: DataKind | undefined;
        consumer.on('message', (payload, payloadProtocol) => {
          if (payloadProtocol === ppid.dcep) {
            const label = decodeOpenLabel(payload);
            kind = label === labels.reliable ? 'reliable' : label === labels.lossy ? 'lossy' : kind;
          } else if (kind) {
            onData({ kind, payload });
          }
        });
        return () => {
          consumer.close();
          producer.close();
        };
      }),
    );
    return new PublisherChannels(closers);
  }

  close(): void {
    for (const close of this.#closers.splice(0)) close();
  }
}

/**
 * The data channels that the server opens on a client's subscriber connection. The client is the DTLS client there too
 * and owns the even stream ids (Pion clients use them), so the server's are made odd: mediasoup numbers a transport's
 * data consumers 0, 1, 2 ... and a placeholder takes each even one.
 */
export class SubscriberChannels {
  readonly #producers: Record<DataKind, DataProducer>;
  readonly #consumers: DataConsumer[];
  /** Reliable messages for a client whose association is not up yet; undefined once it is. */
  #early: Buffer[] | undefined = [];
  #earlyBytes = 0;

  private constructor(producers: Record<DataKind, DataProducer>, consumers: DataConsumer[]) {
    this.#producers = producers;
    this.#consumers = consumers;
  }

  static async create(transport: WebRtcTransport, data: DataRouter): Promise<SubscriberChannels> {
    const [reliable, lossy] = await Promise.all([
      data.transport.produceData({ label: labels.reliable }),
      data.transport.produceData({ label: labels.lossy }),
    ]);
    const placeholder = { dataProducerId: data.placeholder.id };
    // Stream ids are given in the order of the calls, which are made at once.
    const consumers = await Promise.all([
      transport.consumeData(placeholder),
      transport.consumeData({ dataProducerId: reliable.id, ordered: true }),
      transport.consumeData(placeholder),
      transport.consumeData({ dataProducerId: lossy.id, ordered: false, maxRetransmits: 0 }),
    ]);
    const channels = new SubscriberChannels({ reliable, lossy }, consumers);
    if (transport.sctpState === 'connected') channels.#open();
    else transport.on('sctpstatechange', (state) => state === 'connected' && channels.#open());
    return channels;
  }

  /**
   * Sends one message to the client. While its association is not up, reliable messages wait, up to
   * {@link maxEarlyBytes}, and lossy ones are lost. Dropped when the channels are closed.
   */
  send(kind: DataKind, payload: Uint8Array): void {
    const message = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
    if (this.#early) {
      if (kind === 'lossy' || this.#earlyBytes + message.length > maxEarlyBytes) return;
      this.#earlyBytes += message.length;
      this.#early.push(message);
      return;
    }
    const producer = this.#producers[kind];
    if (!producer.closed) producer.send(message, ppid.binary);
  }

  /** An OPEN that is sent before the association is up is lost, and so is every message. */
  #open(): void {
    if (!this.#early) return;
    const { reliable, lossy } = this.#producers;
    if (reliable.closed) return;
    reliable.send(encodeOpen(labels.reliable, { lossy: false }), ppid.dcep);
    lossy.send(encodeOpen(labels.lossy, { lossy: true }), ppid.dcep);
    for (const message of this.#early) reliable.send(message, ppid.binary);
    this.#early = undefined;
  }

  close(): void {
    for (const consumer of this.#consumers) consumer.close();
    for (const producer of Object.values(this.#producers)) producer.close();
  }
}
