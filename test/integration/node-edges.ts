import { randomUUID } from 'node:crypto';
import { JoinResponse, Pong, SignalRequest, SignalResponse } from '@livekit/protocol';
import { Kvm, type KV } from '@nats-io/kv';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { Registry } from 'prom-client';
import { WebSocket } from 'ws';
import { type Assignment, type AssignmentStatus, Role, type RoomRef } from '#proto/weir/control/v1/control.ts';
import { EnsureRoomRequest, EnsureRoomResponse, Route } from '#proto/weir/fleet/v1/fleet.ts';
import { systemClock } from '#platform/clock.ts';
import { WeirError } from '#platform/errors.ts';
import { createLogger } from '#platform/log.ts';
import { routeKey, ROUTES_BUCKET, subjects } from '#platform/subjects.ts';
import { NodeCapacity } from '#sfu-node/coordination/capacity.ts';
import { Coordination } from '#sfu-node/coordination/coordination.ts';
import { NatsLink } from '#sfu-node/coordination/nats-link.ts';
import type { RoomChange, Rooms, RoomsLoad } from '#sfu-node/media/rooms.ts';
import { createNodeMetrics } from '#sfu-node/metrics.ts';
import type { SignalChannel } from '#sfu-node/signal/channel.ts';
import type { JoinIntent } from '#sfu-node/signal/claims.ts';
import { parseApiKeys } from '#sfu-node/signal/api-keys.ts';
import { SignalServer } from '#sfu-node/signal/server.ts';
import { createToken, type TokenOptions } from '#test/fleet/token.ts';
import type { LocalNats } from '#tools/local/nats.ts';

export const log = createLogger({ name: 'test', level: process.env['TEST_LOG'] ?? 'silent' });
export const apiKey = 'devkey';
export const apiSecret = 'a secret that is long enough for HS256';
const keysFile = `- { key: ${apiKey}, secret: "${apiSecret}", createRooms: true }
- { key: joinonly, secret: "${apiSecret}", createRooms: false }
`;

/** Rooms without media, where the edges alone are tested: joins are answered and pings are echoed. */
export class EchoRooms implements Rooms {
  readonly served = new Map<string, { room: RoomRef; epoch: number; generation: number }>();
  readonly channels = new Map<string, SignalChannel>();
  readonly intents: JoinIntent[] = [];
  readonly ends: { identity: string; code: number; reason: string }[] = [];
  draining = false;
  /** Streams that the node says it carries; its capacity is 1,000. */
  streams = 0;
  /** Joins are answered only when this resolves. */
  gate: Promise<void> = Promise.resolve();
  readonly #node: string;
  readonly #listeners = new Set<(change: RoomChange) => void>();

  constructor(node: string) {
    this.#node = node;
  }

  apply({ room, epoch, generation }: Assignment): Promise<AssignmentStatus> {
    if (!room) throw new WeirError('InvalidAssignment', 'no room');
    const served = this.served.get(room.roomName);
    if (served && served.epoch > epoch) {
      return Promise.reject(new WeirError('StaleEpoch', `room is at epoch ${served.epoch}`));
    }
    this.served.set(room.roomName, { room, epoch, generation });
    const status = { room, epoch, generation, participants: 0, streams: 0, links: [] };
    this.change({ kind: 'assigned', status });
    return Promise.resolve(status);
  }

  release(room: RoomRef, epoch: number): void {
    const served = this.served.get(room.roomName);
    if (!served || served.epoch > epoch) return;
    this.served.delete(room.roomName);
    this.change({ kind: 'released', room });
  }

  describe(): AssignmentStatus[] {
    return [...this.served.values()].map((served) => ({
      ...served,
      participants: this.channels.size,
      streams: 0,
      links: [],
    }));
  }

  find(roomName: string) {
    return this.served.get(roomName);
  }

  nodeOf(): string | undefined {
    return undefined;
  }

