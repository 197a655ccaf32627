import { jetstream } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { connect, errors, type NatsConnection } from '@nats-io/transport-node';
import type { Clock } from './clock.ts';
import { messageOf, WeirError } from './errors.ts';
import type { Logger } from './log.ts';

export interface NatsOptions {
  /** nats:// or tls:// URL; several, separated by commas, for a cluster. */
  url: string;
  user?: string;
  password?: string;
  /** CA of the server's certificate; TLS is used when it is given. */
  caFile?: string;
  /** Name of this client, shown by the server. */
  name: string;
  log: Logger;
  clock: Clock;
  /** Ends the attempts. */
  signal?: AbortSignal;
}

/** Pause before the n-th further attempt to connect, milliseconds: 250 doubling to 5,000. */
export function backoffMs(attempt: number): number {
  return Math.min(250 * 2 ** Math.min(attempt, 10), 5_000);
}

/**
 * Connects to NATS, trying until it succeeds; a lost connection is taken up again forever, and what was published
 * meanwhile is sent then. Nothing waits for this: callers work without NATS until the promise resolves.
 * @throws WeirError NatsAborted when `signal` ended it; nothing else
 */
export async function connectNats(options: NatsOptions): Promise<NatsConnection> {
  const { log, clock, signal } = options;
  for (let attempt = 0; ; attempt++) {
    if (signal?.aborted) throw new WeirError('NatsAborted', 'connecting to NATS was ended by this process');
    try {
      const connection = await connect(connectOptions(options));
      log.info({ nats: connection.getServer() }, 'connected to NATS');
      void logStatus(connection, log);
      leaveSilentServer(connection, clock, log);
      return connection;
    } catch (error) {
      const pause = backoffMs(attempt);
      const wrong = natsError(error, options);
      log.warn({ code: wrong.code, retryInMs: pause }, wrong.message);
      await new Promise<void>((resolve) => {
        const cancel = clock.after(pause, resolve);
        signal?.addEventListener('abort', () => (cancel(), resolve()), { once: true });
      });
    }
  }
}

/** Requests to JetStream are given up after so long, milliseconds: while a cluster of NATS elects a leader, nobody answers. */
export const jetStreamTimeoutMs = 2000;

/** JetStream's key-value stores over a connection. */
export function keyValueStores(connection: NatsConnection): Kvm {
  return new Kvm(jetstream(connection, { timeout: jetStreamTimeoutMs }));
}

function connectOptions(options: NatsOptions) {
  return {
    servers: options.url.split(',').map((server) => server.trim()),
    user: options.user,
    pass: options.password,
    name: options.name,
    tls: options.caFile ? { caFile: options.caFile } : undefined,
    timeout: 2_000,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 250,
    reconnectJitter: 250,
    // Credentials may be rotated on the server before they are here: keep trying.
    ignoreAuthErrorAbort: true,
  };
}

/** A server is asked this often whether it is there, and left when it did not answer for so long; milliseconds. */
const askEveryMs = 500;
const silentMs = 1_500;

/**
 * Goes to another server when this one does not answer. One whose machine was cut off says nothing of that, and heartbeats
 * that are lost on the way to it make a node look dead.
 */
function leaveSilentServer(connection: NatsConnection, clock: Clock, log: Logger): void {
  let askedAt: number | undefined;
  let lookedAt = clock.now();
  const look = () => {
    if (connection.isClosed()) return;
    const now = clock.now();
    // This process stood still: the answer may wait unread.
    if (askedAt !== undefined && now - lookedAt > 2 * askEveryMs) askedAt = now;
    lookedAt = now;
    if (askedAt === undefined) {
      askedAt = now;
      const answered = () => (askedAt = undefined);
      connection.rtt().then(answered, answered);
    } else if (now - askedAt > silentMs) {
      log.warn(
        { nats: connection.getServer(), silentMs: now - askedAt },
        'NATS does not answer; trying another server',
      );
      askedAt = undefined;
      connection.reconnect().catch(() => undefined);
    }
    clock.after(askEveryMs, look);
  };
  clock.after(askEveryMs, look);
}

/** What a failed connect means, in words; credentials are never in it. */
function natsError(error: unknown, options: NatsOptions): WeirError {
  if (error instanceof errors.AuthorizationError || /authorization|authentication/i.test(messageOf(error))) {
    const who = options.user ? `user "${options.user}"` : 'a client without credentials';
    const words = `NATS at ${options.url} refuses ${who}: check WEIR_NATS_USER and WEIR_NATS_PASSWORD`;
    return new WeirError('NatsAuthorization', words, { cause: error, where: options.url });
  }
  const words = `NATS at ${options.url} cannot be reached (${messageOf(error)}): check WEIR_NATS_URL; trying again`;
  return new WeirError('NatsUnreachable', words, { cause: error, where: options.url });
}

async function logStatus(connection: NatsConnection, log: Logger): Promise<void> {
  for await (const status of connection.status()) {
    if (status.type === 'disconnect') log.warn({ nats: status.server }, 'lost NATS; connecting again');
    else if (status.type === 'reconnect') log.info({ nats: status.server }, 'connected to NATS again');
    else if (status.type === 'error') log.warn({ err: status.error }, 'NATS reports an error');
  }
}
