import { mkdir, writeFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { stringify } from 'yaml';
import type { LocalControlPlane } from '#tools/local/control-plane.ts';
import { writeKubeconfig } from '#tools/local/kubeconfig.ts';
import { LocalProcess } from '#tools/local/process.ts';
import type { ClusterBinaries } from './binaries.ts';
import { answers, importImage } from './containerd-client.ts';
import type { ControlGroups } from './control-groups.ts';
import { baseImage } from './base-image.ts';
import { flat, type Machine } from './machine.ts';
import type { Place } from './addresses.ts';
import type { ClusterNetwork } from './network.ts';

/** A node as a cluster's maker asks for it. */
export interface ClusterNodeSpec {
  /** Name of the Node, a DNS label. */
  name: string;
  /** Its label topology.kubernetes.io/region. */
  region: string;
  /** Its label topology.kubernetes.io/zone. */
  zone: string;
}

/** What a node is made of. */
export interface ClusterNodeParts {
  spec: ClusterNodeSpec;
  /** The node's own directory; the machine's as well. */
  dir: string;
  machine: Machine;
  network: ClusterNetwork;
  /** Where it is, a family of addresses each. */
  places: readonly [Place, ...Place[]];
  controlGroups: ControlGroups;
  plane: LocalControlPlane;
  binaries: ClusterBinaries;
  /** Seconds without a heartbeat after which the Node is no longer Ready. */
  graceSeconds: number;
}

/** A Kubernetes node: containerd, kubelet and kube-proxy in a machine. */
export class ClusterNode {
  readonly name: string;
  readonly region: string;
  readonly zone: string;
  /** Address of the node, the Node's first InternalIP. */
  readonly address: string;
  /** Addresses by which the world outside would know it, the Node's ExternalIPs. */
  readonly externalAddresses: readonly string[];
  readonly machine: Machine;
  readonly controlGroups: ControlGroups;
  readonly #parts: ClusterNodeParts;
  readonly #processes: LocalProcess[] = [];

  private constructor(parts: ClusterNodeParts) {
    ({ name: this.name, region: this.region, zone: this.zone } = parts.spec);
    this.address = parts.places[0].address;
    this.externalAddresses = parts.places.map(({ externalAddress }) => externalAddress);
    this.machine = parts.machine;
    this.controlGroups = parts.controlGroups;
    this.#parts = parts;
  }

  /**
   * Starts the node's programs. Whether its Node is Ready the API server knows.
   *
   * @param image file of the cluster's own image, without which no pod starts.
   */
  static async start(parts: ClusterNodeParts, image: string): Promise<ClusterNode> {
    const node = new ClusterNode(parts);
    await mkdir(join(parts.dir, 'cni'), { recursive: true });
    await Promise.all([node.#writeContainerd(), node.#writeKubelet(), node.#writeKubeProxy()]);
    await node.#run('containerd', ['--config', join(parts.dir, 'containerd.toml')], () =>
      answers(node.containerdSocket),
    );
    await node.loadImage(image);
    const { spec } = parts;
    await Promise.all([
      node.#run('kubelet', [
        `--config=${join(parts.dir, 'kubelet.yaml')}`,
        `--kubeconfig=${join(parts.dir, 'kubelet.kubeconfig')}`,
        `--hostname-override=${spec.name}`,
        `--node-ip=${node.addresses.join()}`,
        // Which addresses it has otherwise, the cluster says.
        '--cloud-provider=external',
        `--node-labels=topology.kubernetes.io/region=${spec.region},topology.kubernetes.io/zone=${spec.zone}`,
      ]),
      node.#run('kube-proxy', [`--config=${join(parts.dir, 'kube-proxy.yaml')}`]),
    ]);
    return node;
  }

  /** All its own addresses, the Node's InternalIPs. */
  get addresses(): string[] {
    return this.#parts.places.map(({ address }) => address);
  }

  /** Socket of its containerd, as seen from outside the machine. */
  get containerdSocket(): string {
    return join(this.#parts.dir, flat('/run'), 'containerd/containerd.sock');
  }

  /** Loads an image, an OCI or docker archive as a tar file, for pods of this node. */
  async loadImage(file: string): Promise<void> {
    await importImage(this.containerdSocket, file);
  }

  /** The end of the log of a program that has ended although it should run, or undefined. */
  async failure(): Promise<string | undefined> {
    const ended = this.#processes.find((process) => !process.running);
    return ended && `${ended.name} has ended; its log ends with:\n${await ended.logTail()}`;
  }

  async #run(
    name: 'containerd' | 'kubelet' | 'kube-proxy',
    args: readonly string[],
    ready?: () => Promise<boolean>,
  ): Promise<void> {
    const { binaries, dir } = this.#parts;
    const directories = [
      dirname(binaries.containerd),
      dirname(binaries['containerd-shim-runc-v2']),
      dirname(binaries.runc),
    ];
    const started = await LocalProcess.start({
      name: `${this.name}/${name}`,
      command: binaries[name],
      args,
      wrapper: this.machine.wrapper,
      env: { PATH: [...directories, '/usr/sbin:/usr/bin:/sbin:/bin', process.env['PATH'] ?? ''].join(delimiter) },
      logFile: join(dir, `${name}.log`),
      ready,
    });
    this.#processes.push(started);
  }

  async #writeContainerd(): Promise<void> {
    const { dir, places, network, binaries } = this.#parts;
    const cri = (plugin: string) => `[plugins.'io.containerd.cri.v1.${plugin}]`;
    await writeFile(
      join(dir, 'containerd.toml'),
      [
        'version = 3',
        // The pods' network is plain CNI, and there is no other snapshotter to look for.
        "disabled_plugins = ['io.containerd.nri.v1.nri', 'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.erofs']",
        "[plugins.'io.containerd.internal.v1.opt']",
        `path = '${join(dir, 'opt')}'`,
        cri("images'.pinned_images"),
        `sandbox = '${baseImage}'`,
        cri("runtime'"),
        // A process may not make itself less of a victim than its parent is, where root is not all-powerful.
        'restrict_oom_score_adj = true',
        cri("runtime'.cni"),
        `bin_dirs = ['${binaries.cniPlugins}']`,
        `conf_dir = '${join(dir, 'cni')}'`,
        cri("runtime'.containerd.runtimes.runc"),
        "runtime_type = 'io.containerd.runc.v2'",
        cri("runtime'.containerd.runtimes.runc.options"),
        'SystemdCgroup = false',
        `BinaryName = '${binaries.runc}'`,
        '',
      ].join('\n'),
    );
    const bridge = {
      type: 'bridge',
      bridge: 'pods',
      isGateway: true,
      hairpinMode: true,
      ipam: {
        type: 'host-local',
        ranges: places.map(({ podSubnet }) => [{ subnet: podSubnet }]),
        routes: network.subnets.map(({ everywhere }) => ({ dst: everywhere })),
      },
    };
    const plugins = [bridge, { type: 'portmap', capabilities: { portMappings: true } }];
    await writeFile(
      join(dir, 'cni/10-pods.conflist'),
      JSON.stringify({ cniVersion: '1.0.0', name: 'pods', plugins }, null, 2),
    );
    await writeFile(join(dir, 'resolv.conf'), `nameserver ${network.hostAddress}\n`);
  }

  async #writeKubelet(): Promise<void> {
    const { dir, plane, spec, network, controlGroups, graceSeconds } = this.#parts;
    const serving = await plane.authority.issueFiles(dir, 'kubelet-serving', {
      subject: `O=system:nodes,CN=system:node:${spec.name}`,
      names: [spec.name, ...this.addresses],
      usage: 'server',
    });
    await this.#writeClient('kubelet', `O=system:nodes,CN=system:node:${spec.name}`);
    await writeFile(join(dir, 'ca.crt'), plane.authority.certificate);
    const configuration = {
      apiVersion: 'kubelet.config.k8s.io/v1beta1',
      kind: 'KubeletConfiguration',
      address: this.address,
      tlsCertFile: serving.certFile,
      tlsPrivateKeyFile: serving.keyFile,
      authentication: {
        anonymous: { enabled: false },
        webhook: { enabled: true },
        x509: { clientCAFile: join(dir, 'ca.crt') },
      },
      authorization: { mode: 'Webhook' },
      containerRuntimeEndpoint: 'unix:///run/containerd/containerd.sock',
      cgroupDriver: 'cgroupfs',
      cgroupRoot: controlGroups.root,
      failCgroupV1: false,
      failSwapOn: false,
      clusterDomain: 'cluster.local',
      clusterDNS: [network.hostAddress],
      resolvConf: join(dir, 'resolv.conf'),
      // The disk is everybody's; images that were loaded cannot be pulled again.
      evictionHard: { 'memory.available': '50Mi', 'nodefs.available': '1%', 'imagefs.available': '1%' },
      imageGCHighThresholdPercent: 100,
      volumePluginDir: join(dir, 'volume-plugins'),
      nodeLeaseDurationSeconds: graceSeconds,
      nodeStatusUpdateFrequency: `${Math.max(1, Math.round(graceSeconds / 4))}s`,
    };
    await writeFile(join(dir, 'kubelet.yaml'), stringify(configuration));
  }

  async #writeKubeProxy(): Promise<void> {
    const { dir, network, spec } = this.#parts;
    await this.#writeClient('kube-proxy', 'CN=system:kube-proxy');
    const configuration = {
      apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
      kind: 'KubeProxyConfiguration',
      mode: 'nftables',
      clientConnection: { kubeconfig: join(dir, 'kube-proxy.kubeconfig') },
      clusterCIDR: network.subnets.map(({ pods }) => pods).join(),
      hostnameOverride: spec.name,
      // The size of the table is the whole machine's.
      conntrack: { maxPerCore: 0 },
    };
    await writeFile(join(dir, 'kube-proxy.yaml'), stringify(configuration));
  }

  /** Writes NAME.kubeconfig with a client certificate for this subject. */
  async #writeClient(name: string, subject: string): Promise<void> {
    const { dir, plane } = this.#parts;
    const { certificate, key } = await plane.authority.issue({ subject, usage: 'client' });
    const { url: server } = plane.apiserver;
    const ca = plane.authority.certificate;
    await writeKubeconfig(join(dir, `${name}.kubeconfig`), { server, ca, certificate, key, user: name });
  }
}
