import {
  type handleUnaryCall,
  type sendUnaryData,
  Server,
  type ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
} from '@grpc/grpc-js';
import {
  type Assignment,
  type NodeControlServer,
  NodeControlService,
  type NodeDescription,
  type NodeEvent,
} from '#proto/weir/control/v1/control.ts';
import type { TlsFiles } from '#platform/config.ts';
import type { Clock } from '#platform/clock.ts';
import type { ListenAddress } from '#platform/config.ts';
import { codeOf, messageOf, WeirError } from '#platform/errors.ts';
import { listenError, printAddress } from '#platform/listen.ts';
import type { Logger } from '#platform/log.ts';
import { TlsIdentity } from '#platform/tls-identity.ts';
import type { Rooms } from '#sfu-node/media/rooms.ts';
import { checkOperator, serverCredentials } from './credentials.ts';
import { toServiceError } from './status.ts';
import { RoomWatch } from './watch.ts';

/** A request with many assignments stays far below this. */
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;

export interface ControlServerOptions {
  listen: ListenAddress;
  tls: TlsFiles;
  /** Name of this node. */
  node: string;
  /** Identity of this process. */
  instance: string;
  version: string;
  rooms: Rooms;
  clock: Clock;
  log: Logger;
}

/** The gRPC service by which the operator declares what this node serves. Only OU=operator may call. */
export class ControlServer {
  /** The port that it listens on. */
  readonly port: number;
  readonly #server: Server;
  readonly #watches: Set<RoomWatch>;
  readonly #identity: TlsIdentity;
  #closed = false;

  /** @throws WeirError BadTlsFiles, or PortInUse and its kin naming WEIR_CONTROL_LISTEN */
  static async create(options: ControlServerOptions): Promise<ControlServer> {
    const identity = await TlsIdentity.create(options.tls, options);
    const server = new Server({
      'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
      // The operator keeps one connection a node and may ping it.
      'grpc.keepalive_permit_without_calls': 1,
    });
    const watches = new Set<RoomWatch>();
    server.addService(NodeControlService, implementation(options, watches));
    try {
      const port = await bind(server, options.listen, serverCredentials(identity));
      return new ControlServer(server, port, watches, identity);
    } catch (error) {
      identity.close();
      throw error;
    }
  }

  private constructor(server: Server, port: number, watches: Set<RoomWatch>, identity: TlsIdentity) {
    this.#server = server;
    this.port = port;
    this.#watches = watches;
    this.#identity = identity;
  }

  /** When the certificate that callers see ends, milliseconds since the epoch. */
  get certificateEndsAt(): number {
    return this.#identity.endsAt;
  }

  /** Ends every call. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const watch of this.#watches) watch.close();
    this.#server.forceShutdown();
    this.#identity.close();
  }
}

function implementation(options: ControlServerOptions, watches: Set<RoomWatch>): NodeControlServer {
  const { rooms, log } = options;
  const describe = (): NodeDescription => ({
    node: options.node,
    instance: options.instance,
    version: options.version,
    draining: rooms.draining,
    assignments: rooms.describe(),
  });
  return {
    apply: unary(log, async ({ assignments }) => {
      for (const assignment of assignments) checkAssignment(assignment);
      return { statuses: await Promise.all(assignments.map((assignment) => rooms.apply(assignment))) };
    }),
    release: unary(log, ({ room, epoch, reason }) => {
      if (!room?.uid) throw new WeirError('InvalidAssignment', 'room.uid is empty: name the room to release');
      rooms.release(room, epoch, reason);
      return {};
    }),
    drain: unary(log, ({ drain }) => {
      if (rooms.draining !== drain) log.info({ drain }, drain ? 'draining' : 'draining was taken back');
      rooms.setDraining(drain);
      return { rooms: rooms.describe().length };
    }),
    describe: unary(log, describe),
    watch: (call: ServerWritableStream<unknown, NodeEvent>) => {
      try {
        checkOperator(call);
      } catch (error) {
        call.emit('error', toServiceError(error));
        return;
      }
      const watch = RoomWatch.create({ rooms, describe, clock: options.clock, send: (event) => call.write(event) });
      watches.add(watch);
      const end = () => {
        watch.close();
        watches.delete(watch);
      };
      call.on('cancelled', end).on('close', end).on('error', end);
    },
  };
}

/** A handler that admits only the operator and answers errors with their codes. */
function unary<Request, Response>(
  log: Logger,
  handle: (request: Request) => Response | Promise<Response>,
): handleUnaryCall<Request, Response> {
  const run = async (call: ServerUnaryCall<Request, Response>) => {
    checkOperator(call);
    return handle(call.request);
  };
  return (call: ServerUnaryCall<Request, Response>, callback: sendUnaryData<Response>) => {
    run(call).then(
      (response) => callback(null, response),
      (error: unknown) => {
        if (codeOf(error) === 'Internal') log.error({ err: error }, 'a control call failed');
        else log.info({ code: codeOf(error) }, `a control call was refused: ${messageOf(error)}`);
        callback(toServiceError(error));
      },
    );
  };
}

function checkAssignment({ room, epoch }: Assignment): void {
  if (!room?.uid || !room.roomName) {
    throw new WeirError('InvalidAssignment', 'room.uid and room.room_name are needed in every assignment');
  }
  if (epoch < 1) throw new WeirError('InvalidAssignment', `epoch of room ${room.name} is ${epoch}: epochs begin at 1`);
}

async function bind(server: Server, listen: ListenAddress, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(printAddress(listen), credentials, (error, port) => {
      if (!error) return resolve(port);
      // gRPC keeps the system's code in the words alone.
      const code = /E[A-Z]{4,}/.exec(error.message)?.[0];
      reject(listenError(Object.assign(error, { code }), listen, 'WEIR_CONTROL_LISTEN'));
    });
  });
}
