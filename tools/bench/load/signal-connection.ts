import { SignalRequest, SignalResponse } from '@livekit/protocol';
import { WebSocket } from 'ws';

const PING_MS = 5000;

/** What to join with, and who is told of what comes. */
export interface SignalOptions {
  /** WebSocket URL of the node to join through. */
  url: string;
  token: string;
  /** Whether tracks come by themselves. Default true. */
  autoSubscribe?: boolean;
  /** Told of each message, the answer to the join first. It may come before `open` resolves. */
  onMessage?: (message: SignalResponse['message'], connection: SignalConnection) => void;
  /** The connection ended after the join, by either side. */
  onClose?: () => void;
}

/**
 * A LiveKit WebSocket as an SDK opens it, with its pings. It answers nothing by itself: alone it is a participant
 * without media, for whom the server holds what it holds for everybody who has not connected media yet.
 */
export class SignalConnection {
  readonly #socket: WebSocket;
  readonly #ping: NodeJS.Timeout;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    this.#ping = setInterval(() => this.send({ case: 'ping', value: BigInt(Date.now()) }), PING_MS);
  }

  /**
   * Resolves when the server has answered the join.
   *
   * @throws Error when the connection ends before, or something else is answered
   */
  static async open(options: SignalOptions): Promise<SignalConnection> {
    const { url, token, autoSubscribe = true, onMessage, onClose } = options;
    const subscribe = { auto_subscribe: autoSubscribe ? '1' : '0' };
    const query = new URLSearchParams({ access_token: token, protocol: '16', sdk: 'js', ...subscribe });
    const socket = new WebSocket(`${url}/rtc?${query.toString()}`);
    socket.binaryType = 'nodebuffer';
    const connection = new SignalConnection(socket);
    try {
      await new Promise<void>((resolve, reject) => {
        socket.on('error', reject);
        socket.once('close', (code) => reject(new Error(`closed before the join was answered (${code})`)));
        socket.once('message', (data: Buffer) => {
          const { message } = SignalResponse.fromBinary(data);
          if (message.case === 'join') resolve();
          else reject(new Error(`the first message is ${message.case ?? 'empty'}, not join`));
        });
        socket.on('message', (data: Buffer) => onMessage?.(SignalResponse.fromBinary(data).message, connection));
      });
    } catch (error) {
      connection.close();
      throw error;
    }
    socket.on('close', () => {
      connection.close();
      onClose?.();
    });
    return connection;
  }

  get open(): boolean {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  send(message: SignalRequest['message']): void {
    if (this.open) this.#socket.send(new SignalRequest({ message }).toBinary());
  }

  /** Idempotent. */
  close(): void {
    clearInterval(this.#ping);
    this.#socket.close();
  }
}
