import { SignalRequest, SignalResponse } from '@livekit/protocol';
import { WebSocket } from 'ws';

const PING_MS = 5000;

/** What the holder of a {@link SignalConnection} is told. */
export interface SignalHandlers {
  /** A message, the answer to the join first. It may come before `open` resolves. */
  message: (message: SignalResponse['message'], connection: SignalConnection) => void;
  /** The connection ended after the join, by either side. */
  close: (code: number) => void;
}

/** A LiveKit WebSocket as an SDK opens it, with its pings; it answers nothing by itself. */
export class SignalConnection {
  readonly #socket: WebSocket;
  readonly #ping: NodeJS.Timeout;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    this.#ping = setInterval(() => this.send({ case: 'ping', value: BigInt(Date.now()) }), PING_MS);
  }

  /**
   * Resolves when the server has answered the join. Without `autoSubscribe` no track comes by itself.
   *
   * @throws Error when the connection ends before, or something else is answered
   */
  static async open(
    url: string,
    token: string,
    handlers: SignalHandlers,
    { autoSubscribe = true }: { autoSubscribe?: boolean } = {},
  ): Promise<SignalConnection> {
    const query = new URLSearchParams({
      ...{ access_token: token, auto_subscribe: autoSubscribe ? '1' : '0' },
      ...{ protocol: '16', sdk: 'js' },
    });
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
        socket.on('message', (data: Buffer) => handlers.message(SignalResponse.fromBinary(data).message, connection));
      });
    } catch (error) {
      connection.close();
      throw error;
    }
    socket.on('close', (code) => {
      connection.close();
      handlers.close(code);
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
