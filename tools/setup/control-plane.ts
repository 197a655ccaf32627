import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { availableParallelism, arch, platform } from 'node:os';
import { delimiter, join } from 'node:path';
import { projectRoot, stateDirectory } from '#tools/local/leftovers.ts';
import { cacheDirectory, hashInputs, putInPlace, withLock } from './cache.ts';
import { ensureCommand } from './packages.ts';
import { attempt, runLogged, say, step } from './steps.ts';

/** Version that go.mod pins; stamped into the binaries, or clients cannot tell what they talk to. */
const kubernetes = { version: 'v1.36.3', major: '1', minor: '36' };
const stamp = 'k8s.io/component-base/version';
const ldflags = [
  '-s -w',
  `-X ${stamp}.gitVersion=${kubernetes.version}`,
  `-X ${stamp}.gitMajor=${kubernetes.major}`,
  `-X ${stamp}.gitMinor=${kubernetes.minor}`,
].join(' ');

interface Program {
  /** Package to build. */
  package: string;
  /** Asks for its version. */
  versionArgs: readonly string[];
  /** Finds the version in what it prints. A version with other words after it is a wrapper or a stub. */
  version: RegExp;
  /** Oldest usable version. */
  atLeast: readonly [number, number];
}

// Selectable fields of custom resources came with Kubernetes 1.31.
const kube = {
  version: /^(?:Kubernetes|Client Version:) v(\d+)\.(\d+)\.\d+(?![\w.]|-(?!eks|gke|k3s))/m,
  atLeast: [1, 31],
} as const;

const programs = {
  etcd: {
    package: 'go.etcd.io/etcd/server/v3',
    versionArgs: ['--version'],
    version: /etcd Version: (\d+)\.(\d+)/,
    atLeast: [3, 5],
  },
  'kube-apiserver': { package: 'k8s.io/kubernetes/cmd/kube-apiserver', versionArgs: ['--version'], ...kube },
  'kube-controller-manager': {
    package: 'k8s.io/kubernetes/cmd/kube-controller-manager',
    versionArgs: ['--version'],
    ...kube,
  },
  kubectl: { package: 'k8s.io/kubernetes/cmd/kubectl', versionArgs: ['version', '--client'], ...kube },
  'nats-server': {
    package: 'github.com/nats-io/nats-server/v2',
    versionArgs: ['--version'],
    version: /v(\d+)\.(\d+)\.\d+/,
    atLeast: [2, 10],
  },
} as const satisfies Record<string, Program>;

type ProgramName = keyof typeof programs;

/** Whether a program runs and is new enough. */
async function isUsable(name: ProgramName, path: string): Promise<boolean> {
  const program: Program = programs[name];
  const { code, output } = await attempt(path, program.versionArgs, { timeoutMs: 10_000 });
  const match = code === 0 ? program.version.exec(output) : null;
  if (!match) return false;
  const [major, minor] = [Number(match[1]), Number(match[2])];
  return major > program.atLeast[0] || (major === program.atLeast[0] && minor >= program.atLeast[1]);
}

/** A usable program in KUBEBUILDER_ASSETS or PATH. Those that are not usable are added to `refused`. */
async function find(name: ProgramName, refused: string[]): Promise<string | undefined> {
  const directories = [process.env['KUBEBUILDER_ASSETS'], ...(process.env['PATH'] ?? '').split(delimiter)];
  for (const directory of new Set(directories)) {
    if (directory === undefined || directory === '') continue;
    const path = join(directory, name);
    if (!existsSync(path)) continue;
    if (await isUsable(name, path)) return path;
    refused.push(`${path} is not usable: wants ${name} ${programs[name].atLeast.join('.')} or newer, and no wrapper`);
  }
  return undefined;
}

/**
 * Finds or builds the programs of the local control plane.
 *
 * @returns absolute paths by name.
 */
export async function provideControlPlane(): Promise<Record<ProgramName, string>> {
  const source = join(projectRoot, 'tools/controlplane');
  const key = await hashInputs([join(source, 'go.mod'), join(source, 'go.sum')], [ldflags, platform(), arch()]);
  const directory = join(cacheDirectory(), key);
  const names = Object.keys(programs) as ProgramName[];
  const refused: string[] = [];
  const paths = await Promise.all(
    names.map(async (name) => {
      const found = await find(name, refused);
      if (found !== undefined) return [name, found] as const;
      const built = join(directory, name);
      return [name, (await isUsable(name, built)) ? built : undefined] as const;
    }),
  );
  const missing = paths.filter(([, path]) => path === undefined).map(([name]) => name);
  if (missing.length > 0) {
    await ensureCommand('go', ['version'], 'Install Go 1.26 or newer: https://go.dev/dl, or apt-get install golang');
    for (const reason of refused) say(reason);
    say(`building ${missing.join(', ')}: 5 to 10 minutes once, then they are kept in ${directory}`);
    await withLock(directory, () => build(missing, source, directory));
  }
  return Object.fromEntries(paths.map(([name, path]) => [name, path ?? join(directory, name)] as const)) as Record<
    ProgramName,
    string
  >;
}

async function build(names: readonly ProgramName[], source: string, directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  const work = await mkdtemp(join(directory, 'build-'));
  const env = { CGO_ENABLED: '0', GOFLAGS: '-mod=readonly', GOWORK: 'off' };
  try {
    for (const [index, name] of names.entries()) {
      // Another set-up may have built it while this one waited for the lock.
      if (await isUsable(name, join(directory, name))) continue;
      await step(`go build ${name} (${index + 1} of ${names.length})`, () =>
        runLogged(
          'go',
          [
            ...['build', '-trimpath', '-p', String(availableParallelism()), '-ldflags', ldflags],
            ...['-o', join(work, name), programs[name].package],
          ],
          { cwd: source, env, logFile: join(stateDirectory, 'log', `build-${name}.log`) },
        ),
      );
      await putInPlace(join(work, name), join(directory, name));
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
