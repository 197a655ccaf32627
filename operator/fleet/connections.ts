import type { Clock } from '#platform/clock.ts';
import { WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { NodeClient, type NodeAccess } from './node-client.ts';
import type { NodeRegistry } from './node-registry.ts';

interface Connection {
  client: NodeClient;
  instance: string;
  endWatch: () => void;
}

const watchAgainMs = 250;

/**
 * The leader's gRPC connections: one to each node that is alive, with a Watch on it that keeps the registry's picture of
 * what the node serves. A node that restarts, or moves to another address, gets a new one.
 */
export class NodeConnections {
  readonly #registry: NodeRegistry;
  readonly #access: NodeAccess;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #connections = new Map<string, Connection>();
  #unlisten: () => void = () => undefined;
  #open = false;

  constructor(options: { registry: NodeRegistry; access: NodeAccess; clock: Clock; log: Logger }) {
    this.#registry = options.registry;
    this.#access = options.access;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Connects to every node that is alive, from now on. */
  open(): void {
    if (this.#open) return;
    this.#open = true;
    this.#unlisten = this.#registry.onChange((name, change) => {
      if (change === 'report') return;
      if (change === 'lost' || change === 'forgotten') this.#disconnect(name);
      else this.#connect(name);
    });
    for (const { heartbeat, alive } of this.#registry.list()) if (alive) this.#connect(heartbeat.node);
  }

  /** Ends all connections; what nodes serve is not known any more. */
  close(): void {
    this.#open = false;
    this.#unlisten();
    for (const name of [...this.#connections.keys()]) this.#disconnect(name);
    this.#registry.forgetServed();
  }

  /** @throws WeirError NodeUnreachable when the node is not alive */
  client(name: string): NodeClient {
    const connection = this.#connections.get(name);
    if (!connection) throw new WeirError('NodeUnreachable', `Node ${name} sends no heartbeats.`, { where: name });
    return connection.client;
  }

  /** Whether the node can be called. */
  has(name: string): boolean {
    return this.#connections.has(name);
  }

  #connect(name: string): void {
    const heartbeat = this.#registry.get(name)?.heartbeat;
    if (!heartbeat || !this.#open) return;
    const current = this.#connections.get(name);
    if (current?.instance === heartbeat.instance && current.client.address === heartbeat.controlAddress) return;
    this.#disconnect(name);
    const client = new NodeClient(name, heartbeat.controlAddress, this.#access, this.#clock);
    const connection: Connection = { client, instance: heartbeat.instance, endWatch: () => undefined };
    this.#connections.set(name, connection);
    this.#watch(name, connection);
  }

  #watch(name: string, connection: Connection): void {
    if (this.#connections.get(name) !== connection) return;
    connection.endWatch = connection.client.watch(
      (event) => this.#registry.served(name, event),
      (why) => {
        this.#log.debug({ node: name, why }, 'Watch of a node ended; watching again');
        this.#clock.after(watchAgainMs, () => this.#watch(name, connection));
      },
    );
  }

  #disconnect(name: string): void {
    const connection = this.#connections.get(name);
    if (!connection) return;
    this.#connections.delete(name);
    connection.endWatch();
    connection.client.close();
  }
}
