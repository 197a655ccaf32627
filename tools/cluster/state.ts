import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startTimeOf, stateDirectory } from '#tools/local/leftovers.ts';
import type { ClusterNodeSpec } from './cluster-node.ts';

/** What the process that holds the cluster of `make cluster` tells the others. */
export interface ClusterState {
  /** Process id and start time of the process that holds the cluster. */
  pid: number;
  started: number;
  /** Whether its nodes are Ready; what follows is empty before. */
  ready: boolean;
  kubeconfig: string;
  /** Directory of data and logs. */
  dir: string;
  nodes: (ClusterNodeSpec & { address: string; containerd: string })[];
}

const file = join(stateDirectory, 'cluster.json');
/** Kubeconfig of the cluster of `make cluster`, at a path that stays. */
export const kubeconfigFile = join(stateDirectory, 'cluster.kubeconfig');
/** Log of the process that holds the cluster. */
export const logFile = join(stateDirectory, 'log/cluster.log');

/** The cluster that runs or is starting, or undefined. */
export async function readState(): Promise<ClusterState | undefined> {
  try {
    const state = JSON.parse(await readFile(file, 'utf8')) as ClusterState;
    return startTimeOf(state.pid) === state.started ? state : undefined;
  } catch {
    return undefined;
  }
}

/** Says for this process how far its cluster is. */
export async function writeState(known: Omit<ClusterState, 'pid' | 'started'>): Promise<void> {
  const state: ClusterState = { pid: process.pid, started: startTimeOf(process.pid) ?? 0, ...known };
  await writeFile(`${file}.tmp`, JSON.stringify(state, null, 2));
  await rename(`${file}.tmp`, file);
}

/** Says that there is no cluster any more. */
export async function removeState(): Promise<void> {
  await rm(file, { force: true });
  await rm(kubeconfigFile, { force: true });
}
