import { randomUUID } from 'node:crypto';
import type { Msg } from '@nats-io/transport-node';
import { type Route, SignalOpen, SignalOpenReply } from '#proto/weir/fleet/v1/fleet.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { Clock } from '#platform/clock.ts';
import type { Logger } from '#platform/log.ts';
import { subjects } from '#platform/subjects.ts';
import type { NodeMetrics } from '#sfu-node/metrics.ts';
import type { JoinIntent } from '#sfu-node/signal/claims.ts';
import { paramsFromIntent } from '#sfu-node/signal/intent.ts';
import { closeCodes } from '#sfu-node/signal/leave.ts';
import type { NatsLink } from './nats-link.ts';
import type { Peers } from './peers.ts';
import { FrameReader, FrameWriter, isClose, strayClose } from './relay-frames.ts';
import type { Routes } from './routes.ts';

/** A serving node answers an open within this, or is taken for dead; milliseconds. */
const OPEN_TIMEOUT_MS = 2_000;

export interface RelayHandlers {
  /** An encoded SignalResponse for the client. */
  message(bytes: Uint8Array): void;
  /** The serving node ended the session: what it had to say was said. */
  close(code: number, reason: string): void;
  /** The serving node, or frames to or from it, are lost; the client has to join anew. Nothing follows. */
  lost(reason: string): void;
}

export interface RelayHolderOptions {
  node: string;
  /** Identity of this process. */
  instance: string;
  nats: NatsLink;
  peers: Peers;
  routes: Routes;
  metrics: NodeMetrics;
  clock: Clock;
  log: Logger;
}

/** The holder's side of relayed sessions: this node has the WebSockets, others serve the rooms. */
export class RelayHolder {
  readonly #options: RelayHolderOptions;
  readonly #sessions = new Map<string, HeldSession>();
  #closed = false;

