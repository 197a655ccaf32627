import { WeirError } from '#platform/errors.ts';
import { attempt } from '#tools/setup/steps.ts';
import { locateClusterBinaries } from './binaries.ts';

async function ctr(socket: string, ...args: string[]) {
  return await attempt(locateClusterBinaries().ctr, ['--address', socket, ...args], { timeoutMs: 300_000 });
}

/** Whether a containerd answers on this socket. */
export async function answers(socket: string): Promise<boolean> {
  return (await ctr(socket, 'version')).code === 0;
}

/**
 * Loads an image, an OCI or docker archive as a tar file, for pods of the node whose containerd listens on `socket`.
 *
 * @throws WeirError ImageNotLoaded
 */
export async function importImage(socket: string, file: string): Promise<void> {
  const { code, output } = await ctr(socket, '--namespace', 'k8s.io', 'images', 'import', file);
  if (code === 0) return;
  // Its log lines are advice on the machine, not on the image.
  const said = output.split('\n').filter((line) => line !== '' && !line.startsWith('time='));
  throw new WeirError('ImageNotLoaded', `the image was not taken at ${socket}: ${said.join('; ')}`, { where: file });
}
