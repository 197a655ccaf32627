import { SignalRequest, SignalResponse } from '@livekit/protocol';
import { WebSocket } from 'ws';

/**
 * A participant without media: it joins over the LiveKit WebSocket as an SDK does, answers nothing and sends pings. The
 * server holds everything that it holds for a participant who has not connected media yet (session, transport, data
 * channels), so it shows what a participant costs at least.
 */
export class LightClient {
  readonly #socket: WebSocket;
  readonly #ping: NodeJS.Timeout;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    this.#ping = setInterval(() => {
      const message = { case: 'ping', value: BigInt(Date.now()) } as const;
      socket.send(new SignalRequest({ message }).toBinary());
    }, 5000);
  }

  /** Resolves when the server has answered the join. */
  static async join(url: string, token: string): Promise<LightClient> {
    const query = new URLSearchParams({ access_token: token, auto_subscribe: '1', protocol: '16', sdk: 'js' });
    const socket = new WebSocket(`${url}/rtc?${query.toString()}`);
    socket.binaryType = 'nodebuffer';
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.once('close', (code) => reject(new Error(`closed before the join was answered (${code})`)));
      socket.once('message', (data: Buffer) => {
        const { message } = SignalResponse.fromBinary(data);
        if (message.case === 'join') resolve();
        else reject(new Error(`the first message is ${message.case ?? 'empty'}, not join`));
      });
    });
    socket.on('error', () => undefined);
    return new LightClient(socket);
  }

  get open(): boolean {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  /** Idempotent. */
  close(): void {
    clearInterval(this.#ping);
    this.#socket.close();
  }
}
