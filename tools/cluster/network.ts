import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError, messageOf } from '#platform/errors.ts';
import { LocalProcess } from '#tools/local/process.ts';
import { subnetsOf, type IpFamily, type Place, type Subnets } from './addresses.ts';
import type { Machine } from './machine.ts';

const run = promisify(execFile);
/** So many clusters fit on one machine at once. */
const slots = 16;

/**
 * The network of a cluster: a switch in a network namespace of its own, to which the machines and the host are linked.
 * The host takes no part in forwarding: neither its firewall nor its settings matter, and it reaches nodes and pods at
 * their own addresses. With its switch's process all of it is gone.
 */
export class ClusterNetwork {
  /** Its addresses, a family each; the first is the one that counts where there can be only one. */
  readonly subnets: readonly [Subnets, ...Subnets[]];
  /** The host's network device. */
  readonly device: string;
  readonly #switch: LocalProcess;

  private constructor(slot: number, subnets: ClusterNetwork['subnets'], process: LocalProcess) {
    this.subnets = subnets;
    this.#switch = process;
    this.device = deviceOf(slot);
  }

  /**
   * Makes the switch, with addresses that no route of this machine covers.
   *
   * @param dir for the log.
   * @throws WeirError NoFreeNetwork
   */
  static async create(dir: string, families: readonly [IpFamily, ...IpFamily[]] = ['IPv4']): Promise<ClusterNetwork> {
    const process = await LocalProcess.start({
      name: 'switch',
      command: 'unshare',
      args: ['--net', 'sh', '-c', `: >'${join(dir, 'switch-up')}'; exec sleep 2147483`],
      logFile: join(dir, 'switch.log'),
      ready: () => existsSync(join(dir, 'switch-up')),
    });
    try {
      const { slot, subnets } = await claimSlot(process.pid, families);
      const network = new ClusterNetwork(slot, subnets, process);
      await network.#connectHost();
      return network;
    } catch (error) {
      await process.kill();
      throw error;
    }
  }

  /** The host's address in this network, where the control plane is. */
  get hostAddress(): string {
    return this.subnets[0].host;
  }

  /** The same in each family. */
  get addresses(): [string, ...string[]] {
    const [first, ...others] = this.subnets;
    return [first.host, ...others.map(({ host }) => host)];
  }

  /** Where the machine of this number is, from 1; a family each. */
  placesOf(number: number): [Place, ...Place[]] {
    const [first, ...others] = this.subnets;
    return [first.place(number), ...others.map((subnets) => subnets.place(number))];
  }

  /** Links a machine with the switch. Its pods are reached by the others through it. */
  async plug(machine: Machine, number: number, machines: number): Promise<void> {
    const port = portOf(machine);
    const peer = ['peer', 'name', 'eth0', 'netns', `${machine.pid}`];
    await this.#ip(this.#switch.pid, 'link', 'add', port, 'type', 'veth', ...peer);
    await this.#ip(this.#switch.pid, 'link', 'set', port, 'master', 'switch', 'up');
    await this.#ip(machine.pid, 'link', 'set', 'eth0', 'up');
    for (const subnets of this.subnets) {
      const places = Array.from({ length: machines }, (_, index) => subnets.place(index + 1));
      await this.#address(machine, subnets, subnets.place(number), places);
    }
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

  async #address(machine: Machine, subnets: Subnets, place: Place, places: readonly Place[]): Promise<void> {
    const inside = (...args: string[]) => this.#ip(machine.pid, ...args);
    for (const address of [place.address, place.externalAddress])
      await inside('address', 'add', `${address}/${place.prefixLength}`, 'dev', 'eth0', ...atOnce(place.family));
    await inside('route', 'add', subnets.everywhere, 'via', subnets.host);
    for (const { address, podSubnet } of places)
      if (address !== place.address) await inside('route', 'add', podSubnet, 'via', address);
    await run('ip', ['route', 'add', place.podSubnet, 'via', place.address, 'dev', this.device]);
  }

  async #connectHost(): Promise<void> {
    await this.#ip(this.#switch.pid, 'link', 'add', 'switch', 'type', 'bridge');
    await this.#ip(this.#switch.pid, 'link', 'set', 'switch', 'up');
    await this.#ip(this.#switch.pid, 'link', 'set', 'host', 'master', 'switch', 'up');
    await run('ip', ['link', 'set', this.device, 'up']);
    for (const { host, prefixLength, family } of this.subnets)
      await run('ip', ['address', 'add', `${host}/${prefixLength}`, 'dev', this.device, ...atOnce(family)]);
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

/** Words with which an address can be used at once: nobody else has it, which IPv6 would find out first. */
function atOnce(family: IpFamily): string[] {
  return family === 'IPv6' ? ['nodad'] : [];
}

/** Takes the first slot whose device and addresses are free. The device is made, its other end is the switch's `host`. */
async function claimSlot(
  switchPid: number,
  [first, ...others]: readonly [IpFamily, ...IpFamily[]],
): Promise<{ slot: number; subnets: ClusterNetwork['subnets'] }> {
  let last: unknown;
  for (let slot = 0; slot < slots; slot += 1) {
    const subnets = [subnetsOf(first, slot), ...others.map((family) => subnetsOf(family, slot))] as const;
    const covering = subnets.flatMap(({ family, machines, pods }) =>
      [machines, pods].map((range) => run('ip', [family === 'IPv4' ? '-4' : '-6', 'route', 'show', 'root', range])),
    );
    if ((await Promise.all(covering)).some(({ stdout }) => stdout.trim() !== '')) continue;
    const peer = ['peer', 'name', 'host', 'netns', String(switchPid)];
    try {
      await run('ip', ['link', 'add', deviceOf(slot), 'type', 'veth', ...peer]);
      return { slot, subnets };
    } catch (error) {
      last = error;
    }
  }
  throw new WeirError(
    'NoFreeNetwork',
    `no free network for a cluster: routes cover 10.88.0.0/20, 10.112.0.0/12, fd88:1::/32 or fd88:2::/32${last === undefined ? '' : ` (${messageOf(last)})`}`,
    { cause: last },
  );
}
