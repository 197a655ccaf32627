import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { stringify } from 'yaml';
import { WeirError } from '#platform/errors.ts';
import { locateBinaries } from '#tools/local/binaries.ts';
import { LocalAuthority, type CertificateRequest, type CredentialFiles } from '#tools/local/certificates.ts';
import { LocalControlPlane } from '#tools/local/control-plane.ts';
import { eventually } from '#tools/local/eventually.ts';
import { Kubectl } from '#tools/local/kubectl.ts';
import { projectRoot } from '#tools/local/leftovers.ts';
import { LocalNats } from '#tools/local/nats.ts';
import { hostPort } from '#tools/local/ports.ts';
import { LocalProcess } from '#tools/local/process.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';

/** One sfu-node to run. */
export interface FleetNodeOptions {
  /** A DNS label, unique in the fleet. */
  name: string;
  region: string;
  zone?: string;
  labels?: Record<string, string>;
  /** mediasoup workers. Default 1. */
  workers?: number;
  /** Where it listens and what it announces. Default: the fleet's. */
  address?: string;
  /** Words before its command, such as `ip netns exec NAME`. Default: the fleet's. */
  wrapper?: readonly string[];
  /** More WEIR_ variables. */
  env?: Readonly<Record<string, string>>;
}

/** Options of {@link Fleet.start}. */
export interface FleetOptions {
  /** Directory of everything. Default: a temporary one. */
  dir?: string;
  /** Where control plane, NATS and operators listen, and nodes unless they say otherwise. Default 127.0.0.1. */
  address?: string;
  /** Default: sfu-1 in region eu-west. */
  nodes?: readonly FleetNodeOptions[];
  /** How many operators. Default 1. */
  operators?: number;
  /** A cluster that exists, in place of a local one. */
  kubeconfig?: string;
  controllerManager?: boolean;
  logFormat?: 'json' | 'text';
  logLevel?: string;
  /** Processes of the fleet write to this process's output instead of their log files. */
  echo?: boolean;
  /** Written to Room status.url. Default: the first node's URL is not known yet, so none. */
  publicUrl?: string;
  /** Whether a first join to a room that nobody made may make it. Default true. */
  createRooms?: boolean;
  operatorEnv?: Readonly<Record<string, string>>;
  nodeEnv?: Readonly<Record<string, string>>;
  /** Told what is done, a short phrase at a time. */
  progress?: (step: string) => void;
}

/** A running sfu-node. Fields change when it is restarted. */
export interface FleetNode {
  readonly name: string;
  readonly region: string;
  readonly options: FleetNodeOptions;
  process: LocalProcess;
  pid: number;
  /** WebSocket URL. */
  url: string;
  /** host:port of signalling, of the control service and of probes and metrics. */
  signal: string;
  control: string;
  http: string;
}

/** A running operator. Fields change when it is restarted. */
export interface FleetOperator {
  readonly id: string;
  process: LocalProcess;
  pid: number;
  /** host:port of probes and metrics. */
  http: string;
}

type State = Record<string, unknown> & { pid: number };

const namespace = 'weir-system';

/** A whole Weir on one machine: control plane, NATS, operators and sfu-nodes, each a real process. */
export class Fleet {
  readonly dir: string;
  readonly address: string;
  readonly kubeconfigPath: string;
  readonly kubectl: Kubectl;
  /** The local control plane; undefined when a cluster was given. */
  readonly plane: LocalControlPlane | undefined;
  readonly nats: LocalNats;
  /** Signs the certificates of the gRPC control plane. */
  readonly authority: LocalAuthority;
  /** LiveKit API key and secret of the fleet. */
  readonly apiKey: string;
  readonly apiSecret: string;
  readonly nodes: FleetNode[] = [];
  readonly operators: FleetOperator[] = [];
  readonly #options: FleetOptions;

  private constructor(
    parts: Pick<
      Fleet,
      'dir' | 'address' | 'kubeconfigPath' | 'kubectl' | 'plane' | 'nats' | 'authority' | 'apiKey' | 'apiSecret'
    >,
    options: FleetOptions,
  ) {
    this.dir = parts.dir;
    this.address = parts.address;
    this.kubeconfigPath = parts.kubeconfigPath;
    this.kubectl = parts.kubectl;
    this.plane = parts.plane;
    this.nats = parts.nats;
    this.authority = parts.authority;
    this.apiKey = parts.apiKey;
    this.apiSecret = parts.apiSecret;
    this.#options = options;
  }

