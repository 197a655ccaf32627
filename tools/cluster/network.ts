import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError, messageOf } from '#platform/errors.ts';
import { LocalProcess } from '#tools/local/process.ts';
import type { Machine } from './machine.ts';

const run = promisify(execFile);
/** So many clusters fit on one machine at once. */
const slots = 16;

/** A machine's place in the network. */
export interface Place {
  /** The machine's own address. */
  address: string;
  /** Subnet of its pods, CIDR. */
  podSubnet: string;
}

/**
 * The network of a cluster: a switch in a network namespace of its own, to which the machines and the host are linked.
 * The host takes no part in forwarding: neither its firewall nor its settings matter, and it reaches nodes and pods at
 * their own addresses. With its switch's process all of it is gone.
 */
export class ClusterNetwork {
  /** The host's address in this network. */
  readonly hostAddress: string;
  /** Addresses of all pods, CIDR. */
  readonly podCidr: string;
  /** The host's network device. */
  readonly device: string;
  readonly #slot: number;
  readonly #switch: LocalProcess;

  private constructor(slot: number, process: LocalProcess) {
    this.#slot = slot;
    this.#switch = process;
    this.device = deviceOf(slot);
    this.hostAddress = `10.88.${slot}.1`;
    this.podCidr = `10.${112 + slot}.0.0/16`;
  }

  /**
   * Makes the switch, with addresses that no route of this machine covers.
   *
   * @param dir for the log.
   * @throws WeirError NoFreeNetwork
   */
  static async create(dir: string): Promise<ClusterNetwork> {
    const process = await LocalProcess.start({
      name: 'switch',
      command: 'unshare',
      args: ['--net', 'sh', '-c', `: >'${join(dir, 'switch-up')}'; exec sleep 2147483`],
      logFile: join(dir, 'switch.log'),
      ready: () => existsSync(join(dir, 'switch-up')),
    });
    try {
      const network = new ClusterNetwork(await claimSlot(process.pid), process);
      await network.#connectHost();
      return network;
    } catch (error) {
      await process.kill();
      throw error;
    }
  }

  /** The place of the machine of this number, from 1. */
  place(number: number): Place {
    return {
      address: `10.88.${this.#slot}.${10 + number}`,
      podSubnet: `10.${112 + this.#slot}.${number}.0/24`,
    };
  }

  /** Links a machine with the switch. `places` are those of all machines: their pods are reached through them. */
  async plug(machine: Machine, place: Place, places: readonly Place[]): Promise<void> {
    const inside = (...args: string[]) => this.#ip(machine.pid, ...args);
    const port = portOf(machine);
    await this.#ip(
      this.#switch.pid,
      'link',
      'add',
      port,
      'type',
      'veth',
      'peer',
      'name',
      'eth0',
      'netns',
      `${machine.pid}`,
    );
    await this.#ip(this.#switch.pid, 'link', 'set', port, 'master', 'switch', 'up');
    await inside('address', 'add', `${place.address}/24`, 'dev', 'eth0');
    await inside('link', 'set', 'eth0', 'up');
    await inside('route', 'add', 'default', 'via', this.hostAddress);
    for (const other of places)
      if (other !== place) await inside('route', 'add', other.podSubnet, 'via', other.address);
    await run('ip', ['route', 'add', place.podSubnet, 'via', place.address, 'dev', this.device]);
  }

  /** Pulls a machine's cable, or plugs it in again. */
  async setLink(machine: Machine, up: boolean): Promise<void> {
    await this.#ip(this.#switch.pid, 'link', 'set', portOf(machine), up ? 'up' : 'down');
  }

  /** Removes the switch, and so the host's link to it. Idempotent. */
  async close(): Promise<void> {
    await this.#switch.kill();
    await run('ip', ['link', 'delete', this.device]).catch(() => undefined);
  }

  async #connectHost(): Promise<void> {
    await this.#ip(this.#switch.pid, 'link', 'add', 'switch', 'type', 'bridge');
    await this.#ip(this.#switch.pid, 'link', 'set', 'switch', 'up');
    await this.#ip(this.#switch.pid, 'link', 'set', 'host', 'master', 'switch', 'up');
    await run('ip', ['address', 'add', `${this.hostAddress}/24`, 'dev', this.device]);
    await run('ip', ['link', 'set', this.device, 'up']);
  }

  /** Runs `ip` in the network of a process. */
  async #ip(pid: number, ...args: string[]): Promise<void> {
    await run('nsenter', ['--target', String(pid), '--net', '--', 'ip', ...args]);
  }
}

function deviceOf(slot: number): string {
  return `weir-cl${slot}`;
}

/** The switch's end of a machine's cable; a device's name has 15 characters at most. */
function portOf(machine: Machine): string {
  return `p-${machine.name}`.slice(0, 15);
}

/** Takes the first slot whose device and addresses are free. The device is made, its other end is the switch's `host`. */
async function claimSlot(switchPid: number): Promise<number> {
  let last: unknown;
  for (let slot = 0; slot < slots; slot += 1) {
    const ranges = [`10.88.${slot}.0/24`, `10.${112 + slot}.0.0/16`];
    const routes = await Promise.all(ranges.map((range) => run('ip', ['-4', 'route', 'show', 'root', range])));
    if (routes.some(({ stdout }) => stdout.trim() !== '')) continue;
    const peer = ['peer', 'name', 'host', 'netns', String(switchPid)];
    try {
      await run('ip', ['link', 'add', deviceOf(slot), 'type', 'veth', ...peer]);
      return slot;
    } catch (error) {
      last = error;
    }
  }
  throw new WeirError(
    'NoFreeNetwork',
    `no free network for a cluster: routes cover 10.88.0.0/20 or 10.112.0.0/12${last === undefined ? '' : ` (${messageOf(last)})`}`,
    { cause: last },
  );
}
