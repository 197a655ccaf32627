import { DisconnectReason, SignalResponse } from '@livekit/protocol';
import { WebSocket } from 'ws';
import type { Clock } from '#platform/clock.ts';
import type { Logger } from '#platform/log.ts';
import type { SignalChannel, SignalHandlers } from './channel.ts';
import { closeCodes, leaveForGood } from './leave.ts';

/** Limits of one client's signalling. SDPs of a large room come near the message limit. */
export const CHANNEL_LIMITS = {
  messageBytes: 1024 * 1024,
  /** What may wait for a client that does not read. */
  bufferedBytes: 8 * 1024 * 1024,
  /** Messages a second that a client may send for long, and at once after a quiet time. */
  messagesPerSecond: 200,
  messageBurst: 2_000,
  pingIntervalMs: 10_000,
  /** After a close frame was sent, the peer gets this long to answer it. */
  closeTimeoutMs: 3_000,
} as const;

/** A ws socket that tells before it closes for a breach of the framing, while words can still be sent. */
export class SignalSocket extends WebSocket {
  beforeProtocolClose: ((code: number) => void) | undefined;

  override close(code?: number, reason?: string | Buffer): void {
    if (code !== undefined && [1002, 1007, 1009].includes(code)) this.beforeProtocolClose?.(code);
    super.close(code, reason);
  }
}

export interface WebSocketChannelOptions {
  socket: SignalSocket;
  /** Name of this node. */
  holder: string;
  clock: Clock;
  log: Logger;
  /** Called when the client is closed for what it sent, with the code of the breach. */
  onViolation: (code: string) => void;
  /** Called when the first message goes out, with its kind: join or reconnect for a client that got in, leave for one that did not. */
  onFirstMessage: (kind: string) => void;
}

/**
 * Signalling over the client's own WebSocket. Binary frames only; whatever breaks the rules of the channel gets a leave,
 * a close frame with the reason, and nothing else happens to anybody.
 */
export class WebSocketChannel implements SignalChannel {
  readonly holder: string;
  readonly #options: WebSocketChannelOptions;
  readonly #socket: SignalSocket;
  #handlers: SignalHandlers | undefined;
  #early: Uint8Array[] = [];
  #ended: { code: number; reason: string } | undefined;
  #answered = false;
  #allowance: number = CHANNEL_LIMITS.messageBurst;
  #allowanceAt: number;
  #heard = true;
  #cancelPing: () => void = () => {};

  static create(options: WebSocketChannelOptions): WebSocketChannel {
    return new WebSocketChannel(options);
  }

  private constructor(options: WebSocketChannelOptions) {
    this.#options = options;
    this.#socket = options.socket;
    this.holder = options.holder;
    this.#allowanceAt = options.clock.now();
    const socket = this.#socket;
    socket.beforeProtocolClose = (code) => this.#onProtocolClose(code);
    socket.on('message', (data, isBinary) => this.#onMessage(data as Buffer, isBinary));
    socket.on('pong', () => (this.#heard = true));
    socket.on('error', (error) => options.log.debug({ err: error }, 'client socket failed'));
    socket.on('close', (code, reason) => this.#end(code, reason.toString()));
    this.#schedulePing();
  }

  send(message: SignalResponse): void {
    this.sendEncoded(message.toBinary());
  }

  sendEncoded(bytes: Uint8Array): void {
    if (this.#ended || this.#socket.readyState !== WebSocket.OPEN) return;
    if (this.#socket.bufferedAmount > CHANNEL_LIMITS.bufferedBytes) {
      // It does not read, so words would not reach it either.
      this.#options.onViolation('NotReading');
      this.#end(closeCodes.policyViolation, 'the client does not read what it is sent');
      this.#socket.terminate();
      return;
    }
    this.#socket.send(bytes, { binary: true });
    if (!this.#answered) {
      this.#answered = true;
      this.#options.onFirstMessage(SignalResponse.fromBinary(bytes).message.case ?? 'none');
    }
  }

  close(code: number, reason: string): void {
    if (this.#ended) return;
    this.#socket.close(code, closeReason(reason));
    // A peer that is gone never answers the close frame.
    this.#options.clock.after(CHANNEL_LIMITS.closeTimeoutMs, () => this.#socket.terminate());
    this.#end(code, reason);
  }

  /** The client was told something already. */
  get answered(): boolean {
    return this.#answered;
  }

  start(handlers: SignalHandlers): void {
    this.#handlers = handlers;
    for (const bytes of this.#early.splice(0)) handlers.message(bytes);
    const ended = this.#ended;
    if (ended) queueMicrotask(() => handlers.close(ended.code, ended.reason));
  }

  /** Closes the channel for what the client sent: a leave first, then the close frame with the words. */
  violate(code: string, words: string, closeCode: number = closeCodes.policyViolation): void {
    if (this.#ended) return;
    this.#options.onViolation(code);
    this.#options.log.info({ code }, `client closed: ${words}`);
    this.send(leaveForGood(DisconnectReason.STATE_MISMATCH));
    this.close(closeCode, words);
  }

  #onMessage(data: Buffer, isBinary: boolean): void {
    if (this.#ended) return;
    this.#heard = true;
    if (!isBinary) {
      return this.violate('TextFrame', 'send binary frames (protobuf), not text', closeCodes.unsupportedData);
    }
    if (!this.#answered) return this.violate('RequestBeforeJoin', 'wait for the join response before sending');
    if (!this.#withinRate()) return this.violate('TooManyRequests', 'too many messages a second');
    if (this.#handlers) this.#handlers.message(data);
    else this.#early.push(data);
  }

  #withinRate(): boolean {
    const now = this.#options.clock.now();
    const earned = ((now - this.#allowanceAt) / 1000) * CHANNEL_LIMITS.messagesPerSecond;
    this.#allowance = Math.min(CHANNEL_LIMITS.messageBurst, this.#allowance + Math.max(0, earned)) - 1;
    this.#allowanceAt = now;
    return this.#allowance >= 0;
  }

  /** The ws module is about to close with this code: say why in LiveKit's words first. */
  #onProtocolClose(code: number): void {
    if (this.#ended) return;
    const name = code === 1009 ? 'MessageTooBig' : 'BadFrame';
    this.#options.onViolation(name);
    this.send(leaveForGood(DisconnectReason.STATE_MISMATCH));
    this.#options.clock.after(CHANNEL_LIMITS.closeTimeoutMs, () => this.#socket.terminate());
    this.#end(code, name === 'MessageTooBig' ? 'message too big' : 'bad WebSocket frame');
  }

  #schedulePing(): void {
    this.#cancelPing = this.#options.clock.after(CHANNEL_LIMITS.pingIntervalMs, () => {
      if (this.#ended) return;
      if (!this.#heard) {
        this.#end(1006, 'the client did not answer a ping');
        this.#socket.terminate();
        return;
      }
      this.#heard = false;
      this.#socket.ping();
      this.#schedulePing();
    });
  }

  #end(code: number, reason: string): void {
    if (this.#ended) return;
    this.#ended = { code, reason };
    this.#cancelPing();
    const handlers = this.#handlers;
    // Later, so that a handler that closes the channel is not called back from within its own call.
    if (handlers) queueMicrotask(() => handlers.close(code, reason));
  }
}

/** A close frame holds at most 123 bytes of reason. */
function closeReason(reason: string): string {
  const bytes = Buffer.from(reason, 'utf8');
  return bytes.length <= 123 ? reason : bytes.subarray(0, 120).toString('utf8').replace(/�+$/, '');
}
