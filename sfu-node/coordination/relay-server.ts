import type { SignalResponse } from '@livekit/protocol';
import type { Msg } from '@nats-io/transport-node';
import { SignalOpen, SignalOpenReply } from '#proto/weir/fleet/v1/fleet.ts';
import { codeOf, messageOf, WeirError } from '#platform/errors.ts';
import type { Clock } from '#platform/clock.ts';
import type { Logger } from '#platform/log.ts';
import { subjects } from '#platform/subjects.ts';
import type { Rooms } from '#sfu-node/media/rooms.ts';
import type { NodeMetrics } from '#sfu-node/metrics.ts';
import type { SignalChannel, SignalHandlers } from '#sfu-node/signal/channel.ts';
import { admit } from '#sfu-node/signal/capacity.ts';
import { claimsSchema, intentFromParams } from '#sfu-node/signal/intent.ts';
import { closeCodes } from '#sfu-node/signal/leave.ts';
import { isNodeFault } from '#sfu-node/signal/refusal.ts';
import type { NatsLink } from './nats-link.ts';
import type { Peers } from './peers.ts';
import { isMessage, strayClose } from './relay-frames.ts';
import { RelayLine } from './relay-line.ts';
import type { JoinWindow } from './reliability.ts';

export interface RelayServerOptions {
  node: string;
  /** Identity of this process. */
  instance: string;
  nats: NatsLink;
  peers: Peers;
  rooms: Rooms;
  /** Streams that this node carries; nobody more is taken then. Absent: no limit. */
  capacity?: { streams: number };
  joins: JoinWindow;
  metrics: NodeMetrics;
  clock: Clock;
  log: Logger;
}

/** The serving side of relayed sessions: the rooms are here, other nodes hold the WebSockets. */
export class RelayServer {
  readonly #options: RelayServerOptions;
  readonly #channels = new Map<string, RelayChannel>();

  static create(options: RelayServerOptions): RelayServer {
    const server = new RelayServer(options);
    options.nats.onConnected((connection, first) => {
      // Subscriptions outlive a reconnect; what was sent into the lost connection may not.
      if (!first) return server.#channels.forEach((channel) => channel.resend());
      connection.subscribe(subjects.signalOpen(options.node), {
        callback: (error, message) => {
          if (!error) void server.#onOpen(message);
        },
      });
      connection.subscribe(subjects.signalUp(options.node, '*'), {
        callback: (error, message) => {
          if (!error) server.#onFrame(message);
        },
      });
    });
    return server;
  }

  private constructor(options: RelayServerOptions) {
    this.#options = options;
  }

  async #onOpen(message: Msg): Promise<void> {
    const { instance, rooms, joins, log } = this.#options;
    let answered = false;
    const answer = (error?: unknown) => {
      if (answered) return;
      answered = true;
      const refusal = error === undefined ? undefined : { code: codeOf(error), message: messageOf(error) };
      message.respond(SignalOpenReply.encode({ instance, error: refusal, acknowledges: true }).finish());
    };
    let channel: RelayChannel | undefined;
    try {
      const open = SignalOpen.decode(message.data);
      // An open without a session is a peer that asks whether this process lives.
      if (open.session === '') return answer(new WeirError('SessionMissing', 'the open names no session'));
      const roomName = this.#servedRoom(open);
      const claims = claimsSchema.parse(JSON.parse(open.claimsJson));
      channel = this.#add(open, () => answer());
      const params = new Map(Object.entries(open.params));
      const intent = intentFromParams(claims, params.get('region') ?? '', params);
      if (!intent.reconnect) admit(rooms, this.#options.capacity);
      await rooms.join(roomName, intent, channel);
      joins.succeeded();
      answer();
    } catch (error) {
      if (channel && isNodeFault(error)) joins.failed();
      if (codeOf(error) === 'Internal') log.error({ err: error }, 'a relayed join failed');
      // After the first message the reply is out: the close then tells the holder.
      if (answered) channel?.close(closeCodes.internal, messageOf(error));
      else channel?.forget();
      answer(error);
    }
  }

