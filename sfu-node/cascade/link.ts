import type { Consumer, DirectTransport, PlainTransport, Producer, TransportListenInfo } from 'mediasoup/types';
import { LinkState } from '#proto/weir/control/v1/control.ts';
import type { LinkEnd } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import { probeCodec } from '../media/codecs.ts';
import type { Site } from '../media/site.ts';
import {
  decodeProbe,
  encodeProbe,
  ProbeMeter,
  probeIntervalMs,
  probeSilenceMs,
  type PathFigures,
  type Probe,
} from './probe.ts';

/** AES-GCM with 256 bits authenticates and encrypts; both ends are ours, so there is nothing to negotiate. */
const cryptoSuite = 'AEAD_AES_256_GCM';
/** SSRC of a probe within this process; another one goes over the link. */
const localProbeSsrc = 1;
/** How often the transport's counters are read, milliseconds. */
const countIntervalMs = 500;
/** Probes come from processes that may stall; while packets of media came within this, milliseconds, the link is not down. */
const mediaSilenceMs = 700;
/** So many probes in a row say that nothing arrives at the other end before that is believed. */
const believedAfter = 2;

/** Where the halves of links on this node listen, and where their peers find them. */
export interface LinkListen {
  /** Address that is bound. */
  readonly ip: string;
  /** IP literal that peers are told; `ip` when it is not given. */
  readonly announcedAddress?: string;
  readonly ports?: { readonly min: number; readonly max: number };
  /** What one link may carry, megabits a second: it is relieved when it uses more than 0.7 of that. */
  readonly capacityMbps: number;
}

export interface LinkOptions {
  readonly id: string;
  /** Name of the node at the other end. */
  readonly peer: string;
  readonly site: Site;
  readonly listen: LinkListen;
  readonly clock: Clock;
  /** A probe came that answers one of ours: the link carries packets both ways. */
  readonly onUp: () => void;
  /** State changed in another way, or figures are worth telling. */
  readonly onChange: () => void;
}

/** What is known of a link now. */
export interface LinkFigures extends PathFigures {
  /** Sent and received, kilobits a second. */
  readonly sentKbps: number;
  readonly receivedKbps: number;
}

/**
 * This node's half of a cascade link: one UDP port, SRTP both ways, and probes that tell whether packets cross. Packets
 * from any other address than the peer's are dropped by the transport. A half is connected once; another path or another
 * key is another link.
 */
export class Link {
  readonly id: string;
  readonly peer: string;
  readonly transport: PlainTransport;
  readonly site: Site;
  readonly #options: LinkOptions;
  readonly #direct: DirectTransport;
  readonly #probes: Producer;
  readonly #probeConsumer: Consumer;
  readonly #meter = new ProbeMeter();
  readonly #madeAt: number;
  #upAt: number | undefined;
  /** Nothing comes any more, or nothing arrives at the other end. */
  #silent = false;
  #sequence = 0;
  #sentKbps = 0;
  #receivedKbps = 0;
  #counters: { at: number; sent: number; received: number; media: number } | undefined;
  #probedAt: number | undefined;
  /** When RTP last came, as the transport's counters tell. */
  #mediaAt = 0;
  /** Verdicts on the link are passed from here on. */
  #judgeFrom = 0;
  /** Probes in a row that say that nothing arrives at the other end. */
  #unheard = 0;
  #cancelProbe: () => void = () => undefined;
  #cancelRate: () => void = () => undefined;
  #closed = false;

  private constructor(
    options: LinkOptions,
    transport: PlainTransport,
    direct: DirectTransport,
    probes: Producer,
    probeConsumer: Consumer,
  ) {
    this.#options = options;
    this.id = options.id;
    this.peer = options.peer;
    this.site = options.site;
    this.transport = transport;
    this.#direct = direct;
    this.#probes = probes;
    this.#probeConsumer = probeConsumer;
    this.#madeAt = options.clock.now();
  }

