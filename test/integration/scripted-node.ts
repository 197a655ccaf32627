import { readFile } from 'node:fs/promises';
import { Server, ServerCredentials, type ServerWritableStream } from '@grpc/grpc-js';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { subjects } from '#platform/subjects.ts';
import {
  NodeControlService,
  type Assignment,
  type AssignmentStatus,
  type NodeControlServer,
  type NodeEvent,
  type ReleaseRequest,
} from '#proto/weir/control/v1/control.ts';
import { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
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
  readonly #nats: NatsConnection;
  readonly #server: Server;
  readonly #address: string;
  readonly #watches = new Set<ServerWritableStream<unknown, NodeEvent>>();
  readonly #timer: NodeJS.Timeout;
  #sequence = 0;

  /** @param certificateName name in its certificate, when it shall be a wrong one */
  static async start(fleet: Fleet, name: string, certificateName = name): Promise<ScriptedNode> {
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
    return new ScriptedNode(name, nats, server, `127.0.0.1:${port}`);
  }

  private constructor(name: string, nats: NatsConnection, server: Server, address: string) {
    this.name = name;
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
      region: 'eu-west',
      controlAddress: this.#address,
      url: 'ws://127.0.0.1:1',
      version: '0.0.0-scripted',
      capacity: { streams: 1000, mbps: 1000 },
      load: { workers: 1, rooms: this.serves.size },
    });
    this.#nats.publish(subjects.heartbeat(this.name), Heartbeat.encode(heartbeat).finish());
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
            const status = { room, epoch, generation, participants: 0, streams: 0, links: [] };
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
