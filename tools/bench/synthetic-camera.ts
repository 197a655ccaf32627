import type { DirectTransport, Producer, RtpParameters } from 'mediasoup/types';
import { eventually } from '#tools/local/eventually.ts';
import { keyFrameRequests, rtpPacket, senderReport, vp8Payload } from './rtp.ts';

/** Kilobits a second of the simulcast layers, lowest first: what browsers send for 180p, 360p and 720p. */
export const CAMERA_KBPS = [150, 500, 1500] as const;
const FRAMES_PER_SECOND = 30;
const CLOCK_RATE = 90_000;
/** Payload bytes of a full packet: a usual path MTU less IP, UDP, RTP, extensions and SRTP. */
const MAX_PAYLOAD = 1100;
/** A key frame's size in other frames. */
const KEY_FRAME_FACTOR = 4;
/** VP8 payload descriptor (6 bytes) and the first byte of the frame; the stamp follows. */
const STAMP_OFFSET = 7;
const STAMP_BYTES = 9;

/** What a packet of a synthetic camera says of itself. */
export interface Stamp {
  /** Simulcast layer that the packet was made for, 0 is the lowest. */
  layer: number;
  /** `process.hrtime` when it was handed to mediasoup, nanoseconds. */
  sentAt: bigint;
}

/** Reads what a synthetic camera wrote into a payload. */
export function readStamp(payload: Buffer): Stamp {
  return { layer: payload.readUInt8(STAMP_OFFSET), sentAt: payload.readBigUInt64BE(STAMP_OFFSET + 1) };
}

/** Whether a VP8 payload of a synthetic camera begins a key frame. */
export function beginsKeyFrame(payload: Buffer): boolean {
  const startsFrame = (payload.readUInt8(0) & 0x10) !== 0;
  return startsFrame && (payload.readUInt8(6) & 0x01) === 0;
}

interface Layer {
  ssrc: number;
  bytesPerFrame: number;
  active: boolean;
  keyFrameAsked: boolean;
  sequence: number;
  pictureId: number;
  packets: number;
  octets: number;
}

/** How a {@link SyntheticCamera} sends. */
export interface CameraOptions {
  /** Kilobits a second of the layers, lowest first; one is a camera without simulcast. */
  kbps?: readonly number[];
}

/**
 * A camera that no encoder stands behind: VP8 simulcast with true payload descriptors and arbitrary frames, sent through
 * a DirectTransport at 30 frames a second. It gives a key frame of a layer at the frame after it is asked for one, and
 * sender reports every second, without which mediasoup cannot switch between layers.
 */
export class SyntheticCamera {
  readonly producer: Producer;
  /** Layers of which a key frame was asked, in the order of asking. */
  readonly asked: number[] = [];
  readonly #transport: DirectTransport;
  readonly #layers: Layer[];
  readonly #timer: NodeJS.Timeout;
  readonly #began = process.hrtime.bigint();
  #frames = 0;

