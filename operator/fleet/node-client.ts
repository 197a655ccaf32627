import {
  experimental,
  Metadata,
  status,
  type ChannelCredentials,
  type ClientReadableStream,
  type ServiceError,
} from '@grpc/grpc-js';
import {
  NodeControlClient,
  type Assignment,
  type AssignmentStatus,
  type NodeEvent,
  type RoomRef,
} from '#proto/weir/control/v1/control.ts';
import type { Clock } from '#platform/clock.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { TlsIdentity } from '#platform/tls-identity.ts';

const deadlineMs = 3000;

/** Who calls nodes, and under which names they are known. */
export interface NodeAccess {
  identity: TlsIdentity;
  /** A node's certificate has its name below this domain; when not set, its name alone. */
  nodeDomain?: string;
}

/** Credentials of calls to nodes. Renewed certificates are taken up at the next connection. */
export function controlCredentials(identity: TlsIdentity): ChannelCredentials {
  return experimental.createCertificateProviderChannelCredentials(identity, identity);
}

/** gRPC to one node's control service. The node proves by its certificate that it is the one that is meant. */
export class NodeClient {
  readonly node: string;
  readonly address: string;
  readonly #client: NodeControlClient;
  readonly #clock: Clock;

  constructor(node: string, address: string, { identity, nodeDomain }: NodeAccess, clock: Clock) {
    this.#clock = clock;
    this.node = node;
    this.address = address;
    const name = nodeDomain ? `${node}.${nodeDomain}` : node;
    this.#client = new NodeControlClient(address, controlCredentials(identity), {
      'grpc.ssl_target_name_override': name,
      'grpc.default_authority': name,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 2000,
      'grpc.keepalive_time_ms': 10_000,
      'grpc.keepalive_timeout_ms': 2000,
    });
  }

  /** @throws WeirError with the node's code (StaleEpoch, NodeDraining ...), NodeUnreachable when it did not answer */
  async apply(assignment: Assignment): Promise<AssignmentStatus> {
    const response = await this.#call<{ statuses: AssignmentStatus[] }>((done) =>
      this.#client.apply({ assignments: [assignment] }, new Metadata(), this.#deadline(), done),
    );
    const [served] = response.statuses;
    if (!served) throw new WeirError('NodeUnreachable', `Node ${this.node} confirmed nothing.`);
    return served;
  }

  /** @throws WeirError NodeUnreachable and the node's codes */
  async release(room: RoomRef, epoch: number, reason: string): Promise<void> {
    await this.#call((done) => this.#client.release({ room, epoch, reason }, new Metadata(), this.#deadline(), done));
  }

  /** @throws WeirError NodeUnreachable and the node's codes */
  async drain(drain: boolean): Promise<void> {
    await this.#call((done) => this.#client.drain({ drain }, new Metadata(), this.#deadline(), done));
  }

  /** Follows what the node serves; `onEnd` is called once, whatever ended it. */
  watch(onEvent: (event: NodeEvent) => void, onEnd: (why: string) => void): () => void {
    const stream: ClientReadableStream<NodeEvent> = this.#client.watch({});
    let ended = false;
    const end = (why: string) => {
      if (ended) return;
      ended = true;
      onEnd(why);
    };
    stream.on('data', onEvent);
    stream.on('error', (error) => end(messageOf(error)));
    stream.on('end', () => end('the node ended it'));
    return () => {
      ended = true;
      stream.cancel();
    };
  }

  close(): void {
    this.#client.close();
  }

  #deadline(): { deadline: number } {
    return { deadline: this.#clock.now() + deadlineMs };
  }

  #call<T>(start: (done: (error: ServiceError | null, response: T) => void) => unknown): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      start((error, response) => (error ? reject(this.#errorOf(error)) : resolve(response)));
    });
  }

  #errorOf(error: ServiceError): WeirError {
    const [code] = error.metadata?.get('weir-error-code') ?? [];
    if (code !== undefined) return new WeirError(String(code), error.details, { cause: error, where: this.node });
    const name = status[error.code] ?? String(error.code);
    return new WeirError(
      'NodeUnreachable',
      `Node ${this.node} at ${this.address} did not answer (${name}): ${error.details}`,
      { cause: error, where: this.node },
    );
  }
}
