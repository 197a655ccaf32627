/** The thread of a {@link PacketReceiver}: does nothing but take packets and note when each came. */
import { createSocket } from 'node:dgram';
import { parentPort } from 'node:worker_threads';
import { parseRtp } from './rtp.ts';
import { readStamp } from './synthetic-camera.ts';

/** What the thread says: where it listens, or which packets (by their stamp) came when, both in nanoseconds. */
export type ReceiverMessage = { port: number } | { arrivals: [sentAt: bigint, receivedAt: bigint][] };

const say = (message: ReceiverMessage) => parentPort?.postMessage(message);
let arrivals: [bigint, bigint][] = [];
const socket = createSocket('udp4', (packet) => {
  const receivedAt = process.hrtime.bigint();
  const isRtcp = packet.readUInt8(1) >= 192 && packet.readUInt8(1) <= 223;
  if (!isRtcp) arrivals.push([readStamp(parseRtp(packet).payload).sentAt, receivedAt]);
});
parentPort?.on('message', () => {
  say({ arrivals });
  arrivals = [];
});
socket.bind(0, '127.0.0.1', () => say({ port: socket.address().port }));
