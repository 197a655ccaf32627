import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { locateBinaries } from '#tools/local/binaries.ts';
import { endLeftovers } from '#tools/local/leftovers.ts';
import { hostPort } from '#tools/local/ports.ts';
import { LocalProcess } from '#tools/local/process.ts';
import permissions from '../../helm/weir/files/nats-permissions.json' with { type: 'json' };

/** Options of {@link LocalNats.start}. */
export interface NatsOptions {
  /** Directory of data, configuration and log. */
  dir: string;
  /** Address to listen on. Default 127.0.0.1. */
  address?: string;
  wrapper?: readonly string[];
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

  static async start(options: NatsOptions): Promise<LocalNats> {
    await endLeftovers();
    const { dir, address = '127.0.0.1' } = options;
    const command = locateBinaries()['nats-server'];
    const users = {
      operator: { user: 'operator', password: randomBytes(18).toString('base64url') },
      'sfu-node': { user: 'sfu-node', password: randomBytes(18).toString('base64url') },
    };
    const portsDir = join(dir, 'ports');
    await mkdir(portsDir, { recursive: true });
    const launch = async (port: number): Promise<{ process: LocalProcess; port: number }> => {
      const file = join(dir, 'nats.conf');
      await writeFile(file, configuration({ address, port, dir, portsDir, users }), { mode: 0o600 });
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
}): string {
  const { users } = options;
  return `listen: "${hostPort(options.address, options.port)}"
server_name: weir-local
ports_file_dir: "${options.portsDir}"
max_payload: 1MB
jetstream { store_dir: "${join(options.dir, 'jetstream')}" }
authorization {
  users = [
    { user: ${users.operator.user}, password: "${users.operator.password}", permissions: ${JSON.stringify(permissions.operator)} }
    { user: ${users['sfu-node'].user}, password: "${users['sfu-node'].password}", permissions: ${JSON.stringify(permissions['sfu-node'])} }
  ]
}
`;
}