  private constructor(transport: DirectTransport, producer: Producer, layers: Layer[]) {
    this.#transport = transport;
    this.producer = producer;
    this.#layers = layers;
    transport.on('rtcp', this.#onRtcp);
    this.#timer = setInterval(() => this.#catchUp(), 1000 / FRAMES_PER_SECOND / 4);
  }

  /**
   * Resolves when the router has seen every layer. A consumer that is resumed before takes the layers that it finds, and
   * changes only once it knows how their clocks stand to each other, seconds later.
   *
   * @param transport of the router that the camera publishes in; it is the camera's alone
   */
  static async start(transport: DirectTransport, { kbps = CAMERA_KBPS }: CameraOptions = {}): Promise<SyntheticCamera> {
    const layers = kbps.map((rate, index) => ({
      ssrc: 1_000_000 + index,
      bytesPerFrame: Math.round((rate * 1000) / 8 / FRAMES_PER_SECOND),
      active: true,
      keyFrameAsked: true,
      sequence: 1000,
      pictureId: 0,
      packets: 0,
      octets: 0,
    }));
    const producer = await transport.produce({ kind: 'video', rtpParameters: cameraParameters(layers) });
    const camera = new SyntheticCamera(transport, producer, layers);
    const what = 'every layer of a synthetic camera in its router';
    try {
      await eventually(() => producer.score.length === layers.length, { intervalMs: 10, what });
    } catch (error) {
      camera.close();
      throw error;
    }
    return camera;
  }

  /** Starts or stops a layer, as a browser does when its bandwidth or the server's wishes change. */
  setActive(layer: number, active: boolean): void {
    const state = this.#layers[layer];
    if (!state || state.active === active) return;
    state.active = active;
    state.keyFrameAsked = true;
  }

  /** Payload bytes of a layer so far. */
  octets(layer: number): number {
    return this.#layers[layer]?.octets ?? 0;
  }

  /** Packets of a layer so far. */
  packets(layer: number): number {
    return this.#layers[layer]?.packets ?? 0;
  }

  close(): void {
    clearInterval(this.#timer);
    this.#transport.off('rtcp', this.#onRtcp);
    this.producer.close();
  }

  readonly #onRtcp = (rtcp: Buffer) => {
    for (const ssrc of keyFrameRequests(rtcp)) {
      const index = this.#layers.findIndex((layer) => layer.ssrc === ssrc);
      const layer = this.#layers[index];
      if (!layer) continue;
      this.asked.push(index);
      layer.keyFrameAsked = true;
    }
  };

  /** Sends the frames that are due: timers of a busy process come late, and the rate must hold. */
  #catchUp(): void {
    const due = Number((process.hrtime.bigint() - this.#began) * BigInt(FRAMES_PER_SECOND)) / 1e9;
    while (this.#frames < due) {
      for (const [index, layer] of this.#layers.entries()) if (layer.active) this.#sendFrame(index, layer);
      if (this.#frames % FRAMES_PER_SECOND === 0) this.#report();
      this.#frames += 1;
    }
  }

  get #timestamp(): number {
    return this.#frames * (CLOCK_RATE / FRAMES_PER_SECOND);
  }

  #sendFrame(index: number, layer: Layer): void {
    const isKeyFrame = layer.keyFrameAsked;
    layer.keyFrameAsked = false;
    layer.pictureId = (layer.pictureId + 1) & 0x7fff;
    const bytes = layer.bytesPerFrame * (isKeyFrame ? KEY_FRAME_FACTOR : 1);
    const count = Math.ceil(bytes / MAX_PAYLOAD);
    for (let part = 0; part < count; part += 1) {
      const octets = Math.max(Math.floor(bytes / count), STAMP_OFFSET + STAMP_BYTES);
      const payload = vp8Payload({ octets, isFirst: part === 0, isKeyFrame, pictureId: layer.pictureId });
      payload.writeUInt8(index, STAMP_OFFSET);
      payload.writeBigUInt64BE(process.hrtime.bigint(), STAMP_OFFSET + 1);
      layer.sequence += 1;
      const { sequence, ssrc } = layer;
      const marker = part === count - 1;
      this.producer.send(rtpPacket({ payloadType: 96, sequence, timestamp: this.#timestamp, ssrc, marker }, payload));
      layer.packets += 1;
      layer.octets += payload.length;
    }
  }

  #report(): void {
    const unixMs = Date.now();
    const reports = this.#layers
      .filter(({ active }) => active)
      .map(({ ssrc, packets, octets }) => senderReport({ ssrc, unixMs, timestamp: this.#timestamp, packets, octets }));
    if (reports.length > 0) this.#transport.sendRtcp(Buffer.concat(reports));
  }
}

function cameraParameters(layers: readonly Layer[]): RtpParameters {
  return {
    codecs: [
      {
        mimeType: 'video/VP8',
        payloadType: 96,
        clockRate: CLOCK_RATE,
        parameters: {},
        rtcpFeedback: [
          { type: 'nack', parameter: '' },
          { type: 'nack', parameter: 'pli' },
          { type: 'ccm', parameter: 'fir' },
        ],
      },
    ],
    headerExtensions: [],
    encodings: layers.map(({ ssrc }) => ({ ssrc, scalabilityMode: 'L1T1' })),
    rtcp: { cname: 'camera', reducedSize: true },
  };
}
