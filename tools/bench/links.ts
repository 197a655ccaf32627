import type {
  Consumer,
  PipeTransport,
  PlainTransport,
  Producer,
  Router,
  RtpCapabilities,
  RtpParameters,
  TransportListenInfo,
} from 'mediasoup/types';

/** How a link carries streams. */
export type LinkForm = 'pipe' | 'selective';

const listenInfo: TransportListenInfo = { protocol: 'udp', ip: '127.0.0.1' };
const cryptoSuite = 'AEAD_AES_256_GCM';
const DEPENDENCY_DESCRIPTOR = 'https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension';
/** Header extensions that only make sense on one transport, or make mediasoup estimate its bandwidth. */
const LEFT_OUT = new Set([
  'urn:ietf:params:rtp-hdrext:sdes:mid',
  'http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time',
  'http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01',
]);

/** One end of a link. */
export type LinkEnd = PipeTransport | PlainTransport;

/** One stream that crosses a link. */
export interface LinkedStream {
  /** Consumers at the near end: one a layer in the selective form, lowest first; one for all in a pipe. */
  consumers: Consumer[];
  /** The producer at the far end. */
  producer: Producer;
}

/** A media link between routers of two workers. */
export class Link {
  readonly near: LinkEnd;
  readonly far: LinkEnd;
  readonly #form: LinkForm;
  readonly #capabilities: RtpCapabilities;

  private constructor(form: LinkForm, near: LinkEnd, far: LinkEnd, capabilities: RtpCapabilities) {
    this.#form = form;
    this.near = near;
    this.far = far;
    this.#capabilities = capabilities;
  }

  /** Opens both ends on loopback, encrypted. */
  static async open(form: LinkForm, nearRouter: Router, farRouter: Router): Promise<Link> {
    const ends = await Promise.all([createEnd(form, nearRouter), createEnd(form, farRouter)]);
    const [near, far] = ends;
    await Promise.all([connect(near, far), connect(far, near)]);
    return new Link(form, near, far, linkCapabilities(nearRouter.rtpCapabilities));
  }

  /** Lets a stream cross. In the selective form no layer crosses before its consumer is resumed. */
  async carry(producer: Producer): Promise<LinkedStream> {
    return this.#form === 'pipe' ? this.#carryWhole(producer) : this.#carryLayers(producer);
  }

  close(): void {
    this.near.close();
    this.far.close();
  }

  async #carryWhole({ id, kind }: Producer): Promise<LinkedStream> {
    const consumer = await this.near.consume({ producerId: id, rtpCapabilities: this.#capabilities });
    const producer = await this.far.produce({ kind, rtpParameters: consumer.rtpParameters });
    return { consumers: [consumer], producer };
  }

  async #carryLayers(source: Producer): Promise<LinkedStream> {
    const layers = source.kind === 'video' ? (source.rtpParameters.encodings?.length ?? 1) : 1;
    const consumers = await Promise.all(
      Array.from({ length: layers }, (_, spatialLayer) =>
        this.near.consume({
          producerId: source.id,
          rtpCapabilities: this.#capabilities,
          paused: true,
          ...(layers > 1 ? { preferredLayers: { spatialLayer } } : {}),
        }),
      ),
    );
    const producer = await this.far.produce({
      kind: source.kind,
      rtpParameters: joinedParameters(consumers, source),
      keyFrameRequestDelay: 350,
    });
    return { consumers, producer };
  }
}

/** Router capabilities less what has no place on a link: feedback and extensions of bandwidth estimation, and MID. */
export function linkCapabilities(router: RtpCapabilities): RtpCapabilities {
  return {
    codecs: router.codecs?.map((codec) => ({
      ...codec,
      rtcpFeedback: codec.rtcpFeedback?.filter(({ type }) => type === 'nack' || type === 'ccm'),
    })),
    headerExtensions: router.headerExtensions?.filter(({ uri }) => !LEFT_OUT.has(uri)),
  };
}

/** Parameters with which consumers of single layers, lowest first, are one simulcast producer at the far end. */
export function joinedParameters(consumers: readonly Consumer[], source: Producer): RtpParameters {
  const [first] = consumers;
  if (!first) throw new RangeError('a stream needs at least one consumer to cross a link');
  const { codecs, headerExtensions = [], msid } = first.rtpParameters;
  const dependencyDescriptor = source.rtpParameters.headerExtensions?.some(({ uri }) => uri === DEPENDENCY_DESCRIPTOR);
  return {
    codecs,
    // mediasoup passes the descriptor on under id 7 but does not announce it to ordinary consumers.
    headerExtensions: dependencyDescriptor
      ? [...headerExtensions, { uri: DEPENDENCY_DESCRIPTOR, id: 7 }]
      : headerExtensions,
    encodings: consumers.map(({ rtpParameters }, index) => ({
      ...rtpParameters.encodings?.[0],
      // Every consumer's own mode speaks of all layers ("L3T1"); that of one simulcast stream is the source's.
      scalabilityMode: source.rtpParameters.encodings?.[index]?.scalabilityMode,
    })),
    rtcp: { cname: first.rtpParameters.rtcp?.cname, reducedSize: true },
    msid,
  };
}

function createEnd(form: LinkForm, router: Router): Promise<LinkEnd> {
  return form === 'pipe'
    ? router.createPipeTransport({ listenInfo, enableSrtp: true, enableRtx: true })
    : router.createPlainTransport({
        listenInfo,
        rtcpMux: true,
        comedia: false,
        enableSrtp: true,
        srtpCryptoSuite: cryptoSuite,
      });
}

async function connect(end: LinkEnd, peer: LinkEnd): Promise<void> {
  const { localAddress, localPort } = peer.tuple;
  await end.connect({ ip: localAddress, port: localPort, srtpParameters: peer.srtpParameters });
}