  /** Opens a port. @throws WeirError CascadePortsInUse */
  static async create(options: LinkOptions): Promise<Link> {
    const { site, listen } = options;
    const listenInfo: TransportListenInfo = {
      protocol: 'udp',
      ip: listen.ip,
      announcedAddress: listen.announcedAddress,
      portRange: listen.ports ? { ...listen.ports } : undefined,
    };
    const transport = await site.router
      .createPlainTransport({ listenInfo, rtcpMux: true, enableSrtp: true, srtpCryptoSuite: cryptoSuite })
      .catch((error: unknown) => {
        const where = listen.ports ? `ports ${listen.ports.min}-${listen.ports.max}` : 'any port';
        throw new WeirError(
          'CascadePortsInUse',
          `No cascade link can listen on ${listen.ip}, ${where}: ${messageOf(error)}. Free ports, or set WEIR_CASCADE_PORTS to a wider range.`,
          { cause: error, where: 'WEIR_CASCADE_PORTS' },
        );
      });
    let direct: DirectTransport | undefined;
    try {
      direct = await site.router.createDirectTransport();
      const probes = await direct.produce({
        kind: 'audio',
        rtpParameters: { codecs: [probeRtpCodec], encodings: [{ ssrc: localProbeSsrc }] },
      });
      const consumer = await transport.consume({
        producerId: probes.id,
        rtpCapabilities: site.router.rtpCapabilities,
        enableRtx: false,
      });
      return new Link(options, transport, direct, probes, consumer);
    } catch (error) {
      direct?.close();
      transport.close();
      throw error;
    }
  }

  /** What the other end has to know of this half. Has a key in it: never logged. */
  get end(): LinkEnd {
    const { tuple, srtpParameters } = this.transport;
    return {
      ip: tuple.localAddress,
      port: tuple.localPort,
      cryptoSuite,
      key: srtpParameters?.keyBase64 ?? '',
      probeSsrc: this.#probeConsumer.rtpParameters.encodings?.[0]?.ssrc ?? 0,
    };
  }

