import type { Subscription } from '@nats-io/transport-node';
import { Heartbeat, SignalOpen } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import type { Logger } from '#platform/log.ts';
import { subjects } from '#platform/subjects.ts';
import type { NatsLink } from './nats-link.ts';

/** Silence after which a peer is asked directly, milliseconds. */
const SUSPECT_MS = 600;
/**
 * Silence after which it is given up, milliseconds: what its NATS client may need to get to another server when its own is
 * gone. The operator passes its verdict much earlier, and the room's new route ends the session then.
 */
const GONE_MS = 6_000;
const TICK_MS = 200;

/** Called once when a peer is gone or was restarted. */
export type PeerGone = (reason: string) => void;

interface Watcher {
  /** Identity of the process that the watcher deals with. */
  instance: string;
  gone: PeerGone;
}

interface Peer {
  watchers: Set<Watcher>;
  seenAt: number;
  asking: boolean;
  subscription: Subscription | undefined;
}

/**
 * Tells when another node that this one shares a client with is gone, for whom nobody else tells. A silent peer is asked
 * first. That nobody listens is no proof that it is dead: its NATS server may be. While NATS itself does not answer, nobody is
 * given up.
 */
export class Peers {
  readonly #nats: NatsLink;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #peers = new Map<string, Peer>();
  #cancelTick: (() => void) | undefined;
  #tickedAt = 0;

  static create(options: { nats: NatsLink; clock: Clock; log: Logger }): Peers {
    return new Peers(options.nats, options.clock, options.log);
  }

  private constructor(nats: NatsLink, clock: Clock, log: Logger) {
    this.#nats = nats;
    this.#clock = clock;
    this.#log = log;
    nats.onConnected(() => this.#forgiveAll());
  }

  /** Watches one process of a peer (`instance`) for as long as the returned function was not called. */
  watch(node: string, instance: string, gone: PeerGone): () => void {
    const peer = this.#peers.get(node) ?? this.#add(node);
    const watcher = { instance, gone };
    peer.watchers.add(watcher);
    this.#scheduleTick();
    return () => {
      peer.watchers.delete(watcher);
      if (peer.watchers.size === 0) this.#remove(node, peer);
    };
  }

  close(): void {
    this.#cancelTick?.();
    for (const [node, peer] of this.#peers) this.#remove(node, peer);
  }

  #add(node: string): Peer {
    const peer: Peer = {
      watchers: new Set(),
      seenAt: this.#clock.now(),
      asking: false,
      subscription: undefined,
    };
    this.#peers.set(node, peer);
    peer.subscription = this.#nats.connection?.subscribe(subjects.heartbeat(node), {
      callback: (error, message) => {
        if (!error) this.#onHeartbeat(peer, message.data);
      },
    });
    return peer;
  }

  #onHeartbeat(peer: Peer, data: Uint8Array): void {
    const { instance } = Heartbeat.decode(data);
    peer.seenAt = this.#clock.now();
    for (const watcher of [...peer.watchers]) {
      if (watcher.instance !== instance) watcher.gone('it was restarted');
    }
  }

  #scheduleTick(): void {
    if (this.#cancelTick) return;
    this.#tickedAt = this.#clock.now();
    this.#cancelTick = this.#clock.after(TICK_MS, () => {
      this.#cancelTick = undefined;
      // This process stood still, or its machine slept: what it did not hear says nothing.
      if (this.#clock.now() - this.#tickedAt > 3 * TICK_MS) this.#forgiveAll();
      if (this.#nats.connected) for (const [node, peer] of this.#peers) void this.#check(node, peer);
      if (this.#peers.size > 0) this.#scheduleTick();
    });
  }

  async #check(node: string, peer: Peer): Promise<void> {
    const silent = this.#clock.now() - peer.seenAt;
    if (silent < SUSPECT_MS || peer.asking) return;
    peer.asking = true;
    try {
      await this.#nats.request(subjects.signalOpen(node), SignalOpen.encode(SignalOpen.create()).finish(), TICK_MS * 2);
      peer.seenAt = this.#clock.now();
    } catch {
      const late = this.#clock.now() - peer.seenAt >= GONE_MS;
      if (late && (await this.#nats.answers(TICK_MS * 2))) this.#giveUp(node, peer, 'it is silent');
    } finally {
      peer.asking = false;
    }
  }

  #giveUp(node: string, peer: Peer, reason: string): void {
    if (this.#peers.get(node) !== peer) return;
    this.#log.warn({ peer: node, reason, sessions: peer.watchers.size }, 'lost a node that clients are shared with');
    const watchers = [...peer.watchers];
    this.#remove(node, peer);
    for (const { gone } of watchers) gone(reason);
  }

  #forgiveAll(): void {
    for (const peer of this.#peers.values()) peer.seenAt = this.#clock.now();
  }

  #remove(node: string, peer: Peer): void {
    peer.subscription?.unsubscribe();
    if (this.#peers.get(node) === peer) this.#peers.delete(node);
  }
}