  /** Starts everything, and waits until rooms can be placed on its nodes; on failure ends what had been started. */
  static async start(options: FleetOptions = {}): Promise<Fleet> {
    const { address = '127.0.0.1', progress } = options;
    const dir = options.dir ?? temporaryDirectory('fleet');
    await mkdir(join(dir, 'pki'), { recursive: true });
    let plane: LocalControlPlane | undefined;
    let nats: LocalNats | undefined;
    let fleet: Fleet | undefined;
    try {
      progress?.(options.kubeconfig ? 'NATS' : 'control plane and NATS');
      const starting = await Promise.allSettled([
        options.kubeconfig === undefined
          ? LocalControlPlane.start({ dir: join(dir, 'kube'), address, controllerManager: options.controllerManager })
          : Promise.resolve(undefined),
        LocalNats.start({ dir: join(dir, 'nats'), address }),
        LocalAuthority.create('weir-control'),
      ] as const);
      if (starting[0].status === 'fulfilled') plane = starting[0].value;
      if (starting[1].status === 'fulfilled') nats = starting[1].value;
      const failed = starting.find((result) => result.status === 'rejected');
      if (failed) throw failed.reason;
      if (!nats || starting[2].status !== 'fulfilled') throw new WeirError('Unreachable', 'NATS did not start');
      const authority = starting[2].value;
      const kubeconfigPath = plane?.kubeconfigPath ?? options.kubeconfig ?? '';
      const kubectl = plane?.kubectl ?? new Kubectl({ command: locateBinaries().kubectl, kubeconfig: kubeconfigPath });
      if (!plane) await kubectl.installWeir(namespace);
      const apiKey = `API${randomBytes(6).toString('hex')}`;
      const apiSecret = randomBytes(32).toString('base64url');
      fleet = new Fleet({ dir, address, kubeconfigPath, kubectl, plane, nats, authority, apiKey, apiSecret }, options);
      await writeFile(join(dir, 'pki/ca.crt'), authority.certificate);
      const keys = [{ key: apiKey, secret: apiSecret, createRooms: options.createRooms ?? true }];
      await writeFile(join(dir, 'api-keys.yaml'), stringify(keys), { mode: 0o600 });
      const wanted = options.nodes ?? [{ name: 'sfu-1', region: 'eu-west' }];
      const count = options.operators ?? 1;
      progress?.(
        `${count} operator${count === 1 ? '' : 's'} and ${wanted.length} sfu-node${wanted.length === 1 ? '' : 's'}`,
      );
      const { operators, nodes } = fleet;
      await allOrFirstError([
        ...Array.from({ length: count }, async (_, index) => {
          const operator = await fleet?.startOperator(`operator-${index + 1}`);
          if (operator) operators.push(operator);
        }),
        ...wanted.map(async (node) => {
          const started = await fleet?.startNode(node);
          if (started) nodes.push(started);
        }),
      ]);
      operators.sort((a, b) => a.id.localeCompare(b.id));
      nodes.sort((a, b) => a.name.localeCompare(b.name));
      // A room that is made before would go to the node that was quickest.
      if (count > 0) await fleet.nodesReady(...nodes.map(({ name }) => name));
      return fleet;
    } catch (error) {
      await fleet?.stop();
      await Promise.all([plane?.stop(), nats?.stop()]);
      throw error;
    }
  }

  /** The node of that name. */
  node(name: string): FleetNode {
    const node = this.nodes.find((candidate) => candidate.name === name);
    if (!node) throw new WeirError('UnknownNode', `no sfu-node "${name}" in this fleet`);
    return node;
  }

  /** Starts one more node. */
  async addNode(options: FleetNodeOptions): Promise<FleetNode> {
    const node = await this.startNode(options);
    this.nodes.push(node);
    return node;
  }

  /** Ends a node and its workers as a machine's crash would. */
  async kill(node: FleetNode | FleetOperator): Promise<void> {
    await node.process.kill();
  }