  async join(roomName: string, intent: JoinIntent, channel: SignalChannel): Promise<void> {
    if (!this.served.has(roomName)) throw new WeirError('RoomNotServed', 'the room is not here');
    await this.gate;
    const { identity } = intent.claims;
    this.intents.push(intent);
    this.channels.set(identity, channel);
    channel.start({
      message: (bytes) => {
        const { message } = SignalRequest.fromBinary(bytes);
        if (message.case === 'leave') return channel.close(1000, 'bye');
        if (message.case !== 'pingReq') return;
        const pong = new Pong({ lastPingTimestamp: message.value.timestamp });
        channel.send(new SignalResponse({ message: { case: 'pongResp', value: pong } }));
      },
      close: (code, reason) => {
        this.channels.delete(identity);
        this.ends.push({ identity, code, reason });
      },
    });
    const join = new JoinResponse({ serverVersion: this.#node, participant: { identity } });
    channel.send(new SignalResponse({ message: { case: 'join', value: join } }));
  }

  setDraining(draining: boolean): void {
    this.draining = draining;
  }

  load(): RoomsLoad {
    return {
      workers: 1,
      rooms: this.served.size,
      participants: this.channels.size,
      streams: this.streams,
      mbps: 0,
      cpu: 0,
    };
  }

  watch(listener: (change: RoomChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  change(change: RoomChange): void {
    for (const listener of this.#listeners) listener(change);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** The edges of one node as they are, over {@link EchoRooms}. */
export class EdgeNode {
  readonly name: string;
  readonly rooms: EchoRooms;
  readonly metrics: ReturnType<typeof createNodeMetrics>;
  readonly nats: NatsLink;
  readonly coordination: Coordination;
  readonly server: SignalServer;

  static async start(name: string, natsOptions: { url: string; user?: string; password?: string }): Promise<EdgeNode> {
    const rooms = new EchoRooms(name);
    const metrics = createNodeMetrics(new Registry());
    const clock = systemClock;
    const instance = randomUUID();
    const nats = NatsLink.create({ ...natsOptions, name, clock, log });
    const coordination = Coordination.create({
      node: name,
      instance,
      nats,
      rooms,
      capacity: new NodeCapacity({ configured: { streams: 1000, mbps: 1 }, learns: false, clock, log }),
      metrics,
      clock,
      log,
    });
    const server = await SignalServer.create({
      listen: { host: '127.0.0.1', port: 0 },
      node: name,
      region: 'test',
      regionHeader: 'x-weir-region',
      keys: parseApiKeys(keysFile, 'keys.yaml'),
      rooms,
      routes: coordination.routes,
      requests: coordination.requests,
      relay: coordination.holder,
      joins: coordination.joins,
      metrics,
      clock,
      log,
    });
    coordination.announce({
      node: name,
      instance,
      region: 'test',
      zone: '',
      controlAddress: '',
      url: '',
      addresses: [],
      version: '0',
      labels: {},
      pod: undefined,
    });
    return new EdgeNode(name, rooms, metrics, nats, coordination, server);
  }

  private constructor(
    name: string,
    rooms: EchoRooms,
    metrics: EdgeNode['metrics'],
    nats: NatsLink,
    coordination: Coordination,
    server: SignalServer,
  ) {
    this.name = name;
    this.rooms = rooms;
    this.metrics = metrics;
    this.nats = nats;
    this.coordination = coordination;
    this.server = server;
  }

  get origin(): string {
    return `127.0.0.1:${this.server.port}`;
  }

  serve(roomName: string, epoch = 1): RoomRef {
    const room = roomRef(roomName);
    this.rooms.served.set(roomName, { room, epoch, generation: 1 });
    return room;
  }

  /** As a killed process leaves the fleet: without a word. */
  async vanish(): Promise<void> {
    await this.coordination.close();
    await this.nats.close();
  }

  async close(): Promise<void> {
    await this.server.close();
    await this.coordination.close();
    await this.nats.close();
  }
}

export function roomRef(roomName: string): RoomRef {
  return { uid: `uid-${roomName}`, namespace: 'default', name: roomName, roomName };
}

/** The operator's side of NATS, by hand: the routing table and the answers to ensure-room. */
export class OperatorHand {
  readonly asked: EnsureRoomRequest[] = [];
  answer: (request: EnsureRoomRequest) => EnsureRoomResponse['result'] = () => ({
    $case: 'error',
    value: { code: 'RoomNotFound', message: 'no such room' },
  });
  readonly #connection: NatsConnection;
  readonly #bucket: KV;

  static async start(nats: LocalNats): Promise<OperatorHand> {
    const { user, password } = nats.users.operator;
    const connection = await connect({ servers: nats.url, user, pass: password, maxReconnectAttempts: -1 });
    const hand = new OperatorHand(connection, await new Kvm(connection).create(ROUTES_BUCKET, { history: 1 }));
    connection.subscribe(subjects.ensureRoom, {
      callback: (_error, message) => {
        const request = EnsureRoomRequest.decode(message.data);
        hand.asked.push(request);
        message.respond(EnsureRoomResponse.encode({ result: hand.answer(request) }).finish());
      },
    });
    await connection.flush();
    return hand;
  }

  private constructor(connection: NatsConnection, bucket: KV) {
    this.#connection = connection;
    this.#bucket = bucket;
  }

  async route(roomName: string, node: string, epoch: number): Promise<Route> {
    const route = routeTo(roomName, node, epoch);
    await this.#bucket.put(routeKey(roomName), Route.encode(route).finish());
    return route;
  }

  async unroute(roomName: string): Promise<void> {
    await this.#bucket.delete(routeKey(roomName));
  }

  get connection(): NatsConnection {
    return this.#connection;
  }

  async close(): Promise<void> {
    await this.#connection.close();
  }
}

export function routeTo(roomName: string, node: string, epoch: number): Route {
  return { room: roomRef(roomName), epoch, nodes: [{ node, region: 'test', role: Role.HUB }] };
}

export function token(options: Partial<TokenOptions> & { room: string }): Promise<string> {
  return createToken({ apiKey, apiSecret, identity: 'ann', ...options });
}

type Value<C> = Extract<SignalResponse['message'], { case: C }> extends { value: infer V } ? V : never;

/** A client's WebSocket, with what came on it. */
export class TestClient {
  readonly messages: SignalResponse['message'][] = [];
  readonly socket: WebSocket;
  readonly closed: Promise<{ code: number; reason: string }>;
  readonly #arrived = new Set<() => void>();

  /** @throws the HTTP answer as {status, body} in an Error when the upgrade is refused */
  static async connect(origin: string, accessToken: string, query = ''): Promise<TestClient> {
    const socket = new WebSocket(`ws://${origin}/rtc?access_token=${accessToken}&auto_subscribe=1&protocol=16${query}`);
    const client = new TestClient(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('open', resolve).once('error', reject);
      socket.once('unexpected-response', (_request, response) => {
        let body = '';
        response.on('data', (chunk: Buffer) => (body += chunk.toString()));
        response.on('end', () => reject(new Refused(response.statusCode ?? 0, body, response.headers)));
      });
    });
    return client;
  }

  private constructor(socket: WebSocket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => {
      socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() }));
    });
    socket.on('message', (data: Buffer) => {
      this.messages.push(SignalResponse.fromBinary(data).message);
      for (const arrived of this.#arrived) arrived();
    });
    socket.on('error', () => {});
  }

  send(message: SignalRequest['message']): void {
    this.socket.send(new SignalRequest({ message }).toBinary());
  }

  ping(timestamp: number): void {
    this.socket.send(SignalRequest.fromJson({ pingReq: { timestamp: String(timestamp), rtt: '0' } }).toBinary());
  }

  /** The first message of a kind, now or within ten seconds. */
  async got<C extends NonNullable<SignalResponse['message']['case']>>(kind: C, nth = 1): Promise<Value<C>> {
    const deadline = Date.now() + 10_000;
    for (;;) {
      const found = this.messages.filter((message) => message.case === kind)[nth - 1];
      if (found) return found.value as Value<C>;
      if (Date.now() > deadline) throw new Error(`no ${kind} came; ${this.messages.map((m) => m.case).join(', ')}`);
      await new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer);
          this.#arrived.delete(done);
          resolve();
        };
        const timer = setTimeout(done, 200);
        this.#arrived.add(done);
      });
    }
  }

  close(): void {
    this.socket.terminate();
  }
}

/** An upgrade that was refused. */
export class Refused extends Error {
  readonly status: number;
  readonly body: string;
  readonly headers: Record<string, unknown>;

  constructor(status: number, body: string, headers: Record<string, unknown>) {
    super(`HTTP ${status}: ${body}`);
    this.status = status;
    this.body = body;
    this.headers = headers;
  }
}

export async function refusalOf(promise: Promise<TestClient>): Promise<Refused> {
  try {
    (await promise).close();
  } catch (error) {
    if (error instanceof Refused) return error;
    throw error;
  }
  throw new Error('the client was let in');
}
