/** What simulated clients publish: packets that no encoder stands behind, at the rate of a real one. */
import { keyFrameRequests, rtpPacket, senderReport, vp8Payload } from '../rtp.ts';
import { monotonicNow, stamp, STAMPED_BYTES } from './stamp.ts';

/** What sources need of a connection. */
export interface PacketSink {
  /** Whether packets can be sent; frames until then are not made. */
  readonly open: boolean;
  /** Sends one RTP or RTCP packet. */
  send(packet: Buffer): void;
}

/** A stream of packets that goes on until it is closed. */
export interface Source {
  /** Takes what the receiver says of the streams, compound RTCP. */
  handleRtcp(rtcp: Buffer): void;
  close(): void;
}

/** Told of each packet that was sent. */
export type OnSent = (layer: number, octets: number, sentAt: number) => void;

/** Calls `tick` as often as it is due, many times in one go after the process was busy. */
function paced(perSecond: number, sink: PacketSink, tick: (number: number) => void): NodeJS.Timeout {
  let began: number | undefined;
  let ticks = 0;
  return setInterval(() => {
    if (!sink.open) return;
    began ??= monotonicNow();
    const due = ((monotonicNow() - began) / 1e9) * perSecond;
    for (; ticks < due; ticks += 1) tick(ticks);
  }, 500 / perSecond);
}

const AUDIO_CLOCK = 48_000;
const AUDIO_PACKETS_PER_SECOND = 50;
/** In silence one packet in so many is sent: Opus's DTX, which LiveKit's SDKs have on, has one every 400 ms. */
const SILENT_PACKETS = 20;
/** How long one speaks at a time, in packets. */
const TURN_PACKETS = 2 * AUDIO_PACKETS_PER_SECOND;

/** How simulated microphones are offered. */
export const microphone = { payloadType: 111, ssrc: 2_000_000, levelId: 1, kbps: 32 } as const;

/** When a microphone hears speech: for the turns whose number, modulo `turns`, is one of `own`. */
export interface Turns {
  turns: number;
  own: readonly number[];
}

/**
 * A microphone: Opus packets of 20 ms at 32 kbps while there is speech, few and small ones in silence, all with their
 * audio level (RFC 6464). Turns are those of the machine's clock, the same for all microphones.
 */
export function startMicrophone(sink: PacketSink, onSent: OnSent, { turns, own }: Turns): Source {
  const { payloadType, ssrc, levelId, kbps } = microphone;
  const offset = Math.floor((monotonicNow() / 1e9) * AUDIO_PACKETS_PER_SECOND);
  let sequence = 0;
  const timer = paced(AUDIO_PACKETS_PER_SECOND, sink, (number) => {
    const speaks = own.includes(Math.floor((offset + number) / TURN_PACKETS) % turns);
    if (!speaks && number % SILENT_PACKETS !== 0) return;
    const payload = Buffer.alloc(speaks ? (kbps * 1000) / 8 / AUDIO_PACKETS_PER_SECOND : STAMPED_BYTES, 1);
    // The high bit says that there is voice, the others how far below the loudest possible it is.
    const extensions = new Map([[levelId, Buffer.from([speaks ? 0x80 | 30 : 127])]]);
    const timestamp = number * (AUDIO_CLOCK / AUDIO_PACKETS_PER_SECOND);
    const sentAt = monotonicNow();
    stamp(payload, 0, sentAt);
    sequence += 1;
    sink.send(rtpPacket({ payloadType, sequence, timestamp, ssrc, marker: false, extensions }, payload));
    onSent(0, payload.length, sentAt);
  });
  return { handleRtcp: () => undefined, close: () => clearInterval(timer) };
}

const VIDEO_CLOCK = 90_000;
const FRAMES_PER_SECOND = 30;
/** Payload bytes of a full packet: a usual path MTU less IP, UDP, RTP, extensions and SRTP. */
const MAX_PAYLOAD = 1100;
/** A key frame's size in other frames. */
const KEY_FRAME_FACTOR = 4;

/** How simulated cameras are offered; kilobits a second of the layers are what browsers send for 180p, 360p and 720p. */
export const camera = { payloadType: 96, ssrc: 1_000_000, layerKbps: [150, 500, 1500] } as const;

interface Layer {
  readonly index: number;
  readonly ssrc: number;
  readonly frameOctets: number;
  keyFrameAsked: boolean;
  sequence: number;
  pictureId: number;
  packets: number;
  octets: number;
}

/** A camera: VP8 simulcast at 30 frames a second, with key frames when they are asked for and sender reports. */
export function startCamera(sink: PacketSink, onSent: OnSent): Source {
  const layers = camera.layerKbps.map((kbps, index): Layer => ({
    ...{ index, ssrc: camera.ssrc + index, frameOctets: Math.round((kbps * 1000) / 8 / FRAMES_PER_SECOND) },
    ...{ keyFrameAsked: true, sequence: 1000, pictureId: 0, packets: 0, octets: 0 },
  }));
  const timer = paced(FRAMES_PER_SECOND, sink, (number) => {
    const timestamp = number * (VIDEO_CLOCK / FRAMES_PER_SECOND);
    for (const layer of layers) sendFrame(layer, timestamp, sink, onSent);
    if (number % FRAMES_PER_SECOND === 0) sink.send(Buffer.concat(layers.map((layer) => report(layer, timestamp))));
  });
  return {
    handleRtcp: (rtcp) => {
      for (const ssrc of keyFrameRequests(rtcp)) {
        const layer = layers.find((candidate) => candidate.ssrc === ssrc);
        if (layer) layer.keyFrameAsked = true;
      }
    },
    close: () => clearInterval(timer),
  };
}

function sendFrame(layer: Layer, timestamp: number, sink: PacketSink, onSent: OnSent): void {
  const isKeyFrame = layer.keyFrameAsked;
  layer.keyFrameAsked = false;
  layer.pictureId = (layer.pictureId + 1) & 0x7fff;
  const octets = layer.frameOctets * (isKeyFrame ? KEY_FRAME_FACTOR : 1);
  const count = Math.ceil(octets / MAX_PAYLOAD);
  for (let part = 0; part < count; part += 1) {
    const size = Math.max(Math.floor(octets / count), STAMPED_BYTES);
    const payload = vp8Payload({ octets: size, isFirst: part === 0, isKeyFrame, pictureId: layer.pictureId });
    const sentAt = monotonicNow();
    stamp(payload, layer.index, sentAt);
    layer.sequence += 1;
    const { sequence, ssrc } = layer;
    const { payloadType } = camera;
    sink.send(rtpPacket({ payloadType, sequence, timestamp, ssrc, marker: part === count - 1 }, payload));
    layer.packets += 1;
    layer.octets += payload.length;
    onSent(layer.index, payload.length, sentAt);
  }
}

function report({ ssrc, packets, octets }: Layer, timestamp: number): Buffer {
  return senderReport({ ssrc, unixMs: Date.now(), timestamp, packets, octets });
}
