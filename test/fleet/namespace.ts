import { execFile, execFileSync } from 'node:child_process';
import { promisify } from 'node:util';
import { startTimeOf } from '#tools/local/leftovers.ts';

const run = promisify(execFile);
const prefix = 'weir-';

/** What keeps network namespaces from working here, or undefined when they do. For the `skip` of tests. */
export function namespaceProblem(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root: network namespaces';
  try {
    execFileSync('ip', ['netns', 'list'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'needs iproute2: apt-get install iproute2';
  }
}

/**
 * A network namespace linked to the machine by a veth pair: a "machine" whose address is not loopback, which
 * libwebrtc outside a browser insists on, and whose cable can be pulled. Needs root and iproute2.
 */
export class NetworkNamespace {
  readonly name: string;
  /** The machine's address on the link. */
  readonly hostAddress: string;
  /** The namespace's address on the link. */
  readonly address: string;
  /** Words before a command that is to run inside. */
  readonly wrapper: readonly string[];
  readonly #device: string;
  #closed = false;

  private constructor(name: string, device: string, hostAddress: string, address: string) {
    this.name = name;
    this.#device = device;
    this.hostAddress = hostAddress;
    this.address = address;
    this.wrapper = ['ip', 'netns', 'exec', name];
  }

  static async create(): Promise<NetworkNamespace> {
    await removeLeftovers();
    let last: unknown;
    // A subnet that another test on this machine has taken is left alone.
    for (let attempt = 0; attempt < 64; attempt += 1) {
      const subnet = (process.pid + attempt) % 250;
      const device = `weir${subnet}`;
      const name = `${prefix}${process.pid}-${startTimeOf(process.pid) ?? 0}-${subnet}`;
      const [host, inside] = [`10.99.${subnet}.1`, `10.99.${subnet}.2`];
      try {
        await run('ip', ['link', 'add', device, 'type', 'veth', 'peer', 'name', `${device}p`]);
      } catch (error) {
        last = error;
        continue;
      }
      const namespace = new NetworkNamespace(name, device, host, inside);
      try {
        await run('ip', ['netns', 'add', name]);
        await run('ip', ['link', 'set', `${device}p`, 'netns', name, 'name', 'eth0']);
        await run('ip', ['address', 'add', `${host}/24`, 'dev', device]);
        await run('ip', ['link', 'set', device, 'up']);
        await run('ip', ['-n', name, 'link', 'set', 'lo', 'up']);
        await run('ip', ['-n', name, 'address', 'add', `${inside}/24`, 'dev', 'eth0']);
        await run('ip', ['-n', name, 'link', 'set', 'eth0', 'up']);
        await run('ip', ['-n', name, 'route', 'add', 'default', 'via', host]);
        return namespace;
      } catch (error) {
        await namespace.close();
        throw error;
      }
    }
    throw last;
  }

  /** Pulls the cable, or plugs it in again. */
  async setLink(up: boolean): Promise<void> {
    await run('ip', ['link', 'set', this.#device, up ? 'up' : 'down']);
  }

  /** Removes the namespace and its link. End the processes inside first. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await run('ip', ['link', 'delete', this.#device]).catch(() => undefined);
    await run('ip', ['netns', 'delete', this.name]).catch(() => undefined);
  }
}

/** Removes namespaces whose makers are dead. */
async function removeLeftovers(): Promise<void> {
  const { stdout } = await run('ip', ['netns', 'list']);
  for (const line of stdout.split('\n')) {
    const match = /^weir-(\d+)-(\d+)-(\d+)/.exec(line);
    if (!match || startTimeOf(Number(match[1])) === Number(match[2])) continue;
    await run('ip', ['link', 'delete', `weir${match[3]}`]).catch(() => undefined);
    await run('ip', ['netns', 'delete', match[0]]).catch(() => undefined);
  }
}
