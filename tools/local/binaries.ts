import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '#platform/errors.ts';
import { stateDirectory } from '#tools/local/leftovers.ts';

/** Programs that the local fleet runs, by absolute path. Written by the set-up into `.weir/setup.json`. */
export interface Binaries {
  etcd: string;
  'kube-apiserver': string;
  'kube-controller-manager': string;
  kubectl: string;
  'nats-server': string;
  'mediasoup-worker': string;
}

/** File in which the set-up says what it found or built. */
export const setupFile = join(stateDirectory, 'setup.json');

/**
 * The programs that the set-up found or built.
 *
 * @throws WeirError SetupMissing when the set-up has not run.
 */
export function locateBinaries(): Binaries {
  let text: string;
  try {
    text = readFileSync(setupFile, 'utf8');
  } catch (error) {
    throw new WeirError('SetupMissing', 'The set-up has not run in this checkout; run `make setup`.', {
      cause: error,
      where: setupFile,
    });
  }
  return (JSON.parse(text) as { binaries: Binaries }).binaries;
}
