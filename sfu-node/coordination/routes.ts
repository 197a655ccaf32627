import type { KvWatchEntry } from '@nats-io/kv';
import type { NatsConnection, QueuedIterator } from '@nats-io/transport-node';
import { Route } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { messageOf } from '#platform/errors.ts';
import { keyValueStores } from '#platform/nats.ts';
import type { Logger } from '#platform/log.ts';
import { ROUTES_BUCKET } from '#platform/subjects.ts';
import type { NatsLink } from './nats-link.ts';

export type RouteListener = (roomName: string, route: Route | undefined) => void;

/** Pause before the bucket is looked for again, milliseconds. The leading operator makes it. */
const RETRY_MS = 500;
/** A watch that is being made while this ends is waited for so long, milliseconds. */
const CLOSE_MS = 1000;

/**
 * The routing table as this node knows it: every entry of the KV bucket, followed by a watch. When NATS is away, the
 * last known state stays in use; after a reconnect the watch starts anew and what is gone by then is dropped.
 */
export class Routes {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #routes = new Map<string, Route>();
  readonly #listeners = new Set<RouteListener>();
  /** Watches that are being made or followed. */
  readonly #watching = new Set<Promise<void>>();
  #watch: QueuedIterator<KvWatchEntry> | undefined;
  #generation = 0;
  #synced = false;

  static create(options: { nats: NatsLink; clock: Clock; log: Logger }): Routes {
    const routes = new Routes(options.clock, options.log);
    options.nats.onConnected((connection) => routes.#follow(connection));
    return routes;
  }

  private constructor(clock: Clock, log: Logger) {
    this.#clock = clock;
    this.#log = log;
  }

  /** True once a whole snapshot of the table was read. */
  get synced(): boolean {
    return this.#synced;
  }

  get(roomName: string): Route | undefined {
    return this.#routes.get(roomName);
  }

  /** Calls `listener` on every change; the returned function ends that. */
  onChange(listener: RouteListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Waits until the room's route satisfies `predicate`, `timeoutMs` have passed or `signal` fires, and answers with the
   * route as it is then.
   */
  waitFor(
    roomName: string,
    predicate: (route: Route | undefined) => boolean,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<Route | undefined> {
    return new Promise((resolve) => {
      const finish = () => {
        cancel();
        unlisten();
        signal?.removeEventListener('abort', finish);
        resolve(this.#routes.get(roomName));
      };
      const cancel = this.#clock.after(timeoutMs, finish);
      const unlisten = this.onChange((name, route) => {
        if (name === roomName && predicate(route)) finish();
      });
      if (signal?.aborted || predicate(this.#routes.get(roomName))) finish();
      else signal?.addEventListener('abort', finish);
    });
  }

  /** Ends the watch, also one that is just being made: NATS's client would keep its timer for ever. */
  async close(): Promise<void> {
    this.#generation++;
    this.#watch?.stop();
    this.#listeners.clear();
    const late = new Promise<void>((resolve) => this.#clock.after(CLOSE_MS, resolve));
    await Promise.race([Promise.allSettled(this.#watching), late]);
  }

  /** Follows the bucket until the next reconnect or close. */
  #follow(connection: NatsConnection): void {
    const generation = ++this.#generation;
    this.#watch?.stop();
    this.#watch = undefined;
    void this.#run(connection, generation);
  }

  async #run(connection: NatsConnection, generation: number): Promise<void> {
    let told = false;
    while (generation === this.#generation && !connection.isClosed()) {
      try {
        const watching = this.#watchOnce(connection, generation);
        this.#watching.add(watching);
        await watching.finally(() => this.#watching.delete(watching));
      } catch (error) {
        if (generation !== this.#generation) return;
        if (!told) this.#log.warn({ reason: messageOf(error) }, 'routing table is not there yet; trying again');
        told = true;
      }
      await new Promise<void>((resolve) => this.#clock.after(RETRY_MS, resolve));
    }
  }

  async #watchOnce(connection: NatsConnection, generation: number): Promise<void> {
    const bucket = await keyValueStores(connection).open(ROUTES_BUCKET);
    const { values } = await bucket.status();
    const watch = await bucket.watch();
    if (generation !== this.#generation) return watch.stop();
    this.#watch = watch;
    // Rooms that were known before and are not in the new snapshot are gone.
    let missing: Set<string> | undefined = new Set(this.#routes.keys());
    const settle = () => {
      for (const name of missing ?? []) this.#set(name, undefined);
      missing = undefined;
      if (!this.#synced) this.#log.info({ routes: this.#routes.size }, 'routing table read');
      this.#synced = true;
    };
    if (values === 0) settle();
    for await (const entry of watch) {
      const roomName = Buffer.from(entry.key, 'base64url').toString('utf8');
      if (entry.operation === 'PUT') missing?.delete(roomName);
      this.#take(roomName, entry);
      if (missing && (entry.delta ?? 0) === 0) settle();
    }
  }

  #take(roomName: string, entry: KvWatchEntry): void {
    if (entry.operation !== 'PUT') return this.#set(roomName, undefined);
    let route: Route;
    try {
      route = Route.decode(entry.value);
    } catch (error) {
      return this.#log.error({ roomName, reason: messageOf(error) }, 'an entry of the routing table cannot be read');
    }
    const known = this.#routes.get(roomName);
    // A late write of a leader that was deposed: the room is further already.
    if (known && known.room?.uid === route.room?.uid && known.epoch > route.epoch) return;
    this.#set(roomName, route);
  }

  #set(roomName: string, route: Route | undefined): void {
    if (route) this.#routes.set(roomName, route);
    else if (!this.#routes.delete(roomName)) return;
    for (const listener of [...this.#listeners]) listener(roomName, route);
  }
}