  /** Starts a node (or operator) again under its name, on new ports, after stopping it if it runs. */
  async restart(target: FleetNode | FleetOperator): Promise<void> {
    await target.process.stop();
    if ('id' in target) Object.assign(target, await this.startOperator(target.id));
    else Object.assign(target, await this.startNode(target.options));
  }

  /** The operator that holds the Lease, once there is one. */
  async leader(timeoutMs = 30_000): Promise<FleetOperator> {
    return await eventually(
      async () => {
        const leases = await this.kubectl.json<{ items: { spec: { holderIdentity?: string } }[] }>(
          ...['get', 'leases', '-n', namespace],
        );
        const holders = leases.items.map((lease) => lease.spec.holderIdentity ?? '');
        return this.operators.find(
          (operator) => operator.process.running && holders.some((id) => id.startsWith(operator.id)),
        );
      },
      { timeoutMs, what: 'a leading operator' },
    );
  }

  /** Waits until SfuNodes are Ready: the operator has them in its books and hears them. */
  async nodesReady(...names: string[]): Promise<void> {
    interface Status {
      status?: { conditions?: { type: string; status: string }[] };
    }
    for (const name of names) {
      const isReady = async () => {
        const { status } = await this.kubectl.json<Status>('get', 'sfunode', name, '-n', namespace);
        return status?.conditions?.some((condition) => condition.type === 'Ready' && condition.status === 'True');
      };
      await eventually(isReady, { timeoutMs: 30_000, what: `SfuNode ${name} to be Ready` });
    }
  }

  /** Waits until a Room is Ready. */
  async roomReady(name: string, roomNamespace = 'default', timeoutMs = 30_000): Promise<void> {
    const seconds = `${Math.ceil(timeoutMs / 1000)}s`;
    await this.kubectl.run(
      'wait',
      `room/${name}`,
      '-n',
      roomNamespace,
      '--for=condition=Ready',
      `--timeout=${seconds}`,
    );
  }

  /** Sets `spec.drain` of an SfuNode, or takes it back; resolves when the operator has seen it. */
  async drain(node: string, on: boolean): Promise<void> {
    const name = `sfunode/${node}`;
    const patch = JSON.stringify({ spec: { drain: on } });
    await this.kubectl.run('patch', name, '-n', 'weir-system', '--type=merge', '-p', patch);
    await this.kubectl.run('wait', name, '-n', 'weir-system', `--for=condition=Draining=${on}`, '--timeout=20s');
  }

  /** Files of a certificate for the gRPC control plane. */
  async credentials(name: string, request: CertificateRequest): Promise<CredentialFiles & { caFile: string }> {
    const files = await this.authority.issueFiles(join(this.dir, 'pki'), name, request);
    return { ...files, caFile: join(this.dir, 'pki/ca.crt') };
  }

