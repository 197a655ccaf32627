/** The mark that simulated publishers leave in each payload, and receivers read. Pure. */
import { RTP_HEADER_BYTES } from '../rtp.ts';

/** Behind the longest header that nodes rewrite: VP8's payload descriptor and the first byte of its frame. */
const OFFSET = 7;
const LAYER_BYTES = 1;

/** Smallest payload that a stamp fits in, bytes. */
export const STAMPED_BYTES = OFFSET + LAYER_BYTES + 8;

/** What a stamped packet says of itself. */
export interface StampedPacket {
  ssrc: number;
  sequence: number;
  /** Payload bytes. */
  octets: number;
  /** Simulcast layer that it was made for, 0 is the lowest. */
  layer: number;
  /** Instant of sending, nanoseconds of the machine's monotonic clock. */
  sentAt: number;
}

/** Nanoseconds of the machine's monotonic clock: the same for all its processes, exact for the first hundred days. */
export function monotonicNow(): number {
  return Number(process.hrtime.bigint());
}

/** Marks a payload of at least {@link STAMPED_BYTES}. */
export function stamp(payload: Buffer, layer: number, sentAt: number): void {
  payload.writeUInt8(layer, OFFSET);
  payload.writeBigUInt64BE(BigInt(sentAt), OFFSET + LAYER_BYTES);
}

/** Reads an RTP packet without CSRCs; undefined for one that is too short to be stamped, such as padding. */
export function readStamped(packet: Buffer): StampedPacket | undefined {
  const hasExtensions = (packet.readUInt8(0) & 0x10) !== 0;
  const start = RTP_HEADER_BYTES + (hasExtensions ? 4 + packet.readUInt16BE(RTP_HEADER_BYTES + 2) * 4 : 0);
  const octets = packet.length - start;
  if (octets < STAMPED_BYTES) return undefined;
  const at = start + OFFSET;
  const sentAt = packet.readUInt32BE(at + LAYER_BYTES) * 2 ** 32 + packet.readUInt32BE(at + LAYER_BYTES + 4);
  return {
    ssrc: packet.readUInt32BE(8),
    sequence: packet.readUInt16BE(2),
    octets,
    layer: packet.readUInt8(at),
    sentAt,
  };
}
