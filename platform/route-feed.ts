import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager, type ConsumerMessages } from '@nats-io/jetstream';
import type { KV, Kvm } from '@nats-io/kv';
import { createInbox, nanos, type NatsConnection } from '@nats-io/transport-node';
import { Route } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from './clock.ts';
import { messageOf } from './errors.ts';
import type { Logger } from './log.ts';
import { jetStreamTimeoutMs, keyValueStores } from './nats.ts';
import { roomNameOfKey, ROUTES_BUCKET } from './subjects.ts';

/** Options of {@link RouteFeed}. */
export interface RouteFeedOptions {
  /** Finds the routing table, or makes it. Rejects when that is not possible now. */
  open: (stores: Kvm) => Promise<KV>;
  /** Names of the rooms whose entries are known. */
  known: () => Iterable<string>;
  /** Told an entry as it is in the table; `undefined` when it was removed. Old ones may be told again. */
  onEntry: (roomName: string, route: Route | undefined) => void;
  /** Told of an entry that was known and is not in the table that is followed now. */
  onMissing: (roomName: string) => void;
  /** Told when every entry has been told. */
  onSynced?: () => void;
  clock: Clock;
  log: Logger;
}

/** Pause before the table is looked for again, milliseconds. The leading operator makes it. */
const retryMs = 500;
/** A feed that is being set up while this ends is waited for so long, milliseconds. */
const closeMs = 1000;
/**
 * The server that feeds us says so often that it is there; when it failed to twice, another one is asked. A watch of NATS's
 * KV client has 30 s here, and a server that went with its machine would leave us with an old table for as many as 90 s.
 */
const heartbeatMs = 1000;

/** Follows the routing table in NATS: all of it first, then each change; anew after every reconnect. */
export class RouteFeed {
  readonly #options: RouteFeedOptions;
  /** Feeds that are being set up or followed. */
  readonly #running = new Set<Promise<void>>();
  #bucket: KV | undefined;
  #messages: ConsumerMessages | undefined;
  #generation = 0;
  /** Rooms that were known before and are not told of yet; undefined once every entry has been told. */
  #missing: Set<string> | undefined;

  constructor(options: RouteFeedOptions) {
    this.#options = options;
  }

  /** The table to write to, once it was found. */
  get bucket(): KV | undefined {
    return this.#bucket;
  }

  /** Follows the table over a connection. Called again after each reconnect, as NATS may have come back without its data. */
  attach(connection: NatsConnection): void {
    this.#messages?.stop();
    const generation = ++this.#generation;
    const run = this.#run(connection, () => generation === this.#generation && !connection.isClosed());
    this.#running.add(run);
    void run.finally(() => this.#running.delete(run));
  }

  /** Says that an entry is in the table, whatever is told of it. */
  wrote(roomName: string): void {
    this.#missing?.delete(roomName);
  }

  /** Ends; also a feed that is just being set up, as NATS's client would keep its timers for ever. */
  async close(): Promise<void> {
    this.#generation++;
    this.#messages?.stop();
    const late = new Promise<void>((resolve) => this.#options.clock.after(closeMs, resolve));
    await Promise.race([Promise.allSettled(this.#running), late]);
  }

  async #run(connection: NatsConnection, isCurrent: () => boolean): Promise<void> {
    const { clock, log } = this.#options;
    let told = false;
    while (isCurrent()) {
      try {
        await this.#follow(connection, isCurrent, () => {
          if (told) log.info('Routing table is followed again');
          told = false;
        });
      } catch (error) {
        if (!isCurrent()) return;
        log[told ? 'debug' : 'warn']({ reason: messageOf(error) }, 'Routing table cannot be followed; trying again');
        told = true;
      }
      if (isCurrent()) await new Promise<void>((resolve) => clock.after(retryMs, resolve));
    }
  }

  /** Follows the table until that ends: rejects unless we ended it. */
  async #follow(connection: NatsConnection, isCurrent: () => boolean, onSynced: () => void): Promise<void> {
    const bucket = await this.#options.open(keyValueStores(connection));
    const deliverTo = { deliver_subject: createInbox(), idle_heartbeat: nanos(heartbeatMs) };
    const { consumers } = jetstream(connection);
    const messages = await (await consumers.getBoundPushConsumer(deliverTo)).consume();
    try {
      const manager = await jetstreamManager(connection, { timeout: jetStreamTimeoutMs, checkAPI: false });
      const { num_pending: entries } = await manager.consumers.add(`KV_${ROUTES_BUCKET}`, {
        ...deliverTo,
        deliver_policy: DeliverPolicy.LastPerSubject,
        filter_subject: `$KV.${ROUTES_BUCKET}.>`,
        ack_policy: AckPolicy.None,
        flow_control: true,
        mem_storage: true,
        num_replicas: 1,
      });
      if (!isCurrent()) return;
      this.#bucket = bucket;
      this.#messages = messages;
      this.#missing = new Set(this.#options.known());
      const synced = () => {
        this.#synced();
        onSynced();
      };
      if (entries === 0) synced();
      await this.#read(messages, synced);
    } finally {
      messages.stop();
    }
    if (isCurrent()) throw new Error('the feed ended');
  }

  async #read(messages: ConsumerMessages, synced: () => void): Promise<void> {
    let isSilent = false;
    void (async () => {
      for await (const { type } of messages.status()) {
        if (type !== 'heartbeats_missed') continue;
        isSilent = true;
        messages.stop();
      }
    })();
    let delivered = 0;
    for await (const { subject, data, headers, info } of messages) {
      delivered += 1;
      if (info.deliverySequence !== delivered) throw new Error('an entry got lost on the way');
      const roomName = roomNameOfKey(subject.slice(subject.lastIndexOf('.') + 1));
      this.#tell(roomName, headers?.has('KV-Operation') ? undefined : data);
      if (this.#missing && info.pending === 0) synced();
    }
    if (isSilent) throw new Error('its server fell silent');
  }

  /** @param data of the entry; none when it was removed */
  #tell(roomName: string, data: Uint8Array | undefined): void {
    const { onEntry, log } = this.#options;
    if (!data) return onEntry(roomName, undefined);
    this.wrote(roomName);
    let route: Route;
    try {
      route = Route.decode(data);
    } catch (error) {
      return log.error({ roomName, reason: messageOf(error) }, 'An entry of the routing table cannot be read');
    }
    onEntry(roomName, route);
  }

  #synced(): void {
    const missing = this.#missing ?? [];
    this.#missing = undefined;
    for (const roomName of missing) this.#options.onMissing(roomName);
    this.#options.onSynced?.();
  }
}
