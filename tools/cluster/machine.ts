import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { LocalProcess } from '#tools/local/process.ts';

/** Options of {@link Machine.start}. */
export interface MachineOptions {
  /** Host name inside, and the name in messages. */
  name: string;
  /** Its own directory: new or empty, not below those of {@link ownDirectories}. */
  dir: string;
}

/** What every machine has for itself, so that its programs can use their standard paths. */
const ownDirectories = ['/run', '/var/lib', '/var/log'];

/** Settings of the whole kernel that a kubelet insists on writing. In a machine they are files. */
const kernelSettings = [
  ...['vm/overcommit_memory', 'vm/panic_on_oom', 'kernel/panic', 'kernel/panic_on_oops'],
  ...['kernel/keys/root_maxkeys', 'kernel/keys/root_maxbytes'],
];

/**
 * A "machine" inside this one: processes with their own network, mounts, process ids and host name. It is held by one
 * process. When that ends, however it ends, the kernel ends every other process inside, and unmounts and removes what
 * they made: mounts, pods, network devices.
 */
export class Machine {
  readonly name: string;
  readonly #process: LocalProcess;

  private constructor(name: string, process: LocalProcess) {
    this.name = name;
    this.#process = process;
  }

  /**
   * Starts a machine without a network link.
   *
   * @throws WeirError ProcessFailed when namespaces cannot be made.
   */
  static async start({ name, dir }: MachineOptions): Promise<Machine> {
    await mkdir(join(dir, 'sys'), { recursive: true });
    for (const path of ownDirectories) await mkdir(join(dir, flat(path)), { recursive: true });
    // Not copied as files: the kernel says that they are empty.
    for (const path of kernelSettings)
      await writeFile(join(dir, 'sys', basename(path)), await readFile(join('/proc/sys', path)));
    const script = join(dir, 'machine.sh');
    await writeFile(script, machineScript(name, dir));
    const namespaces = ['--net', '--mount', '--pid', '--uts', '--ipc'];
    const started = await LocalProcess.start({
      name,
      command: 'unshare',
      args: [...namespaces, '--fork', '--kill-child', '--mount-proc', '--propagation', 'slave', 'sh', script],
      logFile: join(dir, 'machine.log'),
      ready: () => existsSync(join(dir, 'up')),
    });
    return new Machine(name, started);
  }

  /** Id of the process that holds the machine's network. */
  get pid(): number {
    return this.#process.pid;
  }

  /** Words before a command that is to run inside. */
  get wrapper(): string[] {
    const target = ['--target', String(this.pid), '--net', '--mount', '--uts', '--ipc'];
    return ['nsenter', ...target, `--pid=/proc/${this.pid}/ns/pid_for_children`, '--'];
  }

  /** Ends it and everything inside at once, as a power cut would. Idempotent. */
  async stop(): Promise<void> {
    await this.#process.kill();
  }
}

/** Name of a machine's own copy of a directory, below its own directory. */
export function flat(path: string): string {
  return path.slice(1).replaceAll('/', '-');
}

function machineScript(name: string, dir: string): string {
  const bind = (from: string, to: string) => `mount --bind '${join(dir, from)}' ${to}`;
  return [
    'set -e',
    // Mounts below reach containers that ask for them, and never the machine outside.
    'mount --make-rshared /',
    `hostname ${name}`,
    ...kernelSettings.map((path) => bind(join('sys', basename(path)), join('/proc/sys', path))),
    ...ownDirectories.map((path) => bind(flat(path), path)),
    'ip link set lo up',
    'echo 1 >/proc/sys/net/ipv4/ip_forward',
    'echo 1 >/proc/sys/net/ipv6/conf/all/forwarding',
    // Answers of a Service between pods of one bridge go back through its translation.
    'echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables',
    'echo 1 >/proc/sys/net/bridge/bridge-nf-call-ip6tables',
    `: >'${join(dir, 'up')}'`,
    // As process 1 it takes in, and so ends, processes whose parents are dead.
    "trap 'exit 0' TERM",
    'while :; do sleep 2147483 & wait; done',
    '',
  ].join('\n');
}
