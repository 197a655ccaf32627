import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { WeirError, messageOf } from '#platform/errors.ts';
import { printAddress } from '#platform/listen.ts';

/** host:port, with brackets around an IPv6 literal. */
export function hostPort(address: string, port: number): string {
  return printAddress({ host: address, port });
}

/** A TCP port that was free on `address` a moment ago. */
export async function freePort(address: string): Promise<number> {
  return await listenOnce(address, 0);
}

/** Whether a TCP port can be listened on now. */
export async function isPortFree(address: string, port: number): Promise<boolean> {
  return await listenOnce(address, port).then(
    () => true,
    () => false,
  );
}

async function listenOnce(address: string, port: number): Promise<number> {
  return await new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen({ host: address, port }, () => {
      const bound = server.address();
      server.close(() => {
        if (bound && typeof bound === 'object') resolve(bound.port);
        else reject(new WeirError('NoFreePort', `no free TCP port on ${address}`));
      });
    });
  });
}

/**
 * Runs `start` with a free port, and again with another one when somebody else took it in between. For programs that
 * cannot pick a port themselves.
 */
export async function withFreePort<T>(address: string, start: (port: number) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    const port = await freePort(address);
    try {
      return await start(port);
    } catch (error) {
      if (attempt === 5 || !/address already in use|EADDRINUSE|failed to listen/i.test(messageOf(error))) throw error;
      await delay(100 * attempt);
    }
  }
}
