import { readFile } from 'node:fs/promises';
import { Server, ServerCredentials, type ServerWritableStream } from '@grpc/grpc-js';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { subjects } from '#platform/subjects.ts';
import {
  LinkState,
  LinkStatus,
  NodeControlService,
  type Assignment,
  type AssignmentStatus,
  type NodeControlServer,
  type NodeEvent,
  type ReleaseRequest,
} from '#proto/weir/control/v1/control.ts';
import { Heartbeat, type Load, type PodRef } from '#proto/weir/fleet/v1/fleet.ts';
import { toServiceError } from '#sfu-node/control/status.ts';
import type { Fleet } from '#test/fleet/mod.ts';

const beatMs = 200;

/**
 * Stands in for an sfu-node where a test needs faults that a real one does not have on request: heartbeats over the
 * real NATS and the real control service, with answers that the test writes.
 */
export class ScriptedNode {
  readonly name: string;
  /** What it serves, by room uid. */
  readonly serves = new Map<string, AssignmentStatus>();
  readonly released: ReleaseRequest[] = [];
  /** Called for every assignment before it is served; what it throws is the answer. */
  onApply: (assignment: Assignment) => void | Promise<void> = () => undefined;
  beating = true;
  /** What it says that it carries, beside its rooms. */
  load: Partial<Load> = {};
  /** More that its heartbeats say. */
  beats: Partial<Heartbeat> = {};
  /** What it says of its link to a peer, beside that it is up; its watchers hear of a change with {@link tell}. */
  onLink: (peer: string) => Partial<LinkStatus> = () => ({});
  /** What it was last told of each room, by uid. */
  readonly assignments = new Map<string, Assignment>();
  readonly #region: string;
  readonly #pod: PodRef | undefined;
  readonly #nats: NatsConnection;
  readonly #server: Server;
  readonly #address: string;
  readonly #watches = new Set<ServerWritableStream<unknown, NodeEvent>>();
  readonly #timer: NodeJS.Timeout;
  #sequence = 0;

  /** @param options.certificateName name in its certificate, when it shall be a wrong one */
  static async start(
    fleet: Fleet,
    name: string,
    {
      certificateName = name,
      region = 'eu-west',
      pod,
    }: { certificateName?: string; region?: string; pod?: PodRef } = {},
  ): Promise<ScriptedNode> {
    const subject = `OU=sfu-node,CN=${certificateName}`;
    const files = await fleet.credentials(`${name}-scripted`, { subject, names: [certificateName] });
    const [ca, key, certificate] = await Promise.all(
      [files.caFile, files.keyFile, files.certFile].map((file) => readFile(file)),
    );
    const pair = { private_key: key!, cert_chain: certificate! };
    const server = new Server();
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createSsl(ca!, [pair], true), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
    const { user, password } = fleet.nats.users['sfu-node'];
    const nats = await connect({ servers: fleet.nats.url, user, pass: password });
    return new ScriptedNode({ name, region, pod }, nats, server, `127.0.0.1:${port}`);
  }

  private constructor(
    { name, region, pod }: { name: string; region: string; pod: PodRef | undefined },
    nats: NatsConnection,
    server: Server,
    address: string,
  ) {
    this.name = name;
    this.#region = region;
    this.#pod = pod;
    this.#nats = nats;
    this.#server = server;
    this.#address = address;
    server.addService(NodeControlService, this.#implementation());
    this.#timer = setInterval(() => this.#beat(), beatMs);
  }

  /** Says that it serves a room with these counts. */
  say(status: AssignmentStatus): void {
    this.serves.set(status.room?.uid ?? '', status);
    this.#send({ $case: 'assigned', value: status });
  }

  /** Says how many are in a room, and how its links are now. */
  tell(uid: string, counts: { participants?: number; streams?: number } = {}): void {
    const status = this.serves.get(uid);
    const assignment = this.assignments.get(uid);
    if (status && assignment) this.say({ ...status, ...counts, links: this.#links(assignment) });
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#server.forceShutdown();
    await this.#nats.close();
  }

  #beat(): void {
    if (!this.beating) return;
    const heartbeat = Heartbeat.create({
      node: this.name,
      instance: `${this.name}-1`,
      sequence: ++this.#sequence,
      region: this.#region,
      controlAddress: this.#address,
      url: 'ws://127.0.0.1:1',
      version: '0.0.0-scripted',
      capacity: { streams: 1000, mbps: 1000 },
      load: { workers: 1, rooms: this.serves.size, ...this.load },
      pod: this.#pod,
      ...this.beats,
    });
    this.#nats.publish(subjects.heartbeat(this.name), Heartbeat.encode(heartbeat).finish());
  }

  #links({ links }: Assignment): LinkStatus[] {
    return links.map((peer) => LinkStatus.create({ peer, state: LinkState.UP, rttMs: 1, ...this.onLink(peer) }));
  }

  #send(event: NodeEvent['event']): void {
    for (const watch of this.#watches) watch.write({ instance: `${this.name}-1`, event });
  }

  #implementation(): NodeControlServer {
    const describe = () => ({
      node: this.name,
      instance: `${this.name}-1`,
      version: '0.0.0-scripted',
      draining: false,
      assignments: [...this.serves.values()],
    });
    return {
      apply: ({ request }, callback) => {
        const serve = async () => {
          const statuses: AssignmentStatus[] = [];
          for (const assignment of request.assignments) {
            await this.onApply(assignment);
            const { room, epoch, generation } = assignment;
            const { participants = 0, streams = 0 } = this.serves.get(room?.uid ?? '') ?? {};
            const status = { room, epoch, generation, participants, streams, links: this.#links(assignment) };
            this.assignments.set(room?.uid ?? '', assignment);
            this.serves.set(room?.uid ?? '', status);
            statuses.push(status);
          }
          return { statuses };
        };
        serve().then(
          (response) => callback(null, response),
          (error: unknown) => callback(toServiceError(error)),
        );
      },
      release: ({ request }, callback) => {
        this.released.push(request);
        this.serves.delete(request.room?.uid ?? '');
        if (request.room) this.#send({ $case: 'released', value: request.room });
        callback(null, {});
      },
      drain: (_call, callback) => callback(null, { rooms: this.serves.size }),
      describe: (_call, callback) => callback(null, describe()),
      watch: (call: ServerWritableStream<unknown, NodeEvent>) => {
        this.#watches.add(call);
        call.on('cancelled', () => this.#watches.delete(call));
        call.write({ instance: `${this.name}-1`, event: { $case: 'snapshot', value: describe() } });
      },
    };
  }
}
