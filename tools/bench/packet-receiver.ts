import { once } from 'node:events';
import { join } from 'node:path';
import { Worker as Thread } from 'node:worker_threads';
import type { Router, RtpCapabilities } from 'mediasoup/types';
import type { ReceiverMessage } from './packet-receiver-thread.ts';

/** Longest time that the thread may take to answer, milliseconds. */
const answerMs = 10_000;

/**
 * A subscriber by plain RTP, in a thread of its own: it takes a packet when it comes, however busy the thread is that
 * made it.
 */
export class PacketReceiver {
  readonly #thread: Thread;
  readonly #port: number;

  private constructor(thread: Thread, port: number) {
    this.#thread = thread;
    this.#port = port;
  }

  static async start(): Promise<PacketReceiver> {
    const thread = new Thread(join(import.meta.dirname, 'packet-receiver-thread.ts'));
    const [message] = (await once(thread, 'message', { signal: AbortSignal.timeout(answerMs) })) as [ReceiverMessage];
    if (!('port' in message)) throw new Error('the thread of a packet receiver tells its port first');
    return new PacketReceiver(thread, message.port);
  }

  /** Has a layer of a producer sent here, unencrypted and without bandwidth estimation. */
  async subscribe(router: Router, producerId: string, spatialLayer: number): Promise<void> {
    const transport = await router.createPlainTransport({ listenInfo: { protocol: 'udp', ip: '127.0.0.1' } });
    await transport.connect({ ip: '127.0.0.1', port: this.#port });
    await transport.consume({
      producerId,
      rtpCapabilities: withoutEstimation(router.rtpCapabilities),
      preferredLayers: { spatialLayer },
    });
  }

  /** When each packet came since the last call, by the instant that its camera wrote into it; nanoseconds. */
  async take(): Promise<Map<bigint, bigint>> {
    const answered = once(this.#thread, 'message', { signal: AbortSignal.timeout(answerMs) }) as Promise<
      [ReceiverMessage]
    >;
    this.#thread.postMessage('take');
    const [message] = await answered;
    return new Map('arrivals' in message ? message.arrivals : []);
  }

  async close(): Promise<void> {
    await this.#thread.terminate();
  }
}

/** With the extensions of bandwidth estimation mediasoup would wait for reports of a client, and hold back layers. */
function withoutEstimation({ codecs }: RtpCapabilities): RtpCapabilities {
  return { codecs, headerExtensions: [] };
}
