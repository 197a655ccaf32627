import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { availableParallelism, cpus, loadavg, release, totalmem, type } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { locateBinaries } from '#tools/local/binaries.ts';
import { projectRoot } from '#tools/local/leftovers.ts';

const run = promisify(execFile);

/** What the figures were measured on. */
export interface Machine {
  cores: number;
  cpu: string;
  memoryGiB: number;
  kernel: string;
  /** Load average over the last minute when the run began: above a half, others were using the machine. */
  loadAtStart: number;
  versions: Record<string, string>;
  /** Commit of the checkout, with `+` when files of it were changed. */
  commit: string;
}

/** Describes this machine and the programs that the benchmarks run. */
export async function describeMachine(): Promise<Machine> {
  const binaries = locateBinaries();
  const [etcd, apiserver, nats, chromium, mediasoup, livekit, commit] = await Promise.all([
    versionOf(binaries.etcd, '--version'),
    versionOf(binaries['kube-apiserver'], '--version'),
    versionOf(binaries['nats-server'], '--version'),
    versionOf(process.env['WEIR_CHROMIUM'] ?? '/usr/bin/chromium', '--version'),
    packageVersion('mediasoup'),
    packageVersion('livekit-client'),
    commitOf(),
  ]);
  return {
    cores: availableParallelism(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    memoryGiB: Math.round((totalmem() / 2 ** 30) * 10) / 10,
    kernel: `${type()} ${release()}`,
    loadAtStart: loadavg()[0] ?? 0,
    versions: {
      node: process.versions.node,
      'kube-apiserver': apiserver,
      etcd,
      'nats-server': nats,
      mediasoup,
      'livekit-client': livekit,
      chromium,
    },
    commit,
  };
}

/** The machine in one line. */
export function machineWords(machine: Machine): string {
  const { cores, cpu, memoryGiB, kernel, versions } = machine;
  const programs = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return `${cores} cores (${cpu}), ${memoryGiB} GiB, ${kernel}; ${programs.join(', ')}`;
}

async function versionOf(command: string, ...args: string[]): Promise<string> {
  try {
    const { stdout } = await run(command, args, { timeout: 20_000 });
    return /\d+\.\d+(\.\d+)*/.exec(stdout)?.[0] ?? 'unknown';
  } catch {
    return 'not there';
  }
}

async function packageVersion(name: string): Promise<string> {
  const text = await readFile(join(projectRoot, 'node_modules', name, 'package.json'), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

async function commitOf(): Promise<string> {
  try {
    const head = await run('git', ['rev-parse', '--short', 'HEAD'], { cwd: projectRoot });
    const changed = await run('git', ['status', '--porcelain', '--untracked-files=no'], { cwd: projectRoot });
    return head.stdout.trim() + (changed.stdout.trim() === '' ? '' : '+');
  } catch {
    return 'unknown';
  }
}
