import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { locateBinaries } from '#tools/local/binaries.ts';
import { endLeftovers } from '#tools/local/leftovers.ts';
import { freePort, hostPort } from '#tools/local/ports.ts';
import { LocalProcess } from '#tools/local/process.ts';
import permissions from '../../helm/weir/files/nats-permissions.json' with { type: 'json' };

/** Options of {@link LocalNats.start}. */
export interface NatsOptions {
  /** Directory of data, configuration and log. */
  dir: string;
  /** Address to listen on. Default 127.0.0.1. */
  address?: string;
  wrapper?: readonly string[];
  /** One of several servers that keep JetStream's data together. */
  cluster?: NatsCluster;
}

/** A server's place in a cluster. */
interface NatsCluster {
  /** Ports on which the servers talk to one another. */
  ports: readonly number[];
  /** Which of them is this one's. */
  index: number;
  users: LocalNats['users'];
}

/** A NATS user and its password. */
export interface NatsUser {
  user: string;
  password: string;
}

/** nats-server with JetStream, and a user a role whose subjects are limited to its own. */
export class LocalNats {
  /** `nats://host:port`. The same after a restart. */
  readonly url: string;
  readonly users: { readonly operator: NatsUser; readonly 'sfu-node': NatsUser };
  readonly #start: () => Promise<LocalProcess>;
  #process: LocalProcess;

  private constructor(
    url: string,
    users: LocalNats['users'],
    process: LocalProcess,
    start: () => Promise<LocalProcess>,
  ) {
    this.url = url;
    this.users = users;
    this.#process = process;
    this.#start = start;
  }

  /** Starts servers that keep JetStream's data together, with the same users. They may not have found one another yet. */
  static async startCluster(options: { dir: string; size: number }): Promise<LocalNats[]> {
    const address = '127.0.0.1';
    const indices = Array.from({ length: options.size }, (_, index) => index);
    const ports = await Promise.all(indices.map(() => freePort(address)));
    const users = makeUsers();
    const starting = indices.map((index) =>
      LocalNats.start({ dir: join(options.dir, `${index}`), address, cluster: { ports, index, users } }),
    );
    const started = await Promise.allSettled(starting);
    const servers = started.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    const failed = started.find((each) => each.status === 'rejected');
    if (!failed) return servers;
    await Promise.all(servers.map((server) => server.stop()));
    throw failed.reason;
  }

  static async start(options: NatsOptions): Promise<LocalNats> {
    await endLeftovers();
    const { dir, address = '127.0.0.1', cluster } = options;
    const command = locateBinaries()['nats-server'];
    const users = cluster?.users ?? makeUsers();
    const portsDir = join(dir, 'ports');
    await mkdir(portsDir, { recursive: true });
    const launch = async (port: number): Promise<{ process: LocalProcess; port: number }> => {
      const file = join(dir, 'nats.conf');
      await writeFile(file, configuration({ address, port, dir, portsDir, users, cluster }), { mode: 0o600 });
      let bound = 0;
      const process = await LocalProcess.start({
        name: 'nats-server',
        command,
        args: ['-c', file],
        cwd: dir,
        wrapper: options.wrapper,
        logFile: join(dir, 'nats-server.log'),
        ready: async () => {
          bound = await readPort(portsDir);
          return bound > 0;
        },
      });
      return { process, port: bound };
    };
    const first = await launch(-1);
    const url = `nats://${hostPort(address, first.port)}`;
    return new LocalNats(url, users, first.process, async () => (await launch(first.port)).process);
  }

  get pid(): number {
    return this.#process.pid;
  }

  get process(): LocalProcess {
    return this.#process;
  }

  /** Starts the server again on its old port with its old data, after it was stopped or killed. */
  async restart(): Promise<void> {
    await this.#process.stop();
    this.#process = await this.#start();
  }

  /** Ends the server. Idempotent. */
  async stop(): Promise<void> {
    await this.#process.stop(2000);
  }
}

function makeUsers(): LocalNats['users'] {
  const password = () => randomBytes(18).toString('base64url');
  return {
    operator: { user: 'operator', password: password() },
    'sfu-node': { user: 'sfu-node', password: password() },
  };
}

/** nats-server writes where it listens into a file of its own; removed when it ends in order. */
async function readPort(directory: string): Promise<number> {
  for (const name of await readdir(directory)) {
    const { nats } = JSON.parse(await readFile(join(directory, name), 'utf8')) as { nats?: string[] };
    const port = Number(nats?.[0]?.split(':').at(-1));
    if (port > 0) return port;
  }
  return 0;
}

function configuration(options: {
  address: string;
  port: number;
  dir: string;
  portsDir: string;
  users: LocalNats['users'];
  cluster: NatsCluster | undefined;
}): string {
  const { users, cluster } = options;
  const place = (port: number) => hostPort(options.address, port);
  const routes = cluster?.ports.map((port) => `"nats-route://${place(port)}"`).join(', ');
  return `listen: "${hostPort(options.address, options.port)}"
server_name: weir-local${cluster ? `-${cluster.index}` : ''}
ports_file_dir: "${options.portsDir}"
max_payload: 1MB
jetstream { store_dir: "${join(options.dir, 'jetstream')}" }
${cluster ? `cluster { name: weir-local, listen: "${place(cluster.ports[cluster.index] ?? 0)}", routes: [${routes}] }` : ''}
authorization {
  users = [
    { user: ${users.operator.user}, password: "${users.operator.password}", permissions: ${JSON.stringify(permissions.operator)} }
    { user: ${users['sfu-node'].user}, password: "${users['sfu-node'].password}", permissions: ${JSON.stringify(permissions['sfu-node'])} }
  ]
}
`;
}
