import { join } from 'node:path';
import { WeirError } from '#platform/errors.ts';
import { LocalControlPlane } from '#tools/local/control-plane.ts';
import { eventually } from '#tools/local/eventually.ts';
import type { Kubectl } from '#tools/local/kubectl.ts';
import { endLeftovers, removeRecorded } from '#tools/local/leftovers.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';
import { locateClusterBinaries, type ClusterBinaries } from './binaries.ts';
import { serviceSubnets, type IpFamily } from './addresses.ts';
import { ClusterNode, type ClusterNodeSpec } from './cluster-node.ts';
import { ControlGroups } from './control-groups.ts';
import { startDns } from './dns.ts';
import { writeBaseImage } from './base-image.ts';
import { Machine } from './machine.ts';
import { ClusterNetwork } from './network.ts';
import { clusterProblem, otherClusters } from './problem.ts';

/** Three nodes in two regions. */
export const defaultNodes: readonly ClusterNodeSpec[] = [
  { name: 'eu-1', region: 'eu-west', zone: 'eu-west-a' },
  { name: 'eu-2', region: 'eu-west', zone: 'eu-west-b' },
  { name: 'us-1', region: 'us-east', zone: 'us-east-a' },
];

/** Options of {@link LocalCluster.start}. */
export interface LocalClusterOptions {
  /** Default {@link defaultNodes}. */
  nodes?: readonly ClusterNodeSpec[];
  /** Seconds without a heartbeat after which a Node is no longer Ready. Default 40, as in most clusters. */
  nodeGraceSeconds?: number;
  /** Families of addresses that Nodes, pods and Services have; the first is what counts where one is to be had. Default IPv4. */
  ipFamilies?: readonly [IpFamily, ...IpFamily[]];
  /** How often HPAs are looked at, seconds. Default 5. */
  hpaSyncSeconds?: number;
  /** Is told what is done. */
  say?: (text: string) => void;
}

/**
 * A whole Kubernetes cluster on this machine: control plane, scheduler and DNS beside this process, each node in a
 * machine of its own. Nothing of it is left after `stop`, nor after this process's end.
 */
export class LocalCluster {
  /** Directory of its data and logs, removed with it. */
  readonly dir: string;
  readonly plane: LocalControlPlane;
  readonly nodes: readonly ClusterNode[];
  readonly #network: ClusterNetwork;
  readonly #ends: AsyncDisposableStack;

  private constructor(parts: {
    dir: string;
    plane: LocalControlPlane;
    nodes: readonly ClusterNode[];
    network: ClusterNetwork;
    ends: AsyncDisposableStack;
  }) {
    this.dir = parts.dir;
    this.plane = parts.plane;
    this.nodes = parts.nodes;
    this.#network = parts.network;
    this.#ends = parts.ends;
  }

  /**
   * Starts a cluster, and waits until its nodes are Ready.
   *
   * @throws WeirError NoClusterHere where there is no root or no Linux, SetupMissing before the set-up has run.
   */
  static async start(options: LocalClusterOptions = {}): Promise<LocalCluster> {
    const problem = clusterProblem();
    if (problem !== undefined)
      throw new WeirError('NoClusterHere', `a cluster on this machine ${problem}. ${otherClusters}`);
    const binaries = locateClusterBinaries();
    await endLeftovers();
    const ends = new AsyncDisposableStack();
    try {
      return await LocalCluster.#start(binaries, options, ends);
    } catch (error) {
      await ends.disposeAsync();
      throw error;
    }
  }

