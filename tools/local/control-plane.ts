import { mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { locateBinaries, type Binaries } from '#tools/local/binaries.ts';
import { createSigningKey, LocalAuthority } from '#tools/local/certificates.ts';
import { httpsGet, type ClientTls } from '#tools/local/https.ts';
import { writeKubeconfig } from '#tools/local/kubeconfig.ts';
import { Kubectl } from '#tools/local/kubectl.ts';
import { endLeftovers, projectRoot } from '#tools/local/leftovers.ts';
import { hostPort, withFreePort } from '#tools/local/ports.ts';
import { LocalProcess } from '#tools/local/process.ts';

/** Options of {@link LocalControlPlane.start}. */
export interface ControlPlaneOptions {
  /** Directory of data, certificates and logs; must be new or empty. */
  dir: string;
  /** Address to listen on. Default 127.0.0.1. */
  address?: string;
  /** Also runs kube-controller-manager (garbage collection, namespaces, Deployments, HPA). Default false. */
  controllerManager?: boolean | ControllerManagerOptions;
  /** Path of kube-scheduler: runs it too. For clusters with kubelets. */
  scheduler?: string;
  /** Whether the API server can pass requests on to extensions (aggregation). Default true. */
  aggregation?: boolean;
  /** CIDRs of Services. Default 10.96.0.0/16. */
  serviceSubnets?: readonly string[];
  /** Applies `crds/` and makes namespace weir-system. Default true. */
  crds?: boolean;
  /** Words before every command, such as `ip netns exec NAME`. */
  wrapper?: readonly string[];
}

/** How patient kube-controller-manager is. */
export interface ControllerManagerOptions {
  /** How often HPAs are looked at, seconds. Default 5, where clusters have 15. */
  hpaSyncSeconds?: number;
  /** Seconds without a heartbeat after which a Node is no longer Ready. Default: kube-controller-manager's own. */
  nodeGraceSeconds?: number;
}

/** etcd and kube-apiserver (RBAC, service accounts, aggregation) on one machine, for demo, tests and benchmarks. */
export class LocalControlPlane {
  readonly kubeconfigPath: string;
  /** kubectl as the cluster's administrator. */
  readonly kubectl: Kubectl;
  readonly etcd: LocalProcess;
  readonly controllerManager: LocalProcess | undefined;
  readonly scheduler: LocalProcess | undefined;
  /** Signs client certificates of other users: the subject is `O=GROUP,CN=USER`. */
  readonly authority: LocalAuthority;
  readonly #url: string;
  readonly #tls: ClientTls;
  readonly #startApiServer: () => Promise<LocalProcess>;
  #apiserver: LocalProcess;

  private constructor(parts: {
    kubeconfigPath: string;
    kubectl: Kubectl;
    etcd: LocalProcess;
    controllerManager: LocalProcess | undefined;
    scheduler: LocalProcess | undefined;
    authority: LocalAuthority;
    url: string;
    tls: ClientTls;
    apiserver: LocalProcess;
    startApiServer: () => Promise<LocalProcess>;
  }) {
    this.kubeconfigPath = parts.kubeconfigPath;
    this.kubectl = parts.kubectl;
    this.etcd = parts.etcd;
    this.controllerManager = parts.controllerManager;
    this.scheduler = parts.scheduler;
    this.authority = parts.authority;
    this.#url = parts.url;
    this.#tls = parts.tls;
    this.#apiserver = parts.apiserver;
    this.#startApiServer = parts.startApiServer;
  }

  static async start(options: ControlPlaneOptions): Promise<LocalControlPlane> {
    await endLeftovers();
    const { dir, address = '127.0.0.1', wrapper, aggregation = true, serviceSubnets = ['10.96.0.0/16'] } = options;
    const binaries = locateBinaries();
    const started: LocalProcess[] = [];
    try {
      await mkdir(join(dir, 'pki'), { recursive: true });
      const pki = await createPki(join(dir, 'pki'), [address, ...serviceSubnets.map(firstAddressOf)]);
      const etcd = await startEtcd(dir, binaries, wrapper);
      started.push(etcd);
      let port = 0;
      const startOn = (wanted: number) =>
        startApiServer({ dir, address, port: wanted, binaries, wrapper, aggregation, serviceSubnets, tls: pki.admin });
      const apiserver = await withFreePort(address, async (candidate) => {
        const process = await startOn(candidate);
        port = candidate;
        return process;
      });
      started.push(apiserver);
      const url = `https://${hostPort(address, port)}`;
      const kubeconfigPath = join(dir, 'kubeconfig');
      const { ca, cert, key } = pki.admin;
      await writeKubeconfig(kubeconfigPath, { server: url, ca, certificate: cert, key });
      const kubectl = new Kubectl({
        command: binaries.kubectl,
        kubeconfig: kubeconfigPath,
        cache: join(dir, 'kubectl'),
      });
      let controllerManager: LocalProcess | undefined;
      if (options.controllerManager !== undefined && options.controllerManager !== false) {
        const given = options.controllerManager === true ? {} : options.controllerManager;
        controllerManager = await startControllerManager(dir, kubeconfigPath, binaries, given, wrapper);
        started.push(controllerManager);
      }
      let scheduler: LocalProcess | undefined;
      if (options.scheduler !== undefined) {
        scheduler = await startScheduler(dir, kubeconfigPath, options.scheduler, wrapper);
        started.push(scheduler);
      }
      const plane = new LocalControlPlane({
        kubeconfigPath,
        kubectl,
        etcd,
        controllerManager,
        scheduler,
        authority: pki.authority,
        url,
        tls: pki.admin,
        apiserver,
        startApiServer: () => startOn(port),
      });
      if (options.crds ?? true) await plane.kubectl.installWeir();
      return plane;
    } catch (error) {
      for (const process of started.reverse()) await process.stop(1000);
      throw error;
    }
  }

  /** Where the API server is, and its process (pid, kill, signal). */
  get apiserver(): { url: string; pid: number; process: LocalProcess } {
    return { url: this.#url, pid: this.#apiserver.pid, process: this.#apiserver };
  }

  /** TLS material of the administrator, PEM. */
  get tls(): ClientTls {
    return this.#tls;
  }

  /** Starts the API server again on its old port, after it was stopped or killed. */
  async restartApiServer(): Promise<void> {
    await this.#apiserver.stop();
    this.#apiserver = await this.#startApiServer();
  }

  /** Ends everything. Idempotent. */
  async stop(): Promise<void> {
    await Promise.all([this.controllerManager?.stop(), this.scheduler?.stop()]);
    await this.#apiserver.kill();
    await this.etcd.kill();
  }
}

interface Pki {
  authority: LocalAuthority;
  admin: ClientTls;
}

async function createPki(directory: string, addresses: readonly string[]): Promise<Pki> {
  const [authority, frontProxy, signing] = await Promise.all([
    LocalAuthority.create('weir-local-cluster'),
    LocalAuthority.create('weir-local-front-proxy'),
    createSigningKey(),
  ]);
  const service = [
    'kubernetes',
    'kubernetes.default',
    'kubernetes.default.svc',
    'kubernetes.default.svc.cluster.local',
  ];
  const names = [...new Set([...addresses, '127.0.0.1', 'localhost', ...service])];
  const [admin] = await Promise.all([
    authority.issue({ subject: 'O=system:masters,CN=admin', usage: 'client' }),
    authority.issueFiles(directory, 'apiserver', { subject: 'CN=kube-apiserver', names, usage: 'server' }),
    authority.issueFiles(directory, 'kubelet-client', {
      subject: 'O=system:masters,CN=kube-apiserver',
      usage: 'client',
    }),
    frontProxy.issueFiles(directory, 'front-proxy', { subject: 'CN=front-proxy-client', usage: 'client' }),
    writeFile(join(directory, 'ca.crt'), authority.certificate),
    writeFile(join(directory, 'front-proxy-ca.crt'), frontProxy.certificate),
    writeFile(join(directory, 'sa.key'), signing.privateKey, { mode: 0o600 }),
    writeFile(join(directory, 'sa.pub'), signing.publicKey),
  ]);
  return { authority, admin: { ca: authority.certificate, cert: admin.certificate, key: admin.key } };
}

/** etcd on a Unix socket: no port to pick, and nobody else on the machine can talk to it. */
async function startEtcd(dir: string, binaries: Binaries, wrapper?: readonly string[]): Promise<LocalProcess> {
  // Relative to its working directory, as a socket's path may be 107 bytes long at most.
  const client = 'unix://etcd.sock';
  const peer = 'unix://etcd-peer.sock';
  const logFile = join(dir, 'etcd.log');
  return await LocalProcess.start({
    name: 'etcd',
    command: binaries.etcd,
    cwd: dir,
    wrapper,
    logFile,
    args: [
      '--name=default',
      '--data-dir=etcd',
      '--unsafe-no-fsync',
      '--log-level=warn',
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      `--listen-peer-urls=${peer}`,
      `--initial-advertise-peer-urls=${peer}`,
      `--initial-cluster=default=${peer}`,
    ],
    ready: () => isSocket(join(dir, 'etcd.sock')),
  });
}

async function isSocket(path: string): Promise<boolean> {
  return (await stat(path)).isSocket();
}

async function startApiServer(options: {
  dir: string;
  address: string;
  port: number;
  binaries: Binaries;
  wrapper?: readonly string[];
  aggregation: boolean;
  serviceSubnets: readonly string[];
  tls: ClientTls;
}): Promise<LocalProcess> {
  const { dir, address, port, binaries, wrapper, aggregation, serviceSubnets, tls } = options;
  const pki = join(dir, 'pki');
  const url = `https://${hostPort(address, port)}`;
  return await LocalProcess.start({
    name: 'kube-apiserver',
    command: binaries['kube-apiserver'],
    cwd: dir,
    wrapper,
    logFile: join(dir, 'kube-apiserver.log'),
    args: [
      '--etcd-servers=unix://etcd.sock',
      `--bind-address=${address}`,
      `--advertise-address=${address}`,
      `--secure-port=${port}`,
      // Service kubernetes leads here; a loopback address is refused in an endpoint.
      `--endpoint-reconciler-type=${isLoopback(address) ? 'none' : 'lease'}`,
      '--authorization-mode=Node,RBAC',
      `--service-cluster-ip-range=${serviceSubnets.join()}`,
      '--allow-privileged=true',
      '--enable-priority-and-fairness=true',
      `--client-ca-file=${join(pki, 'ca.crt')}`,
      `--tls-cert-file=${join(pki, 'apiserver.crt')}`,
      `--tls-private-key-file=${join(pki, 'apiserver.key')}`,
      `--kubelet-client-certificate=${join(pki, 'kubelet-client.crt')}`,
      `--kubelet-client-key=${join(pki, 'kubelet-client.key')}`,
      `--kubelet-certificate-authority=${join(pki, 'ca.crt')}`,
      '--kubelet-preferred-address-types=InternalIP',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${join(pki, 'sa.pub')}`,
      `--service-account-signing-key-file=${join(pki, 'sa.key')}`,
      ...(aggregation ? aggregationArgs(pki) : []),
    ],
    readyTimeoutMs: 90_000,
    ready: async () => (await httpsGet(`${url}/readyz`, tls)).status === 200,
  });
}

/** What lets the API server pass requests on to extensions, and show them who is calling. */
function aggregationArgs(pki: string): string[] {
  return [
    `--requestheader-client-ca-file=${join(pki, 'front-proxy-ca.crt')}`,
    '--requestheader-allowed-names=front-proxy-client',
    '--requestheader-username-headers=X-Remote-User',
    '--requestheader-group-headers=X-Remote-Group',
    '--requestheader-extra-headers-prefix=X-Remote-Extra-',
    `--proxy-client-cert-file=${join(pki, 'front-proxy.crt')}`,
    `--proxy-client-key-file=${join(pki, 'front-proxy.key')}`,
    '--enable-aggregator-routing=true',
  ];
}

async function startControllerManager(
  dir: string,
  kubeconfig: string,
  binaries: Binaries,
  options: ControllerManagerOptions,
  wrapper?: readonly string[],
): Promise<LocalProcess> {
  const { hpaSyncSeconds = 5, nodeGraceSeconds } = options;
  return await LocalProcess.start({
    name: 'kube-controller-manager',
    command: binaries['kube-controller-manager'],
    cwd: dir,
    wrapper,
    logFile: join(dir, 'kube-controller-manager.log'),
    args: [
      `--kubeconfig=${kubeconfig}`,
      `--authentication-kubeconfig=${kubeconfig}`,
      `--authorization-kubeconfig=${kubeconfig}`,
      '--leader-elect=false',
      '--use-service-account-credentials=true',
      `--service-account-private-key-file=${join(dir, 'pki/sa.key')}`,
      `--root-ca-file=${join(dir, 'pki/ca.crt')}`,
      `--horizontal-pod-autoscaler-sync-period=${hpaSyncSeconds}s`,
      ...(nodeGraceSeconds === undefined ? [] : [`--node-monitor-grace-period=${nodeGraceSeconds}s`]),
      // Its own server is not used here.
      '--secure-port=0',
    ],
  });
}

async function startScheduler(
  dir: string,
  kubeconfig: string,
  command: string,
  wrapper?: readonly string[],
): Promise<LocalProcess> {
  return await LocalProcess.start({
    name: 'kube-scheduler',
    command,
    cwd: dir,
    wrapper,
    logFile: join(dir, 'kube-scheduler.log'),
    // Its own server is not used here.
    args: [`--kubeconfig=${kubeconfig}`, '--leader-elect=false', '--secure-port=0'],
  });
}

/** The first address of a subnet that something can have: that of the Service kubernetes. */
function firstAddressOf(subnet: string): string {
  const [network = ''] = subnet.split('/');
  return network.endsWith('::') ? `${network}1` : network.replace(/0$/, '1');
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}

/** Directory of the CRDs in this checkout. */
export const crdDirectory = join(projectRoot, 'crds');
