/**
 * The Data Channel Establishment Protocol (RFC 8832): how one side of an SCTP association tells the other that a stream
 * is a data channel and what it is called.
 */

/** SCTP payload protocol identifiers (RFC 8831, section 8). */
export const ppid = { dcep: 50, string: 51, binary: 53, stringEmpty: 56, binaryEmpty: 57 } as const;

const messageType = { open: 0x03, ack: 0x02 } as const;
const reliable = 0x00;
const unorderedPartialReliableRexmit = 0x81;
const headerBytes = 12;

/** A DATA_CHANNEL_OPEN message for a channel; `lossy` is unordered without retransmissions. */
export function encodeOpen(label: string, options: { lossy: boolean }): Buffer {
  const name = Buffer.from(label, 'utf8');
  const message = Buffer.alloc(headerBytes + name.length);
  message.writeUInt8(messageType.open, 0);
  message.writeUInt8(options.lossy ? unorderedPartialReliableRexmit : reliable, 1);
  message.writeUInt16BE(0, 2); // priority
  message.writeUInt32BE(0, 4); // retransmissions
  message.writeUInt16BE(name.length, 8);
  message.writeUInt16BE(0, 10); // protocol length
  name.copy(message, headerBytes);
  return message;
}

/** Label of a DATA_CHANNEL_OPEN message; undefined for any other or a malformed message. */
export function decodeOpenLabel(message: Buffer): string | undefined {
  if (message.length < headerBytes || message.readUInt8(0) !== messageType.open) return undefined;
  const length = message.readUInt16BE(8);
  if (message.length < headerBytes + length) return undefined;
  return message.toString('utf8', headerBytes, headerBytes + length);
}
