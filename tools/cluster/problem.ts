import { execFileSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';

/** What to do where this machine cannot hold a cluster of its own. */
export const otherClusters =
  'Use a cluster that exists, or one of kind (https://kind.sigs.k8s.io): docs/operations.md, "A cluster on one machine".';

/**
 * What keeps a cluster from running on this machine, or undefined when nothing does. For the `skip` of tests. What can
 * be installed or built is no problem.
 */
export function clusterProblem(): string | undefined {
  if (process.platform !== 'linux') return `needs Linux, and this is ${process.platform}`;
  if (process.getuid?.() !== 0) return 'needs root: namespaces, mounts and control groups';
  if (!existsSync('/etc/debian_version')) return 'needs Debian or Ubuntu: its programs come from their packages';
  try {
    // In an unprivileged container root may not do these.
    execFileSync('unshare', ['--net', '--mount', '--pid', '--fork', '--mount-proc', 'true'], { stdio: 'ignore' });
    accessSync(existsSync('/sys/fs/cgroup/memory') ? '/sys/fs/cgroup/memory' : '/sys/fs/cgroup', constants.W_OK);
    return undefined;
  } catch {
    return 'needs the right to make namespaces and control groups, which root lacks here: a privileged container has it';
  }
}
