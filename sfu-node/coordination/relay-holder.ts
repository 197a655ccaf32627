import { randomUUID } from 'node:crypto';
import type { Msg } from '@nats-io/transport-node';
import { type Route, SignalOpen, SignalOpenReply } from '#proto/weir/fleet/v1/fleet.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { Clock } from '#platform/clock.ts';
import type { Logger } from '#platform/log.ts';
import { subjects } from '#platform/subjects.ts';
import { settlesInMs } from '#sfu-node/media/sdk-needs.ts';
import type { NodeMetrics } from '#sfu-node/metrics.ts';
import type { JoinIntent } from '#sfu-node/signal/claims.ts';
import { paramsFromIntent } from '#sfu-node/signal/intent.ts';
import { closeCodes } from '#sfu-node/signal/leave.ts';
import type { NatsLink } from './nats-link.ts';
import type { Peers } from './peers.ts';
import { isMessage, strayClose } from './relay-frames.ts';
import { RelayLine } from './relay-line.ts';
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
      // Subscriptions outlive a reconnect; what was sent into the lost connection may not.
      if (!first) return holder.#sessions.forEach((session) => session.resend());
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
        acknowledges: true,
      }).finish();
      const data = await nats.request(subjects.signalOpen(servingNode), open, OPEN_TIMEOUT_MS);
      const reply = SignalOpenReply.decode(data);
      if (reply.error) throw new WeirError(reply.error.code, reply.error.message, { where: servingNode });
      if (this.#closed) throw new WeirError('NodeDraining', 'this node is closing');
      session.opened(reply);
      return session;
    } catch (error) {
      session.close(closeCodes.normal, 'not opened');
      throw unreachable(error, servingNode);
    }
  }

  /** How long ago the newest of the sessions here was opened, milliseconds; Infinity when there is none. */
  get newestAgeMs(): number {
    const now = this.#options.clock.now();
    const ages = [...this.#sessions.values()].filter(({ open }) => open).map(({ openedAt }) => now - openedAt);
    return Math.min(Infinity, ...ages);
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
    else if (message.reply && isMessage(message.data)) {
      this.#options.nats.connection?.publish(message.reply, strayClose('the holder does not know this session'));
    }
  }

  /** The room moved to another node: the clients that this node holds come along, at once or when they can take that in. */
  #onRoute(roomName: string, route: Route | undefined): void {
    if (!route) return;
    const { clock, routes } = this.#options;
    const now = clock.now();
    let waitMs = 0;
    for (const session of [...this.#sessions.values()]) {
      if (session.roomName !== roomName || !session.open) continue;
      const same = session.roomUid === route.room?.uid && route.nodes.some((placed) => placed.node === session.node);
      if (same) continue;
      const settlesMs = settlesInMs(session.openedAt, now);
      if (settlesMs === 0) session.lose('the room is served by another node now');
      waitMs = Math.max(waitMs, settlesMs);
    }
    if (waitMs > 0) clock.after(waitMs, () => this.#onRoute(roomName, routes.get(roomName)));
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
  readonly #line: RelayLine;
  #handlers: RelayHandlers | undefined;
  #waiting: Event[] = [];
  #unwatch: () => void = () => {};

  constructor(id: string, node: string, route: Route, options: RelayHolderOptions, forget: () => void) {
    this.#id = id;
    this.node = node;
    this.openedAt = options.clock.now();
    this.roomName = route.room?.roomName ?? '';
    this.roomUid = route.room?.uid ?? '';
    this.#options = options;
    this.#line = new RelayLine({
      acknowledges: undefined,
      clock: options.clock,
      publish: (frame) => this.#publish(frame),
      connected: () => options.nats.connected,
      onMessage: (bytes) => this.#emit((handlers) => handlers.message(bytes)),
      onClose: (code, reason) => this.#emit((handlers) => handlers.close(code, reason)),
      onLost: (error) => {
        options.log.warn({ peer: node, code: error.code, reason: error.message }, 'a relayed session is broken');
        this.#emit((handlers) => handlers.lost(error.message));
      },
      onEnd: () => {
        this.#unwatch();
        forget();
      },
    });
  }

  /** Whether it goes on: neither side has ended it. */
  get open(): boolean {
    return this.#line.open;
  }

  /** The serving node took the client: follows the life of its process. */
  opened({ instance, acknowledges }: SignalOpenReply): void {
    if (!this.open) return;
    this.#unwatch = this.#options.peers.watch(this.node, instance, (reason) => this.lose(reason));
    this.#line.setAcknowledges(acknowledges);
  }

  start(handlers: RelayHandlers): void {
    this.#handlers = handlers;
    for (const event of this.#waiting.splice(0)) event(handlers);
  }

  send(bytes: Uint8Array): void {
    this.#line.send(bytes);
  }

  close(code: number, reason: string): void {
    this.#unwatch();
    this.#line.close(code, reason);
  }

  receive(data: Uint8Array): void {
    this.#line.receive(data);
  }

  /** Sends what the serving node is not known to have again. */
  resend(): void {
    this.#line.resend();
  }

  /** Ends the session on both sides; the client is to take it up again through another node. */
  handOver(reason: string): void {
    if (!this.open) return;
    this.close(closeCodes.restart, reason);
    this.#emit((handlers) => handlers.close(closeCodes.restart, reason));
  }

  /** Ends the session on both sides and sends the client through a new join. */
  lose(reason: string): void {
    if (!this.open) return;
    this.close(closeCodes.restart, reason);
    this.#emit((handlers) => handlers.lost(reason));
  }

  #emit(event: Event): void {
    if (this.#handlers) event(this.#handlers);
    else this.#waiting.push(event);
  }

  #publish(frame: Uint8Array): boolean {
    const { nats, node, log } = this.#options;
    try {
      nats.connection?.publish(subjects.signalUp(this.node, this.#id), frame, {
        reply: subjects.signalDown(node, this.#id),
      });
      return true;
    } catch (error) {
      log.warn({ peer: this.node, reason: messageOf(error) }, 'a relayed message could not be sent');
      return false;
    }
  }
}
