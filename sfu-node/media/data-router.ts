import type { DataProducer, DirectTransport, Router } from 'mediasoup/types';
import { maxMessageBytes } from './transport.ts';

/**
 * The way between this process and the data channels of a router's clients: messages that clients send come out here,
 * and messages for them go in here. All data passes through the node, as it is filtered by grant and destination.
 */
export class DataRouter {
  readonly #transport: DirectTransport;
  readonly #placeholder: DataProducer;

  private constructor(transport: DirectTransport, placeholder: DataProducer) {
    this.#transport = transport;
    this.#placeholder = placeholder;
  }

  static async create(router: Router): Promise<DataRouter> {
    const transport = await router.createDirectTransport({
      maxSendMessageSize: maxMessageBytes,
      maxReceiveMessageSize: maxMessageBytes,
    });
    return new DataRouter(transport, await transport.produceData({ label: 'placeholder' }));
  }

  get transport(): DirectTransport {
    return this.#transport;
  }

  /** A producer that never sends: consuming it takes a stream id that must not be used. */
  get placeholder(): DataProducer {
    return this.#placeholder;
  }

  close(): void {
    this.#transport.close();
  }
}
