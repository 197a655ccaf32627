import { connect, createServer, type Server, type Socket } from 'node:net';
import type { AddressInfo } from 'node:net';
import { KubeConfig } from '@kubernetes/client-node';

/** Stands between a client and a server and fails as networks do: connections are cut, or go silent without an end. */
export class TcpProxy {
  readonly #server: Server;
  readonly #pairs = new Set<[Socket, Socket]>();
  #stalled = false;
  #refusing = false;
  /** How many connections were made through it. */
  connections = 0;

  private constructor(target: URL) {
    this.#server = createServer((client) => {
      if (this.#refusing) return void client.destroy();
      this.connections += 1;
      const upstream = connect(Number(target.port), target.hostname);
      const pair: [Socket, Socket] = [client, upstream];
      this.#pairs.add(pair);
      const end = () => {
        this.#pairs.delete(pair);
        client.destroy();
        upstream.destroy();
      };
      for (const socket of pair) socket.on('error', end).on('close', end);
      this.#connect(pair);
      if (this.#stalled) for (const socket of pair) socket.pause();
    });
  }

  /** @param url where to pass connections on to */
  static async start(url: string): Promise<TcpProxy> {
    const proxy = new TcpProxy(new URL(url));
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** A kubeconfig that goes through the proxy, with connections of its own. */
  kubeConfig(path: string): KubeConfig {
    const kubeConfig = new KubeConfig();
    kubeConfig.loadFromFile(path);
    kubeConfig.clusters = kubeConfig.clusters.map((cluster) => ({
      ...cluster,
      server: `https://127.0.0.1:${this.port}`,
    }));
    return kubeConfig;
  }

  /** Resets every connection that is open now. */
  cut(): void {
    for (const [client, upstream] of [...this.#pairs]) {
      client.resetAndDestroy();
      upstream.destroy();
    }
  }

  /** Passes nothing more on, in either direction, and ends nothing; new connections are taken and stay as silent. */
  stall(): void {
    this.#stalled = true;
    for (const pair of this.#pairs) for (const socket of pair) socket.pause();
  }

  /** New connections pass again. Those that were stalled never come back. */
  recover(): void {
    this.#stalled = false;
    this.#refusing = false;
  }

  /** Cuts everything and takes no connection until {@link recover}. */
  refuse(): void {
    this.#refusing = true;
    this.cut();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #connect([client, upstream]: [Socket, Socket]): void {
    const pass = (from: Socket, to: Socket) => from.on('data', (chunk) => void to.write(chunk));
    pass(client, upstream);
    pass(upstream, client);
  }
}
