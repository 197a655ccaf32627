/**
 * Brings up a cluster on this machine that stays until `make cluster-down`, and prints how to use it.
 *
 * usage: make cluster
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdir, rm, symlink } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { locateBinaries } from '#tools/local/binaries.ts';
import { eventually } from '#tools/local/eventually.ts';
import { projectRoot, stateDirectory } from '#tools/local/leftovers.ts';
import { locateClusterBinaries } from './binaries.ts';
import { logFile, readState, type ClusterState } from './state.ts';

const toolDirectory = join(stateDirectory, 'bin');

/** Starts the process that holds the cluster. */
async function hold(): Promise<void> {
  await mkdir(dirname(logFile), { recursive: true });
  const log = openSync(logFile, 'w');
  const holder = spawn(process.execPath, [join(import.meta.dirname, 'serve.ts')], {
    cwd: projectRoot,
    detached: true,
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  holder.unref();
  // Whoever interrupts the start wants no cluster.
  const interrupt = () => {
    holder.kill('SIGTERM');
    process.exit(130);
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, interrupt);
  await eventually(async () => holder.exitCode !== null || (await readState()) !== undefined);
}

/** Repeats what the holder says until its cluster is up; undefined when it has ended instead. */
async function follow(): Promise<ClusterState | undefined> {
  let told = 0;
  for (;;) {
    const state = await readState();
    const lines = readFileSync(logFile, 'utf8').split('\n').slice(0, -1);
    for (const line of lines.slice(told)) console.log(line);
    told = lines.length;
    if (state === undefined || state.ready) return state;
    await delay(200);
  }
}

/** Puts the programs that a person types into one directory. */
async function linkTools(): Promise<void> {
  await mkdir(toolDirectory, { recursive: true });
  for (const path of [locateBinaries().kubectl, locateClusterBinaries().helm]) {
    const link = join(toolDirectory, basename(path));
    await rm(link, { force: true });
    await symlink(path, link);
  }
}

function describe(state: ClusterState, seconds: string): string {
  const here = (path: string) => relative(process.cwd(), path);
  const nodes = state.nodes.map(({ name, region, zone, address }) => {
    return `  ${name.padEnd(8)} ${address.padEnd(15)} ${region} ${zone}`;
  });
  return `
The cluster is up${seconds}: Kubernetes with ${state.nodes.length} nodes, which this machine reaches at their own addresses, as it does their pods.

${nodes.join('\n')}

  export KUBECONFIG=${state.kubeconfig}
  export PATH=${toolDirectory}:$PATH    # kubectl, helm
  kubectl get nodes -L topology.kubernetes.io/region,topology.kubernetes.io/zone

Images are loaded, not pulled:     node ${here(join(import.meta.dirname, 'load-image.ts'))} image.tar
The demo on this cluster:          make demo KUBECONFIG=$KUBECONFIG
Logs of every program:             ${state.dir}
Its end:                           make cluster-down
`;
}

const began = Date.now();
const running = await readState();
if (running === undefined) await hold();
const state = running?.ready ? running : await follow();
if (state === undefined) {
  console.error(`The cluster did not come up; the log is ${logFile}`);
  process.exitCode = 1;
} else {
  await linkTools();
  console.log(describe(state, running?.ready ? ' already' : ` after ${Math.round((Date.now() - began) / 1000)} s`));
}
