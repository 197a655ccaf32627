import type { Msg, NatsConnection } from '@nats-io/transport-node';
import { FeedReply, FeedRequest } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { subjects } from '#platform/subjects.ts';
import type { NatsLink } from '#sfu-node/coordination/nats-link.ts';
import type { NodeMetrics } from '#sfu-node/metrics.ts';

/** How often a room's peers are told how far its feed is, so that they notice when the last entries were lost, milliseconds. */
const DIGEST_MS = 300;

/** A room's feed, as {@link Feeds} sees it. */
export interface FeedOfRoom {
  /** Answers another node's request for what this node says of the room. */
  answer(request: FeedRequest): FeedReply;
  /** NATS is there, for the first time or again. */
  connected(): void;
  /** Tells the room's peers, if it has any, how far the feed is. */
  digest(): void;
}

export interface FeedsOptions {
  /** Name of this node. */
  readonly node: string;
  readonly nats: NatsLink;
  readonly metrics: NodeMetrics;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The feeds of all rooms of this node: requests of other nodes find their room here. */
export class Feeds {
  readonly node: string;
  readonly nats: NatsLink;
  readonly metrics: NodeMetrics;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #rooms = new Map<string, FeedOfRoom>();
  #cancelDigests: (() => void) | undefined;

  static create(options: FeedsOptions): Feeds {
    const feeds = new Feeds(options);
    options.nats.onConnected((connection, first) => {
      if (first) feeds.#subscribe(connection); // Subscriptions outlive a reconnect.
      for (const room of feeds.#rooms.values()) room.connected();
    });
    return feeds;
  }

  private constructor({ node, nats, metrics, clock, log }: FeedsOptions) {
    this.node = node;
    this.nats = nats;
    this.metrics = metrics;
    this.#clock = clock;
    this.#log = log;
  }

  add(roomUid: string, room: FeedOfRoom): void {
    this.#rooms.set(roomUid, room);
    if (!this.#cancelDigests) this.#scheduleDigests();
  }

  remove(roomUid: string, room: FeedOfRoom): void {
    if (this.#rooms.get(roomUid) === room) this.#rooms.delete(roomUid);
    if (this.#rooms.size > 0) return;
    this.#cancelDigests?.();
    this.#cancelDigests = undefined;
  }

  /**
   * Publishes a message while NATS is there; it is not stored up for later.
   * @returns whether it went out
   */
  publish(subject: string, message: Uint8Array): boolean {
    const { connection, connected } = this.nats;
    if (!connection || !connected || connection.isClosed()) return false;
    try {
      connection.publish(subject, message);
      return true;
    } catch (error) {
      this.#log.warn({ subject, reason: messageOf(error) }, 'a message to the other nodes of a room was not sent');
      return false;
    }
  }

  #scheduleDigests(): void {
    this.#cancelDigests = this.#clock.after(DIGEST_MS, () => {
      this.#scheduleDigests();
      for (const room of this.#rooms.values()) room.digest();
    });
  }

  #subscribe(connection: NatsConnection): void {
    connection.subscribe(subjects.feed(this.node), {
      callback: (error, message) => {
        if (!error) this.#onRequest(message);
      },
    });
  }

  #onRequest(message: Msg): void {
    try {
      message.respond(FeedReply.encode(this.#answer(message.data)).finish());
    } catch (error) {
      this.#log.warn({ reason: messageOf(error) }, "a request for a room's feed could not be answered");
    }
  }

  #answer(data: Uint8Array): FeedReply {
    let request: FeedRequest;
    try {
      request = FeedRequest.decode(data);
    } catch (error) {
      this.metrics.feedMessagesDropped.inc({ reason: 'Malformed' });
      return refusal(new WeirError('FeedMalformed', `a FeedRequest cannot be read: ${messageOf(error)}`));
    }
    const room = this.#rooms.get(request.roomUid);
    if (room) return room.answer(request);
    return refusal(new WeirError('RoomNotServed', `room ${request.roomUid} is not served by ${this.node}`));
  }
}

function refusal({ code, message }: WeirError): FeedReply {
  return { result: { $case: 'error', value: { code, message } } };
}
