import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** A TCP relay that makes a server far away: everything arrives late by the same time, in both directions. */
export class FarAway {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @param oneWayMs milliseconds that each direction takes */
  static async start(target: { host: string; port: number }, oneWayMs: number): Promise<FarAway> {
    const server = createServer((near) => {
      const far = connect(target);
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        relay.#sockets.add(from);
        // Timers of the same length fire in the order in which they were set.
        const late = (act: () => void) => setTimeout(() => !to.destroyed && act(), oneWayMs);
        from.on('data', (bytes) => late(() => to.write(bytes)));
        from.on('end', () => late(() => to.end()));
        from.on('error', () => to.destroy());
        from.on('close', () => relay.#sockets.delete(from));
      }
    });
    const relay = new FarAway(server);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(0, '127.0.0.1', resolve);
    });
    return relay;
  }

  /** Where clients connect to: a WebSocket address without a path. */
  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
