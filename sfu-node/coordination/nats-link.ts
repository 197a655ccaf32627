import { errors, type NatsConnection } from '@nats-io/transport-node';
import type { Clock } from '#platform/clock.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { connectNats } from '#platform/nats.ts';

export interface NatsLinkOptions {
  url: string;
  user?: string;
  password?: string;
  caFile?: string;
  name: string;
  clock: Clock;
  log: Logger;
}

/** Called on the first connection and on every one that follows. */
export type ConnectedListener = (connection: NatsConnection, first: boolean) => void;

/** The node's connection to NATS, which may come late and go away: nothing here waits for it. */
export class NatsLink {
  readonly #log: Logger;
  readonly #abort = new AbortController();
  readonly #listeners = new Set<ConnectedListener>();
  #connection: NatsConnection | undefined;
  #connected = false;

  /** Starts connecting in the background. */
  static create(options: NatsLinkOptions): NatsLink {
    const link = new NatsLink(options.log);
    connectNats({ ...options, signal: link.#abort.signal }).then(
      (connection) => link.#adopt(connection),
      () => {}, // Only our own abort ends the attempts.
    );
    return link;
  }

  private constructor(log: Logger) {
    this.#log = log;
  }

  /** The connection, once there was one, even while it is lost: its subscriptions live on. */
  get connection(): NatsConnection | undefined {
    return this.#connection;
  }

  get connected(): boolean {
    return this.#connected;
  }

  onConnected(listener: ConnectedListener): void {
    this.#listeners.add(listener);
    if (this.#connection && this.#connected) listener(this.#connection, true);
  }

  /**
   * Asks and waits for one answer.
   * @throws WeirError NatsUnavailable, NoResponders, RequestTimeout
   */
  async request(subject: string, payload: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    if (!this.#connection || !this.#connected) {
      throw new WeirError('NatsUnavailable', 'this node has no connection to NATS now; it keeps trying');
    }
    try {
      const reply = await this.#connection.request(subject, payload, { timeout: timeoutMs });
      return reply.data;
    } catch (error) {
      if (
        error instanceof errors.NoRespondersError ||
        (error instanceof errors.RequestError && error.isNoResponders())
      ) {
        throw new WeirError('NoResponders', `nobody answers ${subject}`, { cause: error });
      }
      if (error instanceof errors.TimeoutError) {
        throw new WeirError('RequestTimeout', `no answer on ${subject} within ${timeoutMs} ms`, { cause: error });
      }
      throw new WeirError('NatsUnavailable', `request on ${subject} failed: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Whether the server answers within `timeoutMs`: tells a silent peer from a stalled connection. */
  async answers(timeoutMs: number): Promise<boolean> {
    const connection = this.#connection;
    if (!connection || !this.#connected) return false;
    const late = new Promise<boolean>((resolve) => setTimeout(() => resolve(false), timeoutMs).unref());
    return Promise.race([
      connection.rtt().then(
        () => true,
        () => false,
      ),
      late,
    ]);
  }

  async close(): Promise<void> {
    this.#abort.abort();
    this.#listeners.clear();
    const connection = this.#connection;
    if (!connection || connection.isClosed()) return;
    if (this.#connected) await Promise.race([connection.flush().catch(() => {}), pause(500)]);
    this.#connected = false;
    await connection.close();
  }

  #adopt(connection: NatsConnection): void {
    if (this.#abort.signal.aborted) return void connection.close();
    this.#connection = connection;
    this.#connected = true;
    this.#tell(connection, true);
    void this.#follow(connection);
  }

  async #follow(connection: NatsConnection): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type === 'disconnect' || status.type === 'staleConnection') this.#connected = false;
      if (status.type === 'reconnect') {
        this.#connected = true;
        this.#tell(connection, false);
      }
    }
  }

  #tell(connection: NatsConnection, first: boolean): void {
    for (const listener of this.#listeners) {
      try {
        listener(connection, first);
      } catch (error) {
        this.#log.error({ err: error }, 'a part of this node failed to take up NATS');
      }
    }
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}
