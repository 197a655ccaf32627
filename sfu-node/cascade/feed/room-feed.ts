import { DisconnectReason, type ParticipantInfo } from '@livekit/protocol';
import type { Subscription } from '@nats-io/transport-node';
import { FeedEntries, RoomNow, type FeedReply, type FeedRequest, type RoomData } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { codeOf, messageOf } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { subjects } from '#platform/subjects.ts';
import type { FeedChange } from './feed-follower.ts';
import { FeedLog, feedLimits } from './feed-log.ts';
import { FeedPeer } from './feed-peer.ts';
import type { FeedOfRoom, Feeds } from './feeds.ts';

/** What the other nodes of the room say. */
export interface RoomFeedEvents {
  /** A participant on `node` joined or changed. */
  participant(node: string, info: ParticipantInfo): void;
  /** A participant on `node` is gone. */
  left(node: string, sid: string, reason: DisconnectReason): void;
  /** A participant on `node` sent a reliable data packet: in order, each once. */
  reliable(node: string, data: RoomData): void;
  /** Speakers, qualities and lossy data of `node` as they are now; what came before counts no more. */
  now(node: string, now: RoomNow): void;
}

export interface RoomFeedOptions {
  readonly roomUid: string;
  /** Name of this node. */
  readonly node: string;
  /** Start of the room on this node, milliseconds since the epoch; greater than at any earlier start here. */
  readonly incarnation: number;
  readonly feeds: Feeds;
  readonly clock: Clock;
  readonly log: Logger;
  readonly events: RoomFeedEvents;
}

/**
 * One room's membership and data between its nodes. Each node is the authority for its own participants: it tells the
 * others over NATS, and follows what they tell. While NATS is away, what was known stays; afterwards each asks for what
 * it missed. Without peers nothing is published or subscribed.
 */
export class RoomFeed implements FeedOfRoom {
  readonly #options: RoomFeedOptions;
  readonly #ownLog: FeedLog;
  readonly #peers = new Map<string, FeedPeer>();
  #subscriptions: Subscription[] = [];
  #nowSequence = 0;
  #closed = false;

  static create(options: RoomFeedOptions): RoomFeed {
    const feed = new RoomFeed(options);
    options.feeds.add(options.roomUid, feed);
    return feed;
  }

  private constructor(options: RoomFeedOptions) {
    this.#options = options;
    this.#ownLog = new FeedLog(options);
  }

