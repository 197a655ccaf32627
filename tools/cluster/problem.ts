import { existsSync } from 'node:fs';

/** What to do where this machine cannot hold a cluster of its own. */
export const otherClusters =
  'Use a cluster that exists, or one of kind (https://kind.sigs.k8s.io): docs/operations.md, "A cluster on one machine".';

/** What keeps a cluster from running on this machine, or undefined when nothing does. For the `skip` of tests. */
export function clusterProblem(): string | undefined {
  if (process.platform !== 'linux') return `needs Linux, and this is ${process.platform}`;
  if (process.getuid?.() !== 0) return 'needs root: namespaces, mounts and cgroups';
  if (!existsSync('/etc/debian_version') && !existsSync('/usr/sbin/runc') && !existsSync('/usr/bin/runc'))
    return 'needs Debian or Ubuntu, or runc, CNI plugins, nftables, conntrack and iproute2 in place';
  return undefined;
}
