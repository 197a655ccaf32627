import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { arch } from 'node:os';
import { delimiter, join } from 'node:path';
import { WeirError } from '#platform/errors.ts';
import type { ClusterBinaries } from '#tools/cluster/binaries.ts';
import { projectRoot } from '#tools/local/leftovers.ts';
import { cacheDirectory, hashInputs, putInPlace, withLock } from './cache.ts';
import { kubernetesNode } from './control-plane.ts';
import { findGoPrograms, provideGoPrograms, type GoModule } from './go-programs.ts';
import { ensurePackages } from './packages.ts';
import { attempt, step } from './steps.ts';

const modules = join(projectRoot, 'tools/cluster/modules');
const small = { inputs: ['go.mod', 'go.sum'], ldflags: '-s -w' };

// The shim and ctr must be those of the containerd that is used, so all three come from one module.
const containerd = {
  ...small,
  source: join(modules, 'containerd'),
  duration: '1 to 3 minutes',
  programs: {
    containerd: {
      package: 'github.com/containerd/containerd/v2/cmd/containerd',
      versionArgs: ['--version'],
      version: /v?(\d+)\.(\d+)\.\d+/,
      atLeast: [2, 1],
    },
    'containerd-shim-runc-v2': {
      package: 'github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2',
      versionArgs: ['-v'],
      version: /v?(\d+)\.(\d+)\.\d+/,
      atLeast: [2, 1],
    },
    ctr: {
      package: 'github.com/containerd/containerd/v2/cmd/ctr',
      versionArgs: ['--version'],
      version: /v?(\d+)\.(\d+)\.\d+/,
      atLeast: [2, 1],
    },
  },
} as const satisfies GoModule<string>;

const coredns = {
  ...small,
  inputs: ['go.mod', 'go.sum', 'main.go'],
  source: join(modules, 'coredns'),
  duration: '1 to 2 minutes',
  programs: {
    coredns: { package: '.', versionArgs: ['-version'], version: /CoreDNS-(\d+)\.(\d+)/, atLeast: [1, 11] },
  },
} as const satisfies GoModule<string>;

const helm = {
  ...small,
  source: join(modules, 'helm'),
  duration: '1 to 3 minutes',
  programs: {
    helm: {
      package: 'helm.sh/helm/v4/cmd/helm',
      versionArgs: ['version', '--short'],
      version: /^v(\d+)\.(\d+)/m,
      atLeast: [3, 14],
    },
  },
} as const satisfies GoModule<string>;

const packages = ['runc', 'containernetworking-plugins', 'nftables', 'conntrack', 'iproute2', 'util-linux'];

/** Finds or builds what a cluster on this machine runs. As root only. */
export async function provideCluster(): Promise<ClusterBinaries> {
  await ensurePackages(packages, 'a cluster on this machine');
  // One after another: each build takes every core.
  const programs = {
    ...(await provideGoPrograms(kubernetesNode)),
    ...(await provideGoPrograms(containerd)),
    ...(await provideGoPrograms(coredns)),
    ...(await provideGoPrograms(helm)),
  };
  return { ...programs, ...findInstalled(), busybox: await provideBusybox() };
}

/** What an earlier set-up has provided for clusters, or undefined when something is missing. Installs and builds nothing. */
export async function findCluster(): Promise<ClusterBinaries | undefined> {
  const [node, runtime, dns, charts, busybox] = await Promise.all([
    findGoPrograms(kubernetesNode),
    findGoPrograms(containerd),
    findGoPrograms(coredns),
    findGoPrograms(helm),
    busyboxPath(),
  ]);
  if (!node || !runtime || !dns || !charts || !existsSync(busybox)) return undefined;
  try {
    return { ...node, ...runtime, ...dns, ...charts, ...findInstalled(), busybox };
  } catch {
    return undefined;
  }
}

/** What the system's packages bring. */
function findInstalled(): Pick<ClusterBinaries, 'runc' | 'cniPlugins'> {
  return {
    runc: findFile('runc', [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/bin']),
    cniPlugins: findDirectory(['/usr/lib/cni', '/opt/cni/bin', '/usr/libexec/cni']),
  };
}

function findFile(name: string, directories: readonly string[]): string {
  const found = directories.map((directory) => join(directory, name)).find((path) => existsSync(path));
  if (found === undefined)
    throw new WeirError('CommandMissing', `${name} is missing: install it with your system's packages`);
  return found;
}

/** The first of these directories that holds the CNI plugins. */
function findDirectory(candidates: readonly string[]): string {
  const found = candidates.find((directory) => existsSync(join(directory, 'bridge')));
  if (found === undefined)
    throw new WeirError('CommandMissing', `CNI plugins are missing: none of ${candidates.join(', ')} holds "bridge"`);
  return found;
}

async function busyboxPath(): Promise<string> {
  return join(cacheDirectory(), await hashInputs([], ['busybox-static', arch()]), 'busybox');
}

/** A static busybox out of its Debian package. The package is not installed: it would replace the machine's own. */
async function provideBusybox(): Promise<string> {
  const path = await busyboxPath();
  if (existsSync(path)) return path;
  const directory = join(path, '..');
  await withLock(directory, async () => {
    if (existsSync(path)) return;
    await mkdir(directory, { recursive: true });
    const work = await mkdtemp(join(directory, 'unpack-'));
    try {
      await step('busybox-static', () => unpackBusybox(work));
      await putInPlace(join(work, 'bin/busybox'), path);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  });
  return path;
}

async function unpackBusybox(work: string): Promise<void> {
  // apt drops root's rights for downloads, so the directory must not be root's alone; its warning about that is no error.
  const download = () => attempt('apt-get', ['download', '-qq', 'busybox-static'], { cwd: work });
  let outcome = await download();
  if (outcome.code !== 0) {
    await attempt('apt-get', ['update', '-qq']);
    outcome = await download();
  }
  const file = (await readdir(work)).find((name) => name.endsWith('.deb'));
  if (outcome.code !== 0 || file === undefined)
    throw new WeirError('PackagesMissing', `apt-get download busybox-static failed:\n${outcome.output.trimEnd()}`);
  const unpacked = await attempt('dpkg-deb', ['-x', file, '.'], { cwd: work });
  if (unpacked.code !== 0) throw new WeirError('PackagesMissing', `dpkg-deb -x ${file} failed:\n${unpacked.output}`);
}