  /**
   * Follows these nodes, the others of the room's placement. Of one that is not among them any more each participant
   * left (MIGRATION).
   */
  setPeers(nodes: readonly string[]): void {
    if (this.#closed) return;
    const wanted = new Set(nodes.filter((node) => node !== this.#options.node));
    for (const [node, peer] of [...this.#peers]) if (!wanted.has(node)) this.#drop(node, peer);
    const added = [...wanted].filter((node) => !this.#peers.has(node));
    for (const node of added) this.#peers.set(node, this.#follow(node));
    if (this.#peers.size === 0) return this.#unsubscribe();
    this.#subscribe();
    if (added.length > 0) this.digest();
    for (const node of added) this.#peers.get(node)?.askIfMissing();
  }

  /** A participant on this node joined or changed. */
  participant(info: ParticipantInfo): void {
    this.#say(() => this.#ownLog.participant(info));
  }

  /** A participant on this node is gone. */
  left(sid: string, reason: DisconnectReason): void {
    this.#say(() => this.#ownLog.left(sid, reason));
  }

  /** A participant on this node sent a reliable data packet. */
  reliable(data: RoomData): void {
    this.#say(() => this.#ownLog.reliable(data));
  }

  /** What goes on with participants on this node now. Lost while NATS is away. */
  now(now: Pick<RoomNow, 'speakers' | 'qualities' | 'data'>): void {
    if (this.#closed || this.#peers.size === 0) return;
    const { roomUid, node, incarnation, feeds, log } = this.#options;
    const message = RoomNow.encode({ ...now, node, incarnation, sequence: ++this.#nowSequence }).finish();
    if (message.length > feedLimits.messageBytes) {
      feeds.metrics.feedMessagesDropped.inc({ reason: 'TooLarge' });
      return log.warn(
        { room: roomUid, bytes: message.length },
        'lossy data was too much for one message to other nodes',
      );
    }
    feeds.publish(subjects.roomNow(roomUid), message);
  }

  answer(request: FeedRequest): FeedReply {
    return this.#ownLog.answer(request);
  }

  digest(): void {
    this.#publish(this.#ownLog.digest());
  }

  connected(): void {
    if (this.#peers.size === 0) return;
    this.#subscribe();
    this.digest();
    for (const peer of [...this.#peers.values()]) peer.connected();
  }

  /** Ends it, without a word to the peers and without events. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.feeds.remove(this.#options.roomUid, this);
    for (const peer of this.#peers.values()) peer.close();
    this.#peers.clear();
    this.#unsubscribe();
  }

  #follow(node: string): FeedPeer {
    const { roomUid, feeds, clock, log } = this.#options;
    const onChanges = (changes: FeedChange[]) => this.#emit(node, peer, changes);
    const peer: FeedPeer = new FeedPeer({ roomUid, node, nats: feeds.nats, clock, log, onChanges });
    return peer;
  }

  #drop(node: string, peer: FeedPeer): void {
    peer.close();
    const changes = peer.follower.end(DisconnectReason.MIGRATION);
    this.#emit(node, peer, changes);
    this.#peers.delete(node);
  }

  /** Appends to the feed and publishes that. What is not published now is asked for by the peers. */
  #say(append: () => FeedEntries | undefined): void {
    if (this.#closed) return;
    const { roomUid, feeds, log } = this.#options;
    try {
      const run = append();
      if (run) this.#publish(run);
    } catch (error) {
      feeds.metrics.feedMessagesDropped.inc({
        reason: codeOf(error) === 'FeedEntryTooLarge' ? 'TooLarge' : 'Internal',
      });
      log.warn(
        { room: roomUid, code: codeOf(error), reason: messageOf(error) },
        'other nodes of the room are not told',
      );
    }
  }

  #publish(run: FeedEntries): void {
    const { feeds, roomUid } = this.#options;
    if (this.#peers.size > 0) feeds.publish(subjects.roomFeed(roomUid), FeedEntries.encode(run).finish());
  }

  #subscribe(): void {
    const { roomUid, feeds } = this.#options;
    const { connection, connected } = feeds.nats;
    if (this.#subscriptions.length > 0 || !connection || !connected) return; // connected() comes back to it.
    const listen = (subject: string, take: (data: Uint8Array) => void) =>
      connection.subscribe(subject, {
        callback: (error, message) => {
          if (!error) this.#guard(() => take(message.data));
        },
      });
    this.#subscriptions = [
      listen(subjects.roomFeed(roomUid), (data) => this.#onEntries(data)),
      listen(subjects.roomNow(roomUid), (data) => this.#onNow(data)),
    ];
  }

  #unsubscribe(): void {
    for (const subscription of this.#subscriptions.splice(0)) {
      if (!this.#options.feeds.nats.connection?.isClosed()) subscription.unsubscribe();
    }
  }

  #onEntries(data: Uint8Array): void {
    const run = this.#read(() => FeedEntries.decode(data));
    if (run) this.#peers.get(run.node)?.entries(run);
  }

  #onNow(data: Uint8Array): void {
    const now = this.#read(() => RoomNow.decode(data));
    const peer = now && this.#peers.get(now.node);
    if (!peer) return;
    if (peer.follower.now(now.incarnation, now.sequence)) this.#options.events.now(now.node, now);
    peer.askIfMissing(); // It may be the first word of a later incarnation.
  }

  #read<T>(decode: () => T): T | undefined {
    try {
      return decode();
    } catch {
      this.#options.feeds.metrics.feedMessagesDropped.inc({ reason: 'Malformed' });
      return undefined;
    }
  }

  #emit(node: string, peer: FeedPeer, changes: FeedChange[]): void {
    for (const change of changes) {
      // An event may have ended this feed or dropped the peer.
      if (this.#peers.get(node) !== peer) return;
      this.#guard(() => this.#emitOne(node, change));
    }
  }

  #emitOne(node: string, change: FeedChange): void {
    const { events, feeds } = this.#options;
    const { metrics } = feeds;
    switch (change.kind) {
      case 'participant':
        return events.participant(node, change.info);
      case 'left':
        return events.left(node, change.sid, change.reason);
      case 'data':
        return events.reliable(node, change.data);
      case 'gap':
        return metrics.feedGaps.inc();
      case 'lost':
        return metrics.feedDataLost.inc(change.packets);
      case 'malformed':
        return metrics.feedMessagesDropped.inc({ reason: 'Malformed' });
    }
  }

  /** What a listener throws must not end a subscription or hold up the others. */
  #guard(take: () => void): void {
    try {
      take();
    } catch (error) {
      this.#options.log.error({ err: error, room: this.#options.roomUid }, "a message of a room's feed was not taken");
    }
  }
}
