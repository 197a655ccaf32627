import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { recordDirectory, removeRecorded, startTimeOf } from '#tools/local/leftovers.ts';
import { eventually } from '#tools/local/eventually.ts';

/** Directories of the control group hierarchies: one per controller, one of version 2, or both. */
function hierarchies(): string[] {
  const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n');
  const fields = mounts.map((line) => line.split(' '));
  return fields.filter(([, , type]) => type === 'cgroup' || type === 'cgroup2').map(([, path]) => path ?? '');
}

/**
 * The control groups of one node, below which its kubelet makes those of pods. Without a root of its own, each kubelet
 * would remove the pods of the others. They end with this process.
 */
export class ControlGroups {
  /** The root as a kubelet's `cgroupRoot`. */
  readonly root: string;
  readonly #paths: string[];

  constructor(node: string) {
    this.root = `/weir-${process.pid}-${startTimeOf(process.pid) ?? 0}-${node}`;
    this.#paths = hierarchies().map((hierarchy) => join(hierarchy, this.root));
    for (const path of this.#paths) {
      enableControllers(dirname(path));
      mkdirSync(path);
      recordDirectory(path);
      inheritCpus(path);
    }
  }

  /** Removes them. End the node's processes first. Idempotent. */
  async remove(): Promise<void> {
    await eventually(() => this.#paths.map(removeRecorded).every(Boolean), { what: `the end of ${this.root}` });
  }
}

/** Version 2: a group has the controllers that its parent hands down. */
function enableControllers(parent: string): void {
  const file = join(parent, 'cgroup.controllers');
  if (!existsSync(file)) return;
  const available = readFileSync(file, 'utf8').trim().split(' ');
  const wanted = available.filter((name) => ['cpu', 'cpuset', 'memory', 'pids', 'io', 'hugetlb'].includes(name));
  if (wanted.length === 0) return;
  writeFileSync(join(parent, 'cgroup.subtree_control'), wanted.map((name) => `+${name}`).join(' '));
}

/** Version 1: a new cpuset is empty, and takes no process before it has processors and memory nodes. */
function inheritCpus(path: string): void {
  for (const name of ['cpuset.cpus', 'cpuset.mems']) {
    const [own, parent] = [join(path, name), join(path, '..', name)];
    if (existsSync(own) && existsSync(parent)) writeFileSync(own, readFileSync(parent));
  }
}