  /** Starts the parts in order; how each is ended is put into `ends`, which ends the last first. */
  static async #start(
    binaries: ClusterBinaries,
    options: LocalClusterOptions,
    ends: AsyncDisposableStack,
  ): Promise<LocalCluster> {
    const { nodes: specs = defaultNodes, nodeGraceSeconds: graceSeconds = 40, say = () => undefined } = options;
    const dir = temporaryDirectory('cluster');
    ends.defer(() => eventually(() => removeRecorded(dir), { what: `the end of ${dir}` }).then(() => undefined));
    say(`${specs.length} machines and the network between them`);
    const network = ends.adopt(await ClusterNetwork.create(dir, options.ipFamilies), (made) => made.close());
    const machines = await startMachines(dir, specs, network, ends);
    const image = join(dir, 'base.tar');
    await writeBaseImage(binaries.busybox, image);
    say('etcd, kube-apiserver, kube-controller-manager, kube-scheduler');
    const plane = await LocalControlPlane.start({
      dir: join(dir, 'plane'),
      address: network.hostAddress,
      serviceSubnets: network.subnets.map(({ family }) => serviceSubnets[family]),
      crds: false,
      controllerManager: { nodeGraceSeconds: graceSeconds, hpaSyncSeconds: options.hpaSyncSeconds },
      scheduler: binaries['kube-scheduler'],
    });
    ends.defer(() => plane.stop());
    say('CoreDNS');
    const dns = await startDns({ dir, addresses: network.addresses, command: binaries.coredns, plane });
    ends.defer(() => dns.stop().then(() => undefined));
    say('containerd, kubelet and kube-proxy on every node');
    const nodes = await Promise.all(
      machines.map((made) => ClusterNode.start({ ...made, network, plane, binaries, graceSeconds }, image)),
    );
    const cluster = new LocalCluster({ dir, plane, nodes, network, ends });
    say('waiting for the nodes to be Ready');
    await cluster.#untilReady();
    return cluster;
  }

  /** kubectl as the cluster's administrator. */
  get kubectl(): Kubectl {
    return this.plane.kubectl;
  }

  /** Kubeconfig of the cluster's administrator. */
  get kubeconfigPath(): string {
    return this.plane.kubeconfigPath;
  }

  /** @throws WeirError NoSuchNode */
  node(name: string): ClusterNode {
    const found = this.nodes.find((node) => node.name === name);
    if (found) return found;
    throw new WeirError('NoSuchNode', `there is no node ${name}: ${this.nodes.map((node) => node.name).join(', ')}`);
  }

  /** Pulls the network cable of a node: nothing reaches it or its pods, which go on running. */
  async cut(node: ClusterNode): Promise<void> {
    await this.#network.setLink(node.machine, false);
  }

  /** Plugs the cable of a node in again. */
  async heal(node: ClusterNode): Promise<void> {
    await this.#network.setLink(node.machine, true);
  }

  /** Loads an image, an OCI or docker archive as a tar file, into every node. */
  async loadImage(file: string): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.loadImage(file)));
  }

  /** Ends everything, and waits until nothing is left. Idempotent. */
  async stop(): Promise<void> {
    await this.#ends.disposeAsync();
  }

  /** Whether the API server holds a node for Ready, and lets pods be put on it. */
  async isReady(node: ClusterNode): Promise<boolean> {
    const { spec, status } = await this.kubectl.json<NodeObject>('get', 'node', node.name);
    const ready = status.conditions.find(({ type }) => type === 'Ready')?.status === 'True';
    return ready && (spec.taints ?? []).length === 0;
  }

  /** Does what a cloud does for a new Node: says which addresses it has, and lets pods be put on it. Rejects before it is known. */
  async #admit(node: ClusterNode): Promise<void> {
    const addresses = [
      { type: 'Hostname', address: node.name },
      ...node.addresses.map((address) => ({ type: 'InternalIP', address })),
      ...node.externalAddresses.map((address) => ({ type: 'ExternalIP', address })),
    ];
    const patch = JSON.stringify({ status: { addresses } });
    await this.kubectl.run('patch', 'node', node.name, '--subresource=status', '--type=merge', '-p', patch);
    await this.kubectl.run('taint', 'node', node.name, 'node.cloudprovider.kubernetes.io/uninitialized-');
  }

  /** @throws WeirError NodeFailed when a program of a node ends, Timeout. */
  async #untilReady(): Promise<void> {
    const admitted = new Set<ClusterNode>();
    const failure = await eventually(
      async () => {
        for (const node of this.nodes) {
          const failed = await node.failure();
          if (failed !== undefined) return failed;
          if (!admitted.has(node)) await this.#admit(node);
          admitted.add(node);
        }
        const ready = await Promise.all(this.nodes.map((node) => this.isReady(node)));
        return ready.every(Boolean) && 'none';
      },
      { timeoutMs: 180_000, intervalMs: 200, what: 'the nodes being Ready' },
    );
    if (failure !== 'none') throw new WeirError('NodeFailed', failure);
  }
}

/** The part of a Node that is read here. */
interface NodeObject {
  spec: { taints?: unknown[] };
  status: { conditions: { type: string; status: string }[] };
}

async function startMachines(
  dir: string,
  specs: readonly ClusterNodeSpec[],
  network: ClusterNetwork,
  ends: AsyncDisposableStack,
) {
  const machines = [];
  for (const [index, spec] of specs.entries()) {
    const own = join(dir, spec.name);
    const controlGroups = ends.adopt(new ControlGroups(spec.name), (made) => made.remove());
    const machine = ends.adopt(await Machine.start({ name: spec.name, dir: own }), (made) => made.stop());
    await network.plug(machine, index + 1, specs.length);
    machines.push({ spec, dir: own, machine, places: network.placesOf(index + 1), controlGroups });
  }
  return machines;
}