  #servedRoom(open: SignalOpen): string {
    const roomName = open.room?.roomName ?? '';
    const served = this.#options.rooms.find(roomName);
    if (!served || served.room.uid !== open.room?.uid || served.epoch < open.epoch) {
      const words = `room ${roomName} is not served here at epoch ${open.epoch}`;
      throw new WeirError('RoomNotServed', words, { where: this.#options.node });
    }
    if (this.#channels.has(open.session)) throw new WeirError('SessionKnown', 'this session was opened before');
    return roomName;
  }

  #add(open: SignalOpen, onFirstMessage: () => void): RelayChannel {
    const id = open.session;
    const channel = new RelayChannel(open, this.#options, onFirstMessage, () => {
      if (this.#channels.delete(id)) this.#count();
    });
    this.#channels.set(id, channel);
    this.#count();
    return channel;
  }

  #onFrame(message: Msg): void {
    const id = message.subject.slice(message.subject.lastIndexOf('.') + 1);
    const channel = this.#channels.get(id);
    if (channel) channel.receive(message.data);
    else if (message.reply && isMessage(message.data)) {
      this.#options.nats.connection?.publish(message.reply, strayClose('the serving node does not know this session'));
    }
  }

  #count(): void {
    this.#options.metrics.relayedSessions.set({ side: 'server' }, this.#channels.size);
  }
}

/** Signalling of a client whose WebSocket another node holds. */
class RelayChannel implements SignalChannel {
  readonly holder: string;
  readonly #id: string;
  readonly #options: RelayServerOptions;
  readonly #line: RelayLine;
  readonly #onFirstMessage: () => void;
  readonly #unwatch: () => void;
  #handlers: SignalHandlers | undefined;
  #early: Uint8Array[] = [];
  #ended: { code: number; reason: string } | undefined;

  constructor(open: SignalOpen, options: RelayServerOptions, onFirstMessage: () => void, forget: () => void) {
    this.holder = open.holder;
    this.#id = open.session;
    this.#options = options;
    this.#onFirstMessage = onFirstMessage;
    this.#line = new RelayLine({
      acknowledges: open.acknowledges,
      clock: options.clock,
      publish: (frame) => this.#publish(frame),
      connected: () => options.nats.connected,
      onMessage: (bytes) => {
        if (this.#handlers) this.#handlers.message(bytes);
        else this.#early.push(bytes);
      },
      onClose: (code, reason) => this.#end(code, reason),
      onLost: (error) => {
        options.log.warn({ peer: this.holder, code: error.code, reason: error.message }, 'a relayed session is broken');
        this.#end(error.code === 'RelayTooBig' ? closeCodes.tooBig : closeCodes.restart, error.message);
      },
      onEnd: forget,
    });
    this.#unwatch = options.peers.watch(open.holder, open.holderInstance, (reason) => {
      this.#end(1006, `the client's holder is lost: ${reason}`);
      this.#line.end();
    });
  }

  send(message: SignalResponse): void {
    this.sendEncoded(message.toBinary());
  }

  sendEncoded(bytes: Uint8Array): void {
    if (this.#ended) return;
    this.#onFirstMessage();
    this.#line.send(bytes);
  }

  close(code: number, reason: string): void {
    if (this.#ended) return;
    this.#end(code, reason);
    this.#line.close(code, reason);
  }

  start(handlers: SignalHandlers): void {
    this.#handlers = handlers;
    for (const bytes of this.#early.splice(0)) handlers.message(bytes);
    const ended = this.#ended;
    if (ended) queueMicrotask(() => handlers.close(ended.code, ended.reason));
  }

  receive(data: Uint8Array): void {
    this.#line.receive(data);
  }

  /** Sends what the holder is not known to have again. */
  resend(): void {
    this.#line.resend();
  }

  /** Ends a session that was never begun, without a word. */
  forget(): void {
    this.#end(closeCodes.normal, 'not joined');
    this.#line.end();
  }

  #publish(frame: Uint8Array): boolean {
    const { nats, node, log } = this.#options;
    try {
      nats.connection?.publish(subjects.signalDown(this.holder, this.#id), frame, {
        reply: subjects.signalUp(node, this.#id),
      });
      return true;
    } catch (error) {
      log.warn({ peer: this.holder, reason: messageOf(error) }, 'a relayed message could not be sent');
      return false;
    }
  }

  #end(code: number, reason: string): void {
    if (this.#ended) return;
    this.#ended = { code, reason };
    this.#unwatch();
    const handlers = this.#handlers;
    if (handlers) queueMicrotask(() => handlers.close(code, reason));
  }
}
