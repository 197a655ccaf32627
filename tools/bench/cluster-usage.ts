import { setTimeout as delay } from 'node:timers/promises';
import type { WeirCluster } from '#test/cluster/weir-cluster.ts';

/** What a container needs. */
export interface Usage {
  /** Cores that it kept busy. */
  cores: number;
  /** Memory that cannot be taken back from it (the working set, by which the kernel's limit and Kubernetes go), MiB. */
  mebibytes: number;
}

interface Summary {
  pods: {
    podRef: { name: string; namespace: string };
    containers?: {
      name: string;
      cpu?: { time: string; usageCoreNanoSeconds?: number };
      memory?: { workingSetBytes?: number };
    }[];
  }[];
}

interface Reading {
  coreNanoSeconds: number;
  atMs: number;
  bytes: number;
}

/** What the kubelets count of each container of the release, by `pod container`. */
async function read(weir: WeirCluster): Promise<Map<string, Reading>> {
  const readings = new Map<string, Reading>();
  for (const { name } of weir.cluster.nodes) {
    const text = await weir.cluster.kubectl.run('get', '--raw', `/api/v1/nodes/${name}/proxy/stats/summary`);
    for (const { podRef, containers = [] } of (JSON.parse(text) as Summary).pods) {
      for (const { name: container, cpu, memory } of containers) {
        if (cpu?.usageCoreNanoSeconds === undefined || memory?.workingSetBytes === undefined) continue;
        const reading = {
          coreNanoSeconds: cpu.usageCoreNanoSeconds,
          atMs: Date.parse(cpu.time),
          bytes: memory.workingSetBytes,
        };
        readings.set(`${podRef.name} ${container}`, reading);
      }
    }
  }
  return readings;
}

/** What each container of a name needs over some seconds, as its kubelet counts. */
export async function usageOf(weir: WeirCluster, container: string, seconds: number): Promise<Usage[]> {
  const before = await read(weir);
  await delay(seconds * 1000);
  const after = await read(weir);
  return [...after].flatMap(([key, { coreNanoSeconds, atMs, bytes }]) => {
    const then = before.get(key);
    if (!then || atMs <= then.atMs || !key.endsWith(` ${container}`)) return [];
    const cores = (coreNanoSeconds - then.coreNanoSeconds) / 1e6 / (atMs - then.atMs);
    return [{ cores, mebibytes: bytes / 2 ** 20 }];
  });
}
