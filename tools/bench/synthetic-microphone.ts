import type { DirectTransport, Producer } from 'mediasoup/types';
import { rtpPacket } from './rtp.ts';

const PACKET_MS = 20;
const CLOCK_RATE = 48_000;
/** Bytes of 20 ms at 32 kbps. */
const PAYLOAD_BYTES = 80;
const SSRC = 2_000_000;
const AUDIO_LEVEL = 'urn:ietf:params:rtp-hdrext:ssrc-audio-level';
const AUDIO_LEVEL_ID = 6;

/** A microphone that no encoder stands behind: Opus packets of 20 ms with an audio level, through a DirectTransport. */
export class SyntheticMicrophone {
  readonly producer: Producer;
  readonly #timer: NodeJS.Timeout;
  readonly #level: Buffer;
  readonly #began = process.hrtime.bigint();
  #packets = 0;

  private constructor(producer: Producer, dbov: number) {
    this.producer = producer;
    // RFC 6464: the high bit says that there is voice, the others how far below the loudest possible it is.
    this.#level = Buffer.from([0x80 | -dbov]);
    this.#timer = setInterval(() => this.#catchUp(), PACKET_MS / 2);
  }

  /** @param dbov loudness, -127 (silence) to 0 */
  static async start(transport: DirectTransport, dbov: number): Promise<SyntheticMicrophone> {
    const producer = await transport.produce({
      kind: 'audio',
      rtpParameters: {
        codecs: [{ mimeType: 'audio/opus', payloadType: 111, clockRate: CLOCK_RATE, channels: 2 }],
        headerExtensions: [{ uri: AUDIO_LEVEL, id: AUDIO_LEVEL_ID }],
        encodings: [{ ssrc: SSRC }],
        rtcp: { cname: 'microphone', reducedSize: true },
      },
    });
    return new SyntheticMicrophone(producer, dbov);
  }

  /** Payload bytes so far. */
  get octets(): number {
    return this.#packets * PAYLOAD_BYTES;
  }

  close(): void {
    clearInterval(this.#timer);
    this.producer.close();
  }

  #catchUp(): void {
    const due = Number(process.hrtime.bigint() - this.#began) / 1e6 / PACKET_MS;
    for (; this.#packets < due; this.#packets += 1) {
      const fields = {
        payloadType: 111,
        sequence: this.#packets,
        timestamp: this.#packets * (CLOCK_RATE / 1000) * PACKET_MS,
        ssrc: SSRC,
        marker: false,
        extensions: new Map([[AUDIO_LEVEL_ID, this.#level]]),
      };
      this.producer.send(rtpPacket(fields, Buffer.alloc(PAYLOAD_BYTES, 1)));
    }
  }
}
