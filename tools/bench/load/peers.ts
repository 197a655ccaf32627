import { PeerConnection, RtcpReceivingSession, type Audio, type Track, type Video } from 'node-datachannel';

/** SRTP from the first offer on, which may have no more than data channels in it. */
function configuration(bindAddress: string | undefined) {
  return { iceServers: [], forceMediaTransport: true, ...(bindAddress === undefined ? {} : { bindAddress }) };
}

/** One track as a {@link SubscriberPeer} gets it. */
export interface IncomingTrack {
  /** `TR_...` of the LiveKit protocol. */
  readonly sid: string;
  readonly kind: 'audio' | 'video';
  /** Of the media itself, not of its retransmissions. */
  readonly payloadType: number;
}

/** What the holder of a {@link SubscriberPeer} is told. */
export interface SubscriberHandlers {
  answer: (sdp: string, id: number) => void;
  /** A new section was offered; what it returns is called with each RTP packet of the track's own stream. */
  track: (track: IncomingTrack) => (packet: Buffer) => void;
}

/** The connection on which a simulated client receives: the server offers, this side answers. */
export class SubscriberPeer {
  readonly #peer: PeerConnection;
  readonly #handlers: SubscriberHandlers;
  /** By mid, of the offers so far. */
  readonly #offered = new Map<string, IncomingTrack>();
  /** Kept: a track that is collected as garbage ends. */
  readonly #tracks: Track[] = [];
  #offerId = 0;

  /** @param bindAddress address of this machine to use; none: any */
  constructor(handlers: SubscriberHandlers, bindAddress: string | undefined) {
    this.#handlers = handlers;
    this.#peer = new PeerConnection('subscriber', configuration(bindAddress));
    this.#peer.onLocalDescription((sdp, type) => {
      if (type === 'answer') handlers.answer(sdp, this.#offerId);
    });
    this.#peer.onTrack((track) => this.#take(track));
  }

  /** Answers an offer of the server; the answer is told to the handlers. */
  offer(sdp: string, id: number): void {
    this.#offerId = id;
    for (const track of tracksOf(sdp)) this.#offered.set(track.mid, track);
    this.#peer.setRemoteDescription(sdp, 'offer');
  }

  close(): void {
    this.#peer.close();
  }

  #take(track: Track): void {
    const offered = this.#offered.get(track.mid());
    if (!offered) return;
    this.#tracks.push(track);
    // Sends receiver reports, as every client does.
    track.setMediaHandler(new RtcpReceivingSession());
    const receive = this.#handlers.track(offered);
    track.onMessage((packet) => {
      // Retransmissions, and RTCP, whose packet types start above payload types.
      if ((packet.readUInt8(1) & 0x7f) === offered.payloadType) receive(packet);
    });
  }
}

function tracksOf(sdp: string): (IncomingTrack & { mid: string })[] {
  return sdp.split(/^m=/m).flatMap((section) => {
    const [, kind, port, payloadType] = /^(audio|video) (\d+) \S+ (\d+)/.exec(section) ?? [];
    const mid = /^a=mid:(\S+)/m.exec(section)?.[1];
    const sid = /^a=msid:\S+ (\S+)/m.exec(section)?.[1];
    if ((kind !== 'audio' && kind !== 'video') || port === '0' || !mid || !sid) return [];
    return [{ mid, kind, sid, payloadType: Number(payloadType) }];
  });
}

/** The connection on which a simulated client sends one track: it offers, the server answers. */
export class PublisherPeer {
  readonly #peer: PeerConnection;
  readonly #track: Track;

  /**
   * @param media the section to offer, with its SSRCs
   * @param onOffer told of the offer to send
   * @param onRtcp told of what the server says of the track, compound RTCP
   * @param bindAddress address of this machine to use; none: any
   */
  constructor(
    media: Audio | Video,
    onOffer: (sdp: string) => void,
    onRtcp: (rtcp: Buffer) => void,
    bindAddress: string | undefined,
  ) {
    this.#peer = new PeerConnection('publisher', configuration(bindAddress));
    this.#peer.onLocalDescription((sdp, type) => {
      if (type === 'offer') onOffer(sdp);
    });
    this.#track = this.#peer.addTrack(media);
    this.#track.onMessage(onRtcp);
    this.#peer.setLocalDescription('offer');
  }

  answer(sdp: string): void {
    this.#peer.setRemoteDescription(sdp, 'answer');
  }

  /** Whether packets can be sent. */
  get open(): boolean {
    return this.#track.isOpen();
  }

  /** Sends one RTP or RTCP packet. */
  send(packet: Buffer): void {
    this.#track.sendMessageBinary(packet);
  }

  close(): void {
    this.#peer.close();
  }
}
