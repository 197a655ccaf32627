import { connect } from 'node:net';

/** Whoever is there takes a connection within this, milliseconds: well before it would count as lost. */
const knockMs = 400;

/**
 * Whether somebody takes connections at an address, host:port. The kernel takes them for a process that is short of CPU or
 * stands still, refuses them for one that is dead, and says nothing where the machine is cut off. Never rejects.
 */
export async function isListening(address: string): Promise<boolean> {
  if (!URL.canParse(`tcp://${address}`)) return false;
  const { hostname, port } = new URL(`tcp://${address}`);
  // IPv6 stands in brackets.
  const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port), timeout: knockMs });
  try {
    return await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('timeout', () => resolve(false));
      // Always listened to: one that comes late must not end the process.
      socket.on('error', () => resolve(false));
    });
  } finally {
    socket.destroy();
  }
}