  /** Ends everything that this fleet started. Idempotent. */
  async stop(): Promise<void> {
    await Promise.all(this.operators.map((operator) => operator.process.stop()));
    await Promise.all(this.nodes.map((node) => node.process.stop()));
    await Promise.all([this.nats.stop(), this.plane?.stop()]);
    if (this.#options.dir === undefined) await rm(this.dir, { recursive: true, force: true, maxRetries: 3 });
  }

  /** Starts a node without listing it in `nodes`. */
  async startNode(options: FleetNodeOptions): Promise<FleetNode> {
    const { name, region } = options;
    const address = options.address ?? this.address;
    const files = await this.credentials(name, { subject: `OU=sfu-node,CN=${name}`, names: [name] });
    const labels = Object.entries(options.labels ?? {}).map(([key, value]) => `${key}=${value}`);
    const { process, state } = await this.#launch(name, 'sfu-node/main.ts', options.wrapper, {
      ...this.#common(files, address, 'sfu-node'),
      WEIR_NODE_NAME: name,
      WEIR_REGION: region,
      WEIR_ZONE: options.zone,
      WEIR_LABELS: labels.length > 0 ? labels.join(',') : undefined,
      WEIR_SIGNAL_LISTEN: hostPort(address, 0),
      WEIR_CONTROL_LISTEN: hostPort(address, 0),
      WEIR_MEDIA_LISTEN_IP: address,
      WEIR_MEDIA_ANNOUNCED_ADDRESS: address,
      WEIR_MEDIA_PORT_BASE: '0',
      WEIR_WORKERS: String(options.workers ?? 1),
      WEIR_API_KEYS_FILE: join(this.dir, 'api-keys.yaml'),
      // A fleet that ends as a whole has nowhere to move its rooms.
      WEIR_DRAIN_SECONDS: '0',
      // All of them share one machine: how busy that is says nothing of one node.
      WEIR_CAPACITY_MODE: 'Fixed',
      MEDIASOUP_WORKER_BIN: locateBinaries()['mediasoup-worker'],
      ...this.#options.nodeEnv,
      ...options.env,
    });
    const signal = endpoint(state, 'signal', address);
    return {
      name,
      region,
      options,
      process,
      pid: process.pid,
      url: `ws://${signal}`,
      signal,
      control: endpoint(state, 'control', address),
      http: endpoint(state, 'http', address),
    };
  }

  /** Starts an operator without listing it in `operators`. */
  async startOperator(id: string): Promise<FleetOperator> {
    const files = await this.credentials(id, { subject: 'OU=operator,CN=weir-operator', names: [id] });
    const { process, state } = await this.#launch(id, 'operator/main.ts', undefined, {
      ...this.#common(files, this.address, 'operator'),
      KUBECONFIG: this.kubeconfigPath,
      WEIR_NAMESPACE: namespace,
      WEIR_OPERATOR_ID: id,
      WEIR_PUBLIC_URL: this.#options.publicUrl,
      ...this.#options.operatorEnv,
    });
    return { id, process, pid: process.pid, http: endpoint(state, 'http', this.address) };
  }

  #common(files: CredentialFiles, address: string, role: 'operator' | 'sfu-node'): Record<string, string | undefined> {
    return {
      WEIR_LOG_LEVEL: this.#options.logLevel,
      WEIR_LOG_FORMAT: this.#options.logFormat ?? 'json',
      WEIR_NATS_URL: this.nats.url,
      WEIR_NATS_USER: this.nats.users[role].user,
      WEIR_NATS_PASSWORD: this.nats.users[role].password,
      WEIR_TLS_CA_FILE: join(this.dir, 'pki/ca.crt'),
      WEIR_TLS_CERT_FILE: files.certFile,
      WEIR_TLS_KEY_FILE: files.keyFile,
      WEIR_HTTP_LISTEN: hostPort(address, 0),
    };
  }

  async #launch(
    name: string,
    script: string,
    wrapper: readonly string[] | undefined,
    env: Record<string, string | undefined>,
  ): Promise<{ process: LocalProcess; state: State }> {
    const stateFile = join(this.dir, 'state', `${name}.json`);
    await mkdir(dirname(stateFile), { recursive: true });
    await rm(stateFile, { force: true });
    let state: State | undefined;
    const started = await LocalProcess.start({
      name,
      command: process.execPath,
      args: [join(projectRoot, script)],
      cwd: projectRoot,
      wrapper,
      logFile: join(this.dir, 'logs', `${name}.log`),
      echo: this.#options.echo,
      env: { ...env, WEIR_STATE_FILE: stateFile },
      ready: async () => {
        state = JSON.parse(await readFile(stateFile, 'utf8')) as State;
        return true;
      },
    });
    if (!state) throw new WeirError('ProcessFailed', `${name} wrote no state file`, { where: stateFile });
    return { process: started, state };
  }
}

/** host:port of one listener, from what the process wrote: `host:port`, a URL, a port, or {host, port}. */
function endpoint(state: State, name: string, address: string): string {
  const value = state[name];
  if (typeof value === 'number') return hostPort(address, value);
  if (typeof value === 'string') return value.includes('://') ? new URL(value).host : value;
  if (typeof value === 'object' && value !== null && 'port' in value) return hostPort(address, Number(value.port));
  throw new WeirError('BadStateFile', `WEIR_STATE_FILE has no address "${name}": ${JSON.stringify(state)}`);
}

/** Waits for all; throws the first error only when nothing runs any more, so that all can be ended. */
async function allOrFirstError(promises: Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(promises);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed) throw failed.reason;
}
