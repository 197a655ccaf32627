import { connect, createServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';

/** Where one node takes connections. */
export interface Target {
  host: string;
  port: number;
}

/** How long a node may take to accept before the next one is asked, milliseconds. */
const connectTimeoutMs = 1000;

/**
 * A TCP balancer over the nodes' signalling: what a Service does in a cluster. Nodes take turns; one that refuses is
 * passed over. It never looks into the bytes.
 */
export class Balancer {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server, port: number, sockets: Set<Socket>) {
    this.#server = server;
    this.port = port;
    this.#sockets = sockets;
  }

  /** Listens on host:port (0 for a free one). `targets` is asked for each connection, as nodes come and go. */
  static async listen(host: string, port: number, targets: () => Target[]): Promise<Balancer> {
    let turn = 0;
    const sockets = new Set<Socket>();
    const server = createServer({ allowHalfOpen: false, noDelay: true }, (client) => {
      track(client, sockets);
      client.pause();
      const all = targets();
      turn += 1;
      const order = all.map((_, index) => all[(turn + index) % all.length]).filter((target) => target !== undefined);
      void firstThatAccepts(order).then((upstream) => {
        if (!upstream || client.destroyed) {
          upstream?.destroy();
          client.destroy();
          return;
        }
        track(upstream, sockets);
        for (const [from, to] of [
          [client, upstream],
          [upstream, client],
        ] as const) {
          from.pipe(to);
          from.once('close', () => to.destroy());
        }
      });
    });
    server.listen({ host, port });
    await once(server, 'listening');
    const bound = server.address();
    return new Balancer(server, typeof bound === 'object' && bound ? bound.port : port, sockets);
  }

  /** Stops listening and cuts every connection. Idempotent. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}

function track(socket: Socket, sockets: Set<Socket>): void {
  sockets.add(socket);
  socket.once('close', () => sockets.delete(socket));
  // A reset is followed by 'close', which is what matters here.
  socket.on('error', () => undefined);
}

async function firstThatAccepts(targets: Target[]): Promise<Socket | undefined> {
  for (const target of targets) {
    const socket = connect({ ...target, noDelay: true });
    const accepted = await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), connectTimeoutMs);
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
      socket.once('close', () => clearTimeout(timer));
    });
    if (accepted) return socket;
    socket.destroy();
  }
  return undefined;
}
