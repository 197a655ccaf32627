import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { DisconnectReason } from '@livekit/protocol';
import { type Server as SocketServer, WebSocketServer } from 'ws';
import type { Clock } from '#platform/clock.ts';
import type { ListenAddress } from '#platform/config.ts';
import { codeOf, messageOf, WeirError } from '#platform/errors.ts';
import { listenOn } from '#platform/listen.ts';
import type { Logger } from '#platform/log.ts';
import type { RelayedSession } from '#sfu-node/coordination/relay-holder.ts';
import type { JoinWindow } from '#sfu-node/coordination/reliability.ts';
import type { Rooms } from '#sfu-node/media/rooms.ts';
import type { NodeMetrics } from '#sfu-node/metrics.ts';
import type { Claims, JoinIntent } from './claims.ts';
import { answer, refuse, refuseUpgrade, tokenOf, urlOf } from './http-answers.ts';
import { intentFromParams } from './intent.ts';
import { type JoinDeps, resolveJoin } from './join.ts';
import { closeCodes, leaveAndReconnect, leaveForGood } from './leave.ts';
import { isNodeFault } from './refusal.ts';
import { clientRegion } from './region.ts';
import { type TokenKeys, verifyToken } from './token.ts';
import { CHANNEL_LIMITS, SignalSocket, WebSocketChannel } from './websocket-channel.ts';

/** Joins that may wait for their room at once; more are told to come back. */
const MAX_WAITING_JOINS = 5_000;

export interface SignalServerOptions extends Omit<JoinDeps, 'rooms'> {
  listen: ListenAddress;
  /** Header, in lower case, in which the ingress names the client's region. */
  regionHeader: string;
  keys: TokenKeys;
  rooms: Rooms;
  joins: JoinWindow;
  metrics: NodeMetrics;
  clock: Clock;
  log: Logger;
}

/**
 * LiveKit's signalling endpoint: `/rtc` is the WebSocket, `/rtc/validate` tells a browser why its WebSocket failed.
 * `/rtc/v1` answers 404, on which SDKs fall back to `/rtc`.
 */
export class SignalServer {
  /** The port that it listens on. */
  readonly port: number;
  readonly #options: SignalServerOptions;
  readonly #server: Server;
  readonly #sockets: SocketServer<typeof SignalSocket>;
  readonly #channels = new Set<WebSocketChannel>();
  #waiting = 0;
  #closing = false;

  /** @throws WeirError PortInUse and its kin, naming WEIR_SIGNAL_LISTEN */
  static async create(options: SignalServerOptions): Promise<SignalServer> {
    // A token may be 16 KiB and stands in the URL; what is larger than the limit shall still get our words.
    const server = createServer({ maxHeaderSize: 64 * 1024, requestTimeout: 10_000, headersTimeout: 10_000 });
    const port = await listenOn(server, options.listen, 'WEIR_SIGNAL_LISTEN');
    return new SignalServer(options, server, port);
  }

