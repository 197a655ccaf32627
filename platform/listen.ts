import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ListenAddress } from './config.ts';
import { WeirError } from './errors.ts';

/**
 * Starts listening and answers with the port that was really taken.
 * @param variable name of the setting that the address came from, for the error
 * @throws WeirError PortInUse, AddressNotAvailable or ListenFailed, naming the variable
 */
export async function listenOn(server: Server, address: ListenAddress, variable: string): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(address.port, address.host, () => {
      server.off('error', reject);
      resolve();
    });
  }).catch((error: unknown) => {
    throw listenError(error, address, variable);
  });
  return (server.address() as AddressInfo).port;
}

/** What an operating system's refusal to listen means, in words. */
export function listenError(error: unknown, address: ListenAddress, variable: string): WeirError {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const where = `${variable}=${printAddress(address)}`;
  if (code === 'EADDRINUSE') {
    const words = `port ${address.port} on ${address.host} is in use by another process: stop that one, or set ${variable} to another port (0 takes a free one)`;
    return new WeirError('PortInUse', words, { where, cause: error });
  }
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') {
    const words = `${address.host} is no address of this machine: set ${variable} to one that is, or to 0.0.0.0`;
    return new WeirError('AddressNotAvailable', words, { where, cause: error });
  }
  const words = `cannot listen on ${printAddress(address)} (${code}): check ${variable}`;
  return new WeirError('ListenFailed', words, { where, cause: error });
}

/** host:port as people write it; IPv6 in brackets. */
export function printAddress(address: ListenAddress): string {
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}
