import type { KV, KvWatchEntry } from '@nats-io/kv';
import type { NatsConnection, QueuedIterator } from '@nats-io/transport-node';
import { Route } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import { keyValueStores } from '#platform/nats.ts';
import type { Logger } from '#platform/log.ts';
import { routeKey, ROUTES_BUCKET } from '#platform/subjects.ts';

const retryMs = 500;

/**
 * Writes the routing table: which nodes serve a room, by its name. The leader's own copy of what it wrote makes writing
 * the same again free; a new leader learns the table by a watch.
 */
export class RouteTable {
  readonly #replicas: number;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #routes = new Map<string, Route>();
  readonly #listeners = new Set<(roomName: string) => void>();
  #bucket: KV | undefined;
  #watch: QueuedIterator<KvWatchEntry> | undefined;
  #generation = 0;
  /** Entries known before and not seen yet in the snapshot that a new watch begins with; undefined after it. */
  #missing: Set<string> | undefined;
  #closed = false;

  /** @param options.replicas servers of NATS that keep the table, when it has to be made */
  constructor(options: { replicas: number; clock: Clock; log: Logger }) {
    this.#replicas = options.replicas;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /**
   * Uses a connection: makes the bucket if there is none, and follows it. Called again after each reconnect, as NATS may
   * have come back without its data.
   */
  attach(connection: NatsConnection): void {
    this.#watch?.stop();
    void this.#follow(connection, ++this.#generation);
  }

  get(roomName: string): Route | undefined {
    return this.#routes.get(roomName);
  }

  /** The entry that was written for the Room object under a key (namespace/name), whatever its room's name. */
  ofObject(key: string): Route | undefined {
    return this.#routes.values().find(({ room }) => room && `${room.namespace}/${room.name}` === key);
  }

  /** Calls `listener` when an entry was changed by another than this process, or became known. */
  onChange(listener: (roomName: string) => void): void {
    this.#listeners.add(listener);
  }

  /** @throws WeirError RoutesUnavailable while NATS is away */
  async put(route: Route): Promise<void> {
    const roomName = route.room?.roomName ?? '';
    await this.#write('written', () => this.#kv().put(routeKey(roomName), Route.encode(route).finish()));
    this.#routes.set(roomName, route);
    this.#missing?.delete(roomName);
  }

  /** @throws WeirError RoutesUnavailable while NATS is away */
  async delete(roomName: string): Promise<void> {
    if (!this.#routes.has(roomName)) return;
    await this.#write('removed', () => this.#kv().delete(routeKey(roomName)));
    this.#routes.delete(roomName);
  }

  close(): void {
    this.#closed = true;
    this.#watch?.stop();
    this.#listeners.clear();
  }

  #kv(): KV {
    if (!this.#bucket) throw new Error('it was not found yet');
    return this.#bucket;
  }

  async #write(what: string, write: () => Promise<unknown>): Promise<void> {
    try {
      await write();
    } catch (error) {
      throw new WeirError(
        'RoutesUnavailable',
        `The routing table could not be ${what} (${messageOf(error)}); NATS with JetStream must be up.`,
        { cause: error },
      );
    }
  }

  /** Takes an entry as the watch tells it; true when that is news. */
  #take(roomName: string, value: Uint8Array | undefined): boolean {
    const known = this.#routes.get(roomName);
    if (!value) return this.#routes.delete(roomName);
    const route = Route.decode(value);
    // The echo of a write that was followed by a newer one.
    if (known && known.room?.uid === route.room?.uid && known.epoch >= route.epoch) return false;
    this.#routes.set(roomName, route);
    return true;
  }

  async #follow(connection: NatsConnection, generation: number): Promise<void> {
    const current = () => !this.#closed && generation === this.#generation && !connection.isClosed();
    while (current()) {
      try {
        await this.#followOnce(connection, current);
      } catch (error) {
        if (current()) this.#log.warn({ reason: messageOf(error) }, 'Routing table is not available; trying again');
      }
      await new Promise<void>((resolve) => this.#clock.after(retryMs, resolve));
    }
  }

  async #followOnce(connection: NatsConnection, current: () => boolean): Promise<void> {
    const options = { history: 1, replicas: this.#replicas, description: 'Which nodes serve a room' };
    const bucket = await keyValueStores(connection).create(ROUTES_BUCKET, options);
    const { values } = await bucket.status();
    const watch = await bucket.watch();
    if (!current()) return watch.stop();
    this.#bucket = bucket;
    this.#watch = watch;
    this.#missing = new Set(this.#routes.keys());
    if (values === 0) this.#dropMissing();
    for await (const entry of watch) {
      const roomName = Buffer.from(entry.key, 'base64url').toString('utf8');
      const value = entry.operation === 'PUT' ? entry.value : undefined;
      if (value) this.#missing?.delete(roomName);
      if (this.#take(roomName, value)) this.#tell(roomName);
      if ((entry.delta ?? 0) === 0) this.#dropMissing();
    }
  }

  /** The snapshot is read: what it did not have is gone, and is written again for the rooms that are served. */
  #dropMissing(): void {
    const missing = this.#missing ?? [];
    this.#missing = undefined;
    for (const roomName of missing) {
      const route = this.#routes.get(roomName);
      this.#routes.delete(roomName);
      this.#log.warn({ roomName, room: route?.room?.uid }, 'The routing table lost an entry');
      this.#tell(roomName);
    }
  }

  #tell(roomName: string): void {
    for (const listener of this.#listeners) listener(roomName);
  }
}
