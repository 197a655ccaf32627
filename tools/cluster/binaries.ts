import { readFileSync } from 'node:fs';
import { WeirError } from '#platform/errors.ts';
import { setupFile } from '#tools/local/binaries.ts';

/** Programs that a cluster runs beside the control plane, by absolute path. */
export interface ClusterBinaries {
  kubelet: string;
  'kube-proxy': string;
  'kube-scheduler': string;
  containerd: string;
  'containerd-shim-runc-v2': string;
  ctr: string;
  coredns: string;
  helm: string;
  runc: string;
  /** Statically linked: it is all that the cluster's own image holds. */
  busybox: string;
  /** Directory of the CNI plugins `bridge`, `host-local`, `portmap` and `loopback`. */
  cniPlugins: string;
}

/**
 * The programs that the set-up found or built for clusters.
 *
 * @throws WeirError SetupMissing when the set-up for clusters has not run.
 */
export function locateClusterBinaries(): ClusterBinaries {
  let cluster: ClusterBinaries | undefined;
  try {
    ({ cluster } = JSON.parse(readFileSync(setupFile, 'utf8')) as { cluster?: ClusterBinaries });
  } catch (error) {
    throw new WeirError('SetupMissing', 'The set-up has not run in this checkout; run `make cluster`.', {
      cause: error,
      where: setupFile,
    });
  }
  if (cluster) return cluster;
  throw new WeirError('SetupMissing', 'The set-up for clusters has not run in this checkout; run `make cluster`.', {
    where: setupFile,
  });
}
