import {
  AddTrackRequest,
  LeaveRequest,
  SessionDescription,
  TrackSource,
  TrackType,
  UpdateTrackSettings,
  VideoLayer,
  VideoQuality,
  type SignalResponse,
} from '@livekit/protocol';
import { Audio, Video } from 'node-datachannel';
import { PublisherPeer, SubscriberPeer, type IncomingTrack } from './peers.ts';
import { TrackReception } from './reception.ts';
import { SignalConnection } from './signal-connection.ts';
import { camera, microphone, startCamera, startMicrophone, type OnSent, type Source, type Turns } from './sources.ts';
import { readStamped, type StampedPacket } from './stamp.ts';

/** What a simulated client publishes. */
export type Publishes = { source: 'microphone'; turns: Turns } | { source: 'camera' };

export interface SimulatedClientOptions {
  /** WebSocket URL of the node to join through. */
  url: string;
  token: string;
  publishes?: Publishes;
  /** Layer of video that it shows. Default: the lowest. */
  shows?: 'low' | 'high';
  /** Address of this machine to send media from. Default: any, of IPv4 and IPv6. */
  bindAddress?: string;
  /** Told of each packet that it publishes. */
  onSent: OnSent;
  /** Told of each packet that comes. */
  onReceived: (packet: StampedPacket) => void;
  /** The first packet of one more track has come. */
  onFirstPacket: () => void;
}

/**
 * A participant without a browser: LiveKit's signalling, ICE and DTLS-SRTP as every client speaks them, and media that
 * nobody encodes or decodes. It takes every track, of video one layer, and asks for nothing again that is lost.
 */
export class SimulatedClient {
  /** Tracks that packets came of, by sid. */
  readonly tracks = new Map<string, TrackReception>();
  readonly #options: SimulatedClientOptions;
  readonly #subscriber: SubscriberPeer;
  #publisher: PublisherPeer | undefined;
  #source: Source | undefined;
  #signal: SignalConnection | undefined;
  #closed = false;

  private constructor(options: SimulatedClientOptions) {
    this.#options = options;
    this.#subscriber = new SubscriberPeer(
      {
        answer: (sdp, id) => {
          this.#signal?.send({ case: 'answer', value: new SessionDescription({ type: 'answer', sdp, id }) });
        },
        track: (track) => this.#takeTrack(track),
      },
      this.#options.bindAddress,
    );
  }

  /** Resolves when the join is answered; media comes later. */
  static async join(options: SimulatedClientOptions): Promise<SimulatedClient> {
    const client = new SimulatedClient(options);
    try {
      await SignalConnection.open({
        url: options.url,
        token: options.token,
        onMessage: (message, connection) => client.#handle(message, connection),
        onClose: () => client.close(),
      });
    } catch (error) {
      client.close();
      throw error;
    }
    if (options.publishes) client.#publish(options.publishes);
    return client;
  }

  /** False since the server or this side ended it. */
  get open(): boolean {
    return !this.#closed;
  }

  /** Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#source?.close();
    this.#signal?.send({ case: 'leave', value: new LeaveRequest() });
    this.#signal?.close();
    this.#publisher?.close();
    this.#subscriber.close();
  }

  #handle(message: SignalResponse['message'], connection: SignalConnection): void {
    this.#signal = connection;
    if (this.#closed) return;
    if (message.case === 'offer') this.#subscriber.offer(message.value.sdp, message.value.id);
    if (message.case === 'answer') this.#publisher?.answer(message.value.sdp);
    if (message.case === 'leave') this.close();
  }

  #takeTrack({ sid, kind }: IncomingTrack): (packet: Buffer) => void {
    if (kind === 'video') {
      const quality = this.#options.shows === 'high' ? VideoQuality.HIGH : VideoQuality.LOW;
      const value = new UpdateTrackSettings({ trackSids: [sid], quality });
      this.#signal?.send({ case: 'trackSetting', value });
    }
    const reception = new TrackReception();
    return (packet) => {
      const read = readStamped(packet);
      if (!read || this.#closed) return;
      reception.take(read.ssrc, read.sequence, read.octets);
      this.#options.onReceived(read);
      if (this.tracks.has(sid)) return;
      this.tracks.set(sid, reception);
      this.#options.onFirstPacket();
    };
  }

  #publish(what: Publishes): void {
    const isCamera = what.source === 'camera';
    this.#signal?.send({ case: 'addTrack', value: isCamera ? cameraRequest() : microphoneRequest() });
    const publisher = new PublisherPeer(
      isCamera ? cameraSection() : microphoneSection(),
      (sdp) => this.#signal?.send({ case: 'offer', value: new SessionDescription({ type: 'offer', sdp, id: 1 }) }),
      (rtcp) => this.#source?.handleRtcp(rtcp),
      this.#options.bindAddress,
    );
    this.#publisher = publisher;
    const { onSent } = this.#options;
    this.#source = isCamera ? startCamera(publisher, onSent) : startMicrophone(publisher, onSent, what.turns);
  }
}

function microphoneRequest(): AddTrackRequest {
  const { AUDIO: type } = TrackType;
  return new AddTrackRequest({ cid: 'microphone', name: 'microphone', type, source: TrackSource.MICROPHONE });
}

function microphoneSection(): Audio {
  const section = new Audio('0', 'SendOnly');
  section.addOpusCodec(microphone.payloadType);
  section.addSSRC(microphone.ssrc, 'simulated', 'stream', 'microphone');
  section.parseSdpLine(`a=extmap:${microphone.levelId} urn:ietf:params:rtp-hdrext:ssrc-audio-level`);
  return section;
}

function cameraRequest(): AddTrackRequest {
  const qualities = [VideoQuality.LOW, VideoQuality.MEDIUM, VideoQuality.HIGH];
  return new AddTrackRequest({
    ...{ cid: 'camera', name: 'camera', type: TrackType.VIDEO, source: TrackSource.CAMERA, width: 1280, height: 720 },
    layers: qualities.map((quality, index) => {
      const [width, height] = [320 << index, 180 << index];
      return new VideoLayer({ quality, width, height, bitrate: (camera.layerKbps[index] ?? 0) * 1000 });
    }),
  });
}

/** Layers by their SSRCs alone: the order is that of quality, lowest first. */
function cameraSection(): Video {
  const section = new Video('0', 'SendOnly');
  section.addVP8Codec(camera.payloadType);
  for (const index of camera.layerKbps.keys()) {
    section.addSSRC(camera.ssrc + index, 'simulated', 'stream', 'camera');
  }
  return section;
}
