import type { KV } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/transport-node';
import { Route } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { RouteFeed } from '#platform/route-feed.ts';
import { routeKey, ROUTES_BUCKET, subjects } from '#platform/subjects.ts';

/**
 * Writes the routing table: which nodes serve a room, by its name. The leader's own copy of what it wrote makes writing
 * the same again free; a new leader learns the table by following it.
 */
export class RouteTable {
  readonly #log: Logger;
  readonly #feed: RouteFeed;
  readonly #routes = new Map<string, Route>();
  /** Routes that are being written, encoded. */
  readonly #writing = new Set<Uint8Array>();
  readonly #listeners = new Set<(roomName: string) => void>();
  #connection: NatsConnection | undefined;

  /** @param options.replicas servers of NATS that keep the table, when it has to be made */
  constructor(options: { replicas: number; clock: Clock; log: Logger }) {
    const { replicas, clock, log } = options;
    this.#log = log;
    const create = { history: 1, replicas, description: 'Which nodes serve a room' };
    this.#feed = new RouteFeed({
      open: (stores) => stores.create(ROUTES_BUCKET, create),
      known: () => this.#routes.keys(),
      onEntry: (roomName, route) => this.#take(roomName, route),
      onMissing: (roomName) => this.#lost(roomName),
      clock,
      log,
    });
  }

  /** Uses a connection: makes the table if there is none, and follows it. Called again after each reconnect. */
  attach(connection: NatsConnection): void {
    this.#connection = connection;
    this.#feed.attach(connection);
    // What the connection before it took may have gone nowhere.
    for (const encoded of this.#writing) this.#announce(encoded);
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

  /**
   * Tells the nodes of a route, and writes it. They go by what they were told also when the table cannot be written now.
   * @throws WeirError RoutesUnavailable while NATS is away
   */
  async put(route: Route): Promise<void> {
    const roomName = route.room?.roomName ?? '';
    const encoded = Route.encode(route).finish();
    this.#writing.add(encoded);
    try {
      this.#announce(encoded);
      await this.#write('written', (table) => table.put(routeKey(roomName), encoded));
    } finally {
      this.#writing.delete(encoded);
    }
    this.#routes.set(roomName, route);
    this.#feed.wrote(roomName);
  }

  /** @throws WeirError RoutesUnavailable while NATS is away */
  async delete(roomName: string): Promise<void> {
    if (!this.#routes.has(roomName)) return;
    await this.#write('removed', (table) => table.delete(routeKey(roomName)));
    this.#routes.delete(roomName);
  }

  async close(): Promise<void> {
    this.#listeners.clear();
    await this.#feed.close();
  }

  #announce(encoded: Uint8Array): void {
    if (this.#connection?.isClosed() === false) this.#connection.publish(subjects.route, encoded);
  }

  async #write(what: string, write: (table: KV) => Promise<unknown>): Promise<void> {
    try {
      if (!this.#feed.bucket) throw new Error('it was not found yet');
      await write(this.#feed.bucket);
    } catch (error) {
      throw new WeirError(
        'RoutesUnavailable',
        `The routing table could not be ${what} (${messageOf(error)}); NATS with JetStream must be up.`,
        { cause: error },
      );
    }
  }

  #take(roomName: string, route: Route | undefined): void {
    const known = this.#routes.get(roomName);
    if (!route) {
      if (this.#routes.delete(roomName)) this.#tell(roomName);
      return;
    }
    // The echo of a write that was followed by a newer one.
    if (known && known.room?.uid === route.room?.uid && known.epoch >= route.epoch) return;
    this.#routes.set(roomName, route);
    this.#tell(roomName);
  }

  /** It is written again, if its room is served. */
  #lost(roomName: string): void {
    const route = this.#routes.get(roomName);
    this.#routes.delete(roomName);
    this.#log.warn({ roomName, room: route?.room?.uid }, 'The routing table lost an entry');
    this.#tell(roomName);
  }

  #tell(roomName: string): void {
    for (const listener of this.#listeners) listener(roomName);
  }
}
