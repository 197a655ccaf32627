import type { SignalResponse } from '@livekit/protocol';

/**
 * The signalling connection of one client, as the node that serves its room sees it: a WebSocket that this node holds,
 * or one that another node holds and relays over NATS. Messages arrive in order or not at all.
 */
export interface SignalChannel {
  /** Name of the node that holds the client's WebSocket. */
  readonly holder: string;
  /** Sends one message; dropped without error once the channel is closed. */
  send(message: SignalResponse): void;
  /** Like {@link send}, for a SignalResponse that is encoded already, such as one that many get. */
  sendEncoded(bytes: Uint8Array): void;
  /** Ends the channel after what was sent before. Idempotent. Codes are WebSocket close codes. */
  close(code: number, reason: string): void;
  /**
   * Takes the channel over. What arrived before is delivered first. `message` gets the encoded SignalRequest as it
   * came; `close` is called once, also when this side closed.
   */
  start(handlers: SignalHandlers): void;
}

export interface SignalHandlers {
  message(bytes: Uint8Array): void;
  close(code: number, reason: string): void;
}