  static create(options: RelayHolderOptions): RelayHolder {
    const holder = new RelayHolder(options);
    options.nats.onConnected((connection, first) => {
      if (!first) return; // Subscriptions outlive a reconnect.
      connection.subscribe(subjects.signalDown(options.node, '*'), {
        callback: (error, message) => {
          if (!error) holder.#onFrame(message);
        },
      });
    });
    options.routes.onChange((roomName, route) => holder.#onRoute(roomName, route));
    return holder;
  }

  private constructor(options: RelayHolderOptions) {
    this.#options = options;
  }

  /**
   * Asks a node to take a client. The session's messages wait until {@link RelayedSession.start}.
   * @throws WeirError NodeUnreachable when it is dead or silent, NatsUnavailable, or what the node answered (RoomNotServed, ...)
   */
  async open(servingNode: string, route: Route, intent: JoinIntent): Promise<RelayedSession> {
    const { node, instance, nats } = this.#options;
    const id = randomUUID();
    const session = new HeldSession(id, servingNode, route, this.#options, () => this.#forget(id));
    // Frames may come before the reply does.
    this.#sessions.set(id, session);
    this.#count();
    try {
      const open = SignalOpen.encode({
        session: id,
        holder: node,
        holderInstance: instance,
        room: route.room,
        epoch: route.epoch,
        claimsJson: JSON.stringify(intent.claims),
        params: paramsFromIntent(intent),
      }).finish();
      const data = await nats.request(subjects.signalOpen(servingNode), open, OPEN_TIMEOUT_MS);
      const reply = SignalOpenReply.decode(data);
      if (reply.error) throw new WeirError(reply.error.code, reply.error.message, { where: servingNode });
      if (this.#closed) throw new WeirError('NodeDraining', 'this node is closing');
      session.watch(reply.instance);
      return session;
    } catch (error) {
      session.close(closeCodes.normal, 'not opened');
      throw unreachable(error, servingNode);
    }
  }

  /** How long ago the newest of the sessions here was opened, milliseconds; Infinity when there is none. */
  get newestAgeMs(): number {
    const now = this.#options.clock.now();
    return Math.min(Infinity, ...[...this.#sessions.values()].map(({ openedAt }) => now - openedAt));
  }

  /** Lets every client here go, to come back through another node: its media goes on meanwhile. */
  close(reason: string): void {
    this.#closed = true;
    for (const session of [...this.#sessions.values()]) session.handOver(reason);
  }

  #onFrame(message: Msg): void {
    const id = message.subject.slice(message.subject.lastIndexOf('.') + 1);
    const session = this.#sessions.get(id);
    if (session) session.receive(message.data);
    else if (message.reply && !isClose(message.data)) {
      this.#options.nats.connection?.publish(message.reply, strayClose('the holder does not know this session'));
    }
  }

  /** The room moved to another node: the clients that this node holds come along at once. */
  #onRoute(roomName: string, route: Route | undefined): void {
    if (!route) return;
    for (const session of [...this.#sessions.values()]) {
      if (session.roomName !== roomName) continue;
      const same = session.roomUid === route.room?.uid && route.nodes.some((placed) => placed.node === session.node);
      if (!same) session.lose('the room is served by another node now');
    }
  }

  #forget(id: string): void {
    if (this.#sessions.delete(id)) this.#count();
  }

  #count(): void {
    this.#options.metrics.relayedSessions.set({ side: 'holder' }, this.#sessions.size);
  }
}

function unreachable(error: unknown, node: string): unknown {
  if (error instanceof WeirError && (error.code === 'NoResponders' || error.code === 'RequestTimeout')) {
    const words = `node ${node} serves the room and does not answer`;
    return new WeirError('NodeUnreachable', words, { where: node, cause: error });
  }
  return error;
}

/** One client whose WebSocket is here and whose room is served elsewhere. */
export interface RelayedSession {
  /** Name of the serving node. */
  readonly node: string;
  start(handlers: RelayHandlers): void;
  /** Passes an encoded SignalRequest on. */
  send(bytes: Uint8Array): void;
  /** The client is gone. Idempotent. */
  close(code: number, reason: string): void;
}

type Event = (handlers: RelayHandlers) => void;

class HeldSession implements RelayedSession {
  readonly node: string;
  readonly roomName: string;
  readonly roomUid: string;
  /** Milliseconds since the epoch. */
  readonly openedAt: number;
  readonly #id: string;
  readonly #options: RelayHolderOptions;
  readonly #forget: () => void;
  readonly #reader = new FrameReader();
  readonly #writer = new FrameWriter();
  #handlers: RelayHandlers | undefined;
  #waiting: Event[] = [];
  #unwatch: () => void = () => {};
  #closed = false;

  constructor(id: string, node: string, route: Route, options: RelayHolderOptions, forget: () => void) {
    this.#id = id;
    this.node = node;
    this.openedAt = options.clock.now();
    this.roomName = route.room?.roomName ?? '';
    this.roomUid = route.room?.uid ?? '';
    this.#options = options;
    this.#forget = forget;
  }

  /** Follows the life of the process that took the client. */
  watch(instance: string): void {
    if (!this.#closed) this.#unwatch = this.#options.peers.watch(this.node, instance, (reason) => this.lose(reason));
  }

  start(handlers: RelayHandlers): void {
    this.#handlers = handlers;
    for (const event of this.#waiting.splice(0)) event(handlers);
  }

  send(bytes: Uint8Array): void {
    if (!this.#closed) this.#publish(this.#writer.message(bytes));
  }

  close(code: number, reason: string): void {
    if (this.#closed) return;
    this.#publish(this.#writer.close(code, reason));
    this.#end();
  }

  receive(data: Uint8Array): void {
    if (this.#closed) return;
    try {
      const step = this.#reader.read(data);
      if (step.kind === 'message') return this.#emit((handlers) => handlers.message(step.bytes));
      if (step.kind === 'stray') return this.lose(step.reason);
      this.#end();
      this.#emit((handlers) => handlers.close(step.code, step.reason));
    } catch (error) {
      this.#options.log.warn({ peer: this.node, reason: messageOf(error) }, 'a relayed session is broken');
      this.lose('messages from the serving node were lost');
    }
  }

  /** Ends the session on both sides; the client is to take it up again through another node. */
  handOver(reason: string): void {
    if (this.#closed) return;
    this.close(closeCodes.restart, reason);
    this.#emit((handlers) => handlers.close(closeCodes.restart, reason));
  }

  /** Ends the session on both sides and sends the client through a new join. */
  lose(reason: string): void {
    if (this.#closed) return;
    this.#publish(this.#writer.close(closeCodes.restart, reason));
    this.#end();
    this.#emit((handlers) => handlers.lost(reason));
  }

  #emit(event: Event): void {
    if (this.#handlers) event(this.#handlers);
    else this.#waiting.push(event);
  }

  #publish(frame: Uint8Array): void {
    const { nats, node } = this.#options;
    try {
      nats.connection?.publish(subjects.signalUp(this.node, this.#id), frame, {
        reply: subjects.signalDown(node, this.#id),
      });
    } catch (error) {
      this.#options.log.warn({ peer: this.node, reason: messageOf(error) }, 'a relayed message could not be sent');
      // The other side sees the gap; this one ends here.
      this.#end();
      this.#emit((handlers) => handlers.lost('a message was too big to relay'));
    }
  }

  #end(): void {
    this.#closed = true;
    this.#unwatch();
    this.#forget();
  }
}