  /**
   * Ties this half to the other one and begins to probe.
   * @throws WeirError InvalidLinkEnd when the other end's word cannot be used
   */
  async connect(other: LinkEnd): Promise<void> {
    if (other.cryptoSuite !== cryptoSuite) {
      throw new WeirError('InvalidLinkEnd', `Node ${this.peer} offers ${other.cryptoSuite}; links use ${cryptoSuite}.`);
    }
    try {
      await this.transport.connect({
        ip: other.ip,
        port: other.port,
        srtpParameters: { cryptoSuite, keyBase64: other.key },
      });
      const incoming = await this.transport.produce({
        kind: 'audio',
        rtpParameters: { codecs: [probeRtpCodec], encodings: [{ ssrc: other.probeSsrc }] },
      });
      const consumer = await this.#direct.consume({
        producerId: incoming.id,
        rtpCapabilities: this.#options.site.router.rtpCapabilities,
      });
      consumer.on('rtp', (packet) => this.#onProbe(packet));
    } catch (error) {
      throw new WeirError('InvalidLinkEnd', `Node ${this.peer} cannot be linked to: ${messageOf(error)}.`, {
        cause: error,
      });
    }
    this.#probe();
    this.#measureRate();
  }

  get closed(): boolean {
    return this.#closed;
  }

  get state(): LinkState {
    if (this.#upAt === undefined) return LinkState.OPENING;
    return this.#silent ? LinkState.DOWN : LinkState.UP;
  }

  get up(): boolean {
    return !this.#closed && this.#upAt !== undefined && !this.#silent;
  }

  /** Since the link came up, or was made, milliseconds. */
  get ageMs(): number {
    return this.#options.clock.now() - (this.#upAt ?? this.#madeAt);
  }

  get figures(): LinkFigures {
    return { ...this.#meter.figures, sentKbps: this.#sentKbps, receivedKbps: this.#receivedKbps };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelProbe();
    this.#cancelRate();
    this.transport.close();
    this.#direct.close();
  }

  #onProbe(packet: Buffer): void {
    const probe = decodeProbe(payloadOf(packet));
    if (!probe || this.#closed) return;
    this.#meter.take(probe, this.#options.clock.now());
    const unheard = this.#isUnheard(probe);
    if (this.#upAt === undefined) {
      // Answered at once, so that a link is up after a round trip. The first answer proves both ways.
      this.#sendProbe();
      if (probe.echo === 0) return;
      this.#upAt = this.#options.clock.now();
      this.#options.onUp();
    } else if (this.#silent !== unheard) {
      this.#silent = unheard;
      this.#options.onChange();
    }
  }

  #probe(): void {
    if (this.#closed) return;
    const { clock } = this.#options;
    const now = clock.now();
    // This process stood still: what it did not hear, and was not heard of, in that time says nothing of the link.
    if (this.#probedAt !== undefined && now - this.#probedAt > 3 * probeIntervalMs)
      this.#judgeFrom = now + probeSilenceMs;
    this.#probedAt = now;
    this.#sendProbe();
    const lastAt = Math.max((this.#meter.heardAt ?? now) + probeSilenceMs, this.#mediaAt + mediaSilenceMs);
    if (this.#upAt !== undefined && !this.#silent && now > Math.max(lastAt, this.#judgeFrom)) {
      this.#silent = true;
      this.#options.onChange();
    }
    this.#cancelProbe = clock.after(probeIntervalMs, () => this.#probe());
  }

  /** Whether the other end hears nothing of this one: the way there is down, though the way here is not. */
  #isUnheard({ echo, heldMs }: Probe): boolean {
    const says = echo > 0 && heldMs > probeSilenceMs && this.#options.clock.now() > this.#judgeFrom;
    this.#unheard = says ? this.#unheard + 1 : 0;
    return this.#unheard >= believedAfter;
  }

  #sendProbe(): void {
    if (this.#closed || this.#probes.closed) return;
    const payload = encodeProbe(this.#meter.next(this.#sequence, this.#options.clock.now()));
    this.#probes.send(rtpPacket(this.#sequence, payload));
    this.#sequence += 1;
  }

  #measureRate(): void {
    const measure = async () => {
      const [stats] = await this.transport.getStats();
      if (!stats) return;
      const now = {
        ...{ at: this.#options.clock.now(), sent: stats.bytesSent, received: stats.bytesReceived },
        // Without what came from elsewhere and was dropped.
        media: stats.rtpBytesReceived,
      };
      const before = this.#counters;
      this.#counters = now;
      if (!before || now.at <= before.at) return;
      if (now.media > before.media) this.#mediaAt = now.at;
      this.#sentKbps = ((now.sent - before.sent) * 8) / (now.at - before.at);
      this.#receivedKbps = ((now.received - before.received) * 8) / (now.at - before.at);
    };
    const again = () => {
      measure()
        .catch(() => undefined) // Closed while it was asked: there is no rate any more.
        .finally(() => {
          if (!this.#closed) this.#cancelRate = this.#options.clock.after(countIntervalMs, again);
        });
    };
    again();
  }
}

const probeRtpCodec = {
  mimeType: probeCodec.mimeType,
  payloadType: probeCodec.preferredPayloadType,
  clockRate: probeCodec.clockRate,
  channels: probeCodec.channels,
  parameters: probeCodec.parameters,
  // Nobody asks for a lost probe again: it is to be seen as lost.
  rtcpFeedback: [],
};

const rtpHeaderBytes = 12;

/** One RTP packet (RFC 3550, 5.1) with the probe's SSRC within this process. */
function rtpPacket(sequence: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(rtpHeaderBytes);
  header.writeUInt8(0x80, 0);
  header.writeUInt8(probeCodec.preferredPayloadType, 1);
  header.writeUInt16BE(sequence & 0xffff, 2);
  header.writeUInt32BE((sequence * ((probeCodec.clockRate * probeIntervalMs) / 1000)) >>> 0, 4);
  header.writeUInt32BE(localProbeSsrc, 8);
  return Buffer.concat([header, payload]);
}

/** What follows the header, its CSRCs and its extension (RFC 3550, 5.3.1). */
function payloadOf(packet: Buffer): Buffer {
  let offset = rtpHeaderBytes + 4 * ((packet[0] ?? 0) & 0x0f);
  if (((packet[0] ?? 0) & 0x10) !== 0 && packet.length >= offset + 4) offset += 4 + 4 * packet.readUInt16BE(offset + 2);
  return packet.subarray(offset);
}