  private constructor(options: SignalServerOptions, server: Server, port: number) {
    this.#options = options;
    this.#server = server;
    this.port = port;
    this.#sockets = new WebSocketServer({
      noServer: true,
      maxPayload: CHANNEL_LIMITS.messageBytes,
      perMessageDeflate: false,
      WebSocket: SignalSocket,
    });
    server.on('request', (request, response) => {
      this.#onRequest(request, response).catch((error: unknown) => refuse(response, this.#noted(error, false)));
    });
    server.on('upgrade', (request, socket, head) => {
      this.#onUpgrade(request, socket, head).catch((error: unknown) => refuseUpgrade(socket, this.#noted(error, true)));
    });
  }

  /** Sends every client that is still here through a new join, and closes. Idempotent. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const channel of this.#channels) {
      channel.send(leaveAndReconnect(DisconnectReason.SERVER_SHUTDOWN));
      channel.close(closeCodes.restart, 'this node is shutting down');
    }
    this.#server.closeAllConnections();
    // Clients get a moment to read their leave; who does not close then is cut.
    const cut = this.#options.clock.after(500, () => {
      for (const socket of this.#sockets.clients) socket.terminate();
    });
    await closed;
    cut();
  }

  async #onRequest(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = urlOf(request);
    if (!url) throw new WeirError('NotFound', 'the request path cannot be read');
    if (request.method === 'OPTIONS') return answer(response, 204, '');
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      throw new WeirError('MethodNotAllowed', 'only GET is served here');
    }
    if (url.pathname === '/') return answer(response, 200, 'OK');
    if (url.pathname === '/rtc') throw new WeirError('UpgradeInvalid', 'this is a WebSocket: connect with an upgrade');
    if (url.pathname !== '/rtc/validate') throw notFound(url);
    const claims = await this.#authorize(request, url);
    await this.#checkRoom(claims);
    answer(response, 200, 'success');
  }

  /** A room that nobody made and that this key may not make is told apart, as SDKs show these words to people. */
  async #checkRoom(claims: Claims): Promise<void> {
    const { rooms, routes, requests } = this.#options;
    if (claims.mayCreateRoom || rooms.find(claims.room) || routes.get(claims.room)) return;
    await requests.ensure(claims.room, { create: false, region: '', full: [] }).catch((error: unknown) => {
      throw inSdkWords(error, claims.room);
    });
  }

  async #onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const { clock, metrics } = this.#options;
    const startedAt = clock.now();
    const early = watchEarly(socket);
    const url = urlOf(request);
    if (url?.pathname !== '/rtc') throw notFound(url);
    if (this.#closing) throw new WeirError('NodeDraining', 'this node is shutting down; connect again');
    if (this.#waiting >= MAX_WAITING_JOINS) throw new WeirError('TooManyRequests', 'too many joins at once; try again');
    const claims = await this.#authorize(request, url);
    const { region, regionHeader } = this.#options;
    const where = clientRegion(claims, request.headers, regionHeader, region);
    const intent = intentFromParams(claims, where, url.searchParams);
    const onFirstMessage = (kind: string) => {
      const joined = kind === 'join' || kind === 'reconnect';
      metrics.joins.inc({ result: joined ? 'ok' : 'SentAway' });
      if (joined) metrics.joinSeconds.observe((clock.now() - startedAt) / 1000);
    };
    this.#waiting++;
    const target = await resolveJoin(intent, this.#options, early.gone)
      .catch((error: unknown) => {
        throw inSdkWords(error, intent.claims.room);
      })
      .finally(() => this.#waiting--);
    // In this same turn, so that nothing is read in between.
    early.release();
    const client = this.#upgrade(request, socket, head);
    if (!client) {
      if (target.kind === 'relayed') target.session.close(closeCodes.goingAway, 'the client went away');
      return;
    }
    const channel = this.#channel(client, intent, onFirstMessage);
    if (target.kind === 'local') await this.#joinHere(intent, channel);
    else if (target.kind === 'relayed') bridge(channel, target.session);
    else sendAway(channel, 'the node that had this session is gone');
  }

  async #authorize(request: IncomingMessage, url: URL): Promise<Claims> {
    const claims = await verifyToken(tokenOf(request, url), this.#options.keys, this.#options.clock.now());
    const room = url.searchParams.get('room');
    if (room && room !== claims.room) {
      throw new WeirError('RoomMismatch', 'the access token is for another room than the one asked for');
    }
    return claims;
  }

  /** Undefined when the client is gone or its handshake is wrong; the ws module has answered it then. */
  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): SignalSocket | undefined {
    let client: SignalSocket | undefined;
    if (socket.destroyed || this.#closing) {
      socket.destroy();
      return undefined;
    }
    this.#sockets.handleUpgrade(request, socket, head, (accepted) => (client = accepted));
    return client;
  }

  #channel(socket: SignalSocket, intent: JoinIntent, onFirstMessage: (kind: string) => void): WebSocketChannel {
    const { node, clock, metrics } = this.#options;
    const log = this.#options.log.child({ roomName: intent.claims.room, participant: intent.claims.identity });
    const onViolation = (code: string) => metrics.violations.inc({ code });
    const channel = WebSocketChannel.create({ socket, holder: node, clock, log, onViolation, onFirstMessage });
    this.#channels.add(channel);
    socket.once('close', () => this.#channels.delete(channel));
    return channel;
  }

  async #joinHere(intent: JoinIntent, channel: WebSocketChannel): Promise<void> {
    const { rooms, joins, log } = this.#options;
    try {
      await rooms.join(intent.claims.room, intent, channel);
      joins.succeeded();
    } catch (error) {
      if (isNodeFault(error)) joins.failed();
      // The room has said no in its own words.
      if (channel.answered) return;
      // Released between the look and the join: the next one finds its new node.
      if (codeOf(error) === 'RoomNotServed') return sendAway(channel, messageOf(error));
      log.error({ err: error, roomName: intent.claims.room, participant: intent.claims.identity }, 'a join failed');
      channel.send(leaveForGood(DisconnectReason.JOIN_FAILURE));
      channel.close(closeCodes.internal, messageOf(error));
    }
  }

  /** Counts and logs a refusal; no token is in it. */
  #noted(error: unknown, isJoin: boolean): unknown {
    const code = codeOf(error);
    // Every SDK of today tries /rtc/v1 first: its 404 is no failed join.
    if (isJoin && code !== 'NotFound') this.#options.metrics.joins.inc({ result: code });
    if (code === 'Internal') this.#options.log.error({ err: error }, 'a signalling request failed');
    else this.#options.log.debug({ code }, `refused: ${messageOf(error)}`);
    return error;
  }
}

/**
 * Notices a client that goes away before the upgrade. The end of a socket is only seen by reading it; a client that
 * sends before it was answered breaks the protocol, so nothing is lost by that.
 */
function watchEarly(socket: Duplex): { gone: AbortSignal; release: () => void } {
  const gone = new AbortController();
  const leave = () => gone.abort();
  socket.on('error', leave).on('close', leave).on('end', leave).on('data', leave);
  // The error listener stays: a socket that fails later must not end the process.
  return { gone: gone.signal, release: () => void socket.off('end', leave).off('data', leave) };
}

/** Ties a client's WebSocket to its session on another node: what ends one ends the other. */
function bridge(channel: WebSocketChannel, session: RelayedSession): void {
  session.start({
    message: (bytes) => channel.sendEncoded(bytes),
    close: (code, reason) => channel.close(code === 1006 ? closeCodes.restart : code, reason),
    lost: (reason) => sendAway(channel, reason),
  });
  channel.start({
    message: (bytes) => session.send(bytes),
    close: (code, reason) => session.close(code, reason),
  });
}

/** Sends a client through a new join. */
function sendAway(channel: WebSocketChannel, reason: string): void {
  channel.send(leaveAndReconnect(DisconnectReason.SERVER_SHUTDOWN));
  channel.close(closeCodes.restart, reason);
}

function notFound(url: URL | undefined): WeirError {
  if (url?.pathname.startsWith('/rtc/v1')) return new WeirError('NotFound', 'signalling is served on /rtc');
  return new WeirError('NotFound', 'nothing is served on this path; signalling is on /rtc');
}

/** A room that does not exist in the words that SDKs look for; any other error as it is. */
function inSdkWords(error: unknown, room: string): unknown {
  if (codeOf(error) !== 'RoomNotFound') return error;
  return new WeirError('RoomNotFound', `requested room does not exist: make a Room with roomName ${room}`);
}
