import type { NatsConnection, Subscription } from '@nats-io/transport-node';
import { Route } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { messageOf } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { RouteFeed } from '#platform/route-feed.ts';
import { ROUTES_BUCKET, subjects } from '#platform/subjects.ts';
import type { NatsLink } from './nats-link.ts';

export type RouteListener = (roomName: string, route: Route | undefined) => void;

/**
 * The routing table as this node knows it: every entry, followed as it changes. When NATS is away, the last known state
 * stays in use; after a reconnect the table is read anew and what is gone by then is dropped.
 */
export class Routes {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #feed: RouteFeed;
  readonly #routes = new Map<string, Route>();
  readonly #listeners = new Set<RouteListener>();
  #announcements: Subscription | undefined;
  #synced = false;

  static create(options: { nats: NatsLink; clock: Clock; log: Logger }): Routes {
    const routes = new Routes(options.clock, options.log);
    options.nats.onConnected((connection) => routes.#follow(connection));
    return routes;
  }

  private constructor(clock: Clock, log: Logger) {
    this.#clock = clock;
    this.#log = log;
    this.#feed = new RouteFeed({
      open: (stores) => stores.open(ROUTES_BUCKET),
      known: () => this.#routes.keys(),
      onEntry: (roomName, route) => this.#take(roomName, route),
      onMissing: (roomName) => this.#set(roomName, undefined),
      onSynced: () => this.#onSynced(),
      clock,
      log,
    });
  }

  /** True once the whole table was read. */
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

  async close(): Promise<void> {
    this.#listeners.clear();
    await this.#feed.close();
  }

  #follow(connection: NatsConnection): void {
    this.#feed.attach(connection);
    // Again with each connection: the server may have refused the one before.
    this.#announcements?.unsubscribe();
    this.#announcements = connection.subscribe(subjects.route, {
      callback: (error, { data }) => {
        if (!error) this.#onAnnounced(data);
      },
    });
  }

  /** A route that is being written. Where a room moves is known at once; of rooms that come and go the table tells. */
  #onAnnounced(data: Uint8Array): void {
    let route: Route;
    try {
      route = Route.decode(data);
    } catch (error) {
      return this.#log.error({ reason: messageOf(error) }, 'A route that was announced cannot be read');
    }
    const roomName = route.room?.roomName ?? '';
    const known = this.#routes.get(roomName);
    if (known && known.room?.uid === route.room?.uid && route.epoch > known.epoch) this.#set(roomName, route);
  }

  #take(roomName: string, route: Route | undefined): void {
    const known = this.#routes.get(roomName);
    // Behind what was announced, or a late write of a leader that was deposed: the room is further already.
    if (route && known && known.room?.uid === route.room?.uid && known.epoch > route.epoch) return;
    this.#set(roomName, route);
  }

  #set(roomName: string, route: Route | undefined): void {
    if (route) this.#routes.set(roomName, route);
    else if (!this.#routes.delete(roomName)) return;
    for (const listener of [...this.#listeners]) listener(roomName, route);
  }

  #onSynced(): void {
    if (!this.#synced) this.#log.info({ routes: this.#routes.size }, 'routing table read');
    this.#synced = true;
  }
}
