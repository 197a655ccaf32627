/** RTP and RTCP packets as bytes, as far as the benchmarks need them (RFC 3550, 4585, 5104, 8285). Pure. */

/** Fields of one RTP packet. */
export interface RtpFields {
  payloadType: number;
  /** Taken modulo 2^16. */
  sequence: number;
  /** Taken modulo 2^32. */
  timestamp: number;
  ssrc: number;
  /** Last packet of a frame. */
  marker: boolean;
  /** One-byte header extensions (RFC 8285) by id, 1 to 14, each of 1 to 16 bytes. */
  extensions?: ReadonlyMap<number, Buffer>;
}

/** Bytes of an RTP header without extensions. */
export const RTP_HEADER_BYTES = 12;

function extensionBytes(extensions: ReadonlyMap<number, Buffer>): Buffer {
  const elements = [...extensions].flatMap(([id, value]) => [Buffer.from([(id << 4) | (value.length - 1)]), value]);
  const body = Buffer.concat(elements);
  const padded = Buffer.alloc(4 + Math.ceil(body.length / 4) * 4);
  padded.writeUInt16BE(0xbede, 0);
  padded.writeUInt16BE(padded.length / 4 - 1, 2);
  body.copy(padded, 4);
  return padded;
}

/** One RTP packet. */
export function rtpPacket(fields: RtpFields, payload: Buffer): Buffer {
  const extensions = fields.extensions ? extensionBytes(fields.extensions) : Buffer.alloc(0);
  const header = Buffer.alloc(RTP_HEADER_BYTES);
  header[0] = 0x80 | (extensions.length > 0 ? 0x10 : 0);
  header[1] = (fields.marker ? 0x80 : 0) | fields.payloadType;
  header.writeUInt16BE(fields.sequence & 0xffff, 2);
  header.writeUInt32BE(fields.timestamp >>> 0, 4);
  header.writeUInt32BE(fields.ssrc, 8);
  return Buffer.concat([header, extensions, payload]);
}

/** What the reader of a packet needs of it. */
export interface ParsedRtp {
  sequence: number;
  timestamp: number;
  ssrc: number;
  marker: boolean;
  payload: Buffer;
}

/** Reads an RTP packet that mediasoup sent: well-formed, without CSRCs or padding. */
export function parseRtp(packet: Buffer): ParsedRtp {
  const hasExtensions = (packet.readUInt8(0) & 0x10) !== 0;
  const start = RTP_HEADER_BYTES + (hasExtensions ? 4 + packet.readUInt16BE(RTP_HEADER_BYTES + 2) * 4 : 0);
  return {
    sequence: packet.readUInt16BE(2),
    timestamp: packet.readUInt32BE(4),
    ssrc: packet.readUInt32BE(8),
    marker: (packet.readUInt8(1) & 0x80) !== 0,
    payload: packet.subarray(start),
  };
}

/** Seconds from 1900, where NTP counts from, to 1970. */
const NTP_EPOCH_SECONDS = 2_208_988_800;

/** What a sender report says of one stream. */
export interface SenderReportFields {
  ssrc: number;
  /** Instant of the report, milliseconds since 1970. */
  unixMs: number;
  /** RTP timestamp of the same instant. */
  timestamp: number;
  packets: number;
  octets: number;
}

/** An RTCP sender report (RFC 3550, 6.4.1) without report blocks. */
export function senderReport(fields: SenderReportFields): Buffer {
  const report = Buffer.alloc(28);
  report[0] = 0x80;
  report[1] = 200;
  report.writeUInt16BE(report.length / 4 - 1, 2);
  report.writeUInt32BE(fields.ssrc, 4);
  report.writeUInt32BE(Math.floor(fields.unixMs / 1000) + NTP_EPOCH_SECONDS, 8);
  report.writeUInt32BE(Math.floor(((fields.unixMs % 1000) / 1000) * 2 ** 32), 12);
  report.writeUInt32BE(fields.timestamp >>> 0, 16);
  report.writeUInt32BE(fields.packets >>> 0, 20);
  report.writeUInt32BE(fields.octets >>> 0, 24);
  return report;
}

/** SSRCs of which a compound RTCP packet asks a key frame, by PLI (RFC 4585) or FIR (RFC 5104). */
export function keyFrameRequests(rtcp: Buffer): number[] {
  const asked: number[] = [];
  for (let at = 0; at + 4 <= rtcp.length;) {
    const format = rtcp.readUInt8(at) & 0x1f;
    const end = at + (rtcp.readUInt16BE(at + 2) + 1) * 4;
    const isPayloadFeedback = rtcp.readUInt8(at + 1) === 206;
    if (isPayloadFeedback && format === 1) asked.push(rtcp.readUInt32BE(at + 8));
    if (isPayloadFeedback && format === 4) {
      for (let entry = at + 12; entry + 8 <= end; entry += 8) asked.push(rtcp.readUInt32BE(entry));
    }
    at = end;
  }
  return asked;
}

/**
 * The payload of one packet of a made VP8 frame: a payload descriptor (RFC 7741, 4.2) with picture id, TL0PICIDX and
 * temporal layer 0, and an arbitrary frame.
 */
export function vp8Payload(part: {
  octets: number;
  isFirst: boolean;
  isKeyFrame: boolean;
  /** 15 bits. */
  pictureId: number;
}): Buffer {
  const payload = Buffer.alloc(part.octets);
  payload[0] = 0x80 | (part.isFirst ? 0x10 : 0);
  payload[1] = 0xe0;
  payload.writeUInt16BE(0x8000 | part.pictureId, 2);
  payload[4] = part.pictureId & 0xff;
  // The bit of the frame's first byte that says "not a key frame".
  payload[6] = part.isKeyFrame ? 0 : 1;
  return payload;
}
