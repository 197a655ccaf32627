import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import type { Room } from '#crds/room.ts';
import type { SfuNode } from '#crds/sfunode.ts';
import { chart, findHelm, type Values } from '#test/chart/helm.ts';
import { createToken, type TokenOptions } from '#test/fleet/token.ts';
import { LocalCluster, type LocalClusterOptions } from '#tools/cluster/local-cluster.ts';
import { eventually } from '#tools/local/eventually.ts';
import { hostPort } from '#tools/local/ports.ts';
import { projectRoot, stateDirectory } from '#tools/local/leftovers.ts';

const run = promisify(execFile);

/** Namespace of the release. */
export const namespace = 'weir-system';

/** A pod, as far as tests look. */
export interface Pod {
  metadata: { name: string; uid: string; deletionTimestamp?: string; creationTimestamp: string };
  spec: { nodeName?: string };
  status: {
    podIP?: string;
    conditions?: { type: string; status: string }[];
    containerStatuses?: { name: string; restartCount: number }[];
  };
}

/** A cluster of three Kubernetes Nodes in two regions that has Weir's images, and the release `weir` once installed. */
export class WeirCluster {
  readonly cluster: LocalCluster;

  private constructor(cluster: LocalCluster) {
    this.cluster = cluster;
  }

  /** Builds the images from this checkout, and starts a cluster with them and with the namespace, restricted. */
  static async start(options: LocalClusterOptions = {}): Promise<WeirCluster> {
    const build = run(process.execPath, [join(projectRoot, 'tools/image/build.ts')], { cwd: projectRoot });
    const [starting, building] = await Promise.allSettled([LocalCluster.start(options), build]);
    if (starting.status === 'rejected') throw starting.reason;
    const cluster = starting.value;
    try {
      if (building.status === 'rejected') throw building.reason;
      for (const name of ['image.tar', 'nats-image.tar']) await cluster.loadImage(join(stateDirectory, name));
      await cluster.kubectl.run('create', 'namespace', namespace);
      // Nothing of a release wants more than this.
      const label = 'pod-security.kubernetes.io/enforce=restricted';
      await cluster.kubectl.run('label', 'namespace', namespace, label);
      return new WeirCluster(cluster);
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  stop(): Promise<void> {
    return this.cluster.stop();
  }

  /** kubectl in the release's namespace. */
  kubectl(...args: string[]): Promise<string> {
    return this.cluster.kubectl.run('--namespace', namespace, ...args);
  }

  /** `kubectl get ... -o json` in the release's namespace: the items. */
  async list<T>(...args: string[]): Promise<T[]> {
    return (await this.cluster.kubectl.json<{ items: T[] }>('--namespace', namespace, 'get', ...args)).items;
  }

  /** helm in the release's namespace. Rejects with `stderr`. */
  async helm(...args: string[]): Promise<string> {
    const env = { ...process.env, KUBECONFIG: this.cluster.kubeconfigPath };
    return (await run(findHelm() ?? 'helm', ['--namespace', namespace, ...args], { env, timeout: 300_000 })).stdout;
  }

  /** Installs the release, or upgrades it with the values that it has and these; waits until all of it is Ready. */
  async install(values: Values): Promise<void> {
    const file = join(this.cluster.dir, 'values.json');
    await writeFile(file, JSON.stringify(values));
    const how = ['--install', '--reuse-values', '--wait', '--timeout', '4m'];
    await this.helm('upgrade', 'weir', chart, ...how, '--values', file);
  }

  /** Pods of a component that are not ending. */
  async pods(component: 'operator' | 'sfu-node' | 'nats'): Promise<Pod[]> {
    const pods = await this.list<Pod>('pods', '-l', `app.kubernetes.io/component=${component}`);
    return pods.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  }

  sfuNodes(): Promise<SfuNode[]> {
    return this.list<SfuNode>('sfunodes');
  }

  /** Those that rooms can be placed on as far as the operator knows. */
  async readySfuNodes(): Promise<SfuNode[]> {
    const isReady = ({ status }: SfuNode) =>
      status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True');
    return (await this.sfuNodes()).filter(isReady);
  }

  /** Names of the SFU nodes, and so of the pods, that serve a room; none when there is no such Room. */
  async servingNodes(room: string): Promise<string[]> {
    const [found] = await this.list<Room>('rooms', `--field-selector=metadata.name=${room}`);
    return (found?.status?.nodes ?? '').split(',').filter((name) => name !== '');
  }

  /** Applies a Room, and waits until it is Ready. */
  async applyRoom(name: string, spec: NonNullable<Room['spec']> = {}): Promise<void> {
    const manifest = { apiVersion: 'weir.dev/v1alpha1', kind: 'Room', metadata: { name, namespace }, spec };
    await this.cluster.kubectl.apply(manifest);
    await this.kubectl('wait', '--for=condition=Ready', '--timeout=60s', `room/${name}`);
  }

  /** Applies a Room that begins on an SFU node and may leave it later. */
  async applyRoomOn(node: string, room: string): Promise<void> {
    await this.kubectl('label', 'sfunode', node, `begins-${room}=here`);
    await this.applyRoom(room, { nodeSelector: { [`begins-${room}`]: 'here' } });
    await this.kubectl('patch', 'room', room, '--type=merge', '-p', '{"spec":{"nodeSelector":null}}');
  }

  /** Where clients connect to: the signalling Service, which has to be of type NodePort, at a Kubernetes Node. */
  async signalUrl(nodeName: string): Promise<string> {
    const port = await this.kubectl('get', 'service', 'weir-signal', '-o', 'jsonpath={.spec.ports[0].nodePort}');
    return `ws://${hostPort(this.cluster.node(nodeName).address, Number(port))}`;
  }

  /** The release's own API key and its secret. */
  async apiKey(): Promise<{ apiKey: string; apiSecret: string }> {
    const encoded = await this.kubectl('get', 'secret', 'weir-api-keys', '-o', 'jsonpath={.data.keys\\.yaml}');
    const [made] = parse(Buffer.from(encoded, 'base64').toString()) as { key: string; secret: string }[];
    if (!made) throw new Error('the Secret weir-api-keys has no key');
    return { apiKey: made.key, apiSecret: made.secret };
  }

  /** A token for a client in a region, wherever it connects. */
  async token(room: string, identity: string, region?: string, more: Partial<TokenOptions> = {}): Promise<string> {
    const attributes = region === undefined ? undefined : { 'weir.dev/region': region };
    return await createToken({ ...(await this.apiKey()), room, identity, attributes, ...more });
  }

  /**
   * Waits until a Deployment's or StatefulSet's pods are those that it should have, and the old ones are gone; the operator
   * has SFU nodes in its books by then.
   */
  async settled(component: 'operator' | 'sfu-node' | 'nats', count: number, timeoutMs = 120_000): Promise<Pod[]> {
    return await eventually(
      async () => {
        const pods = await this.list<Pod>('pods', '-l', `app.kubernetes.io/component=${component}`);
        const isReady = ({ metadata, status }: Pod) =>
          metadata.deletionTimestamp === undefined &&
          status.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True');
        if (pods.length !== count || !pods.every(isReady)) return undefined;
        if (component === 'sfu-node') {
          const known = new Set((await this.readySfuNodes()).map(({ metadata }) => metadata?.name));
          if (!pods.every(({ metadata }) => known.has(metadata.name))) return undefined;
        }
        return pods;
      },
      { timeoutMs, intervalMs: 250, what: `${count} Ready pods of ${component} and no other` },
    );
  }
}
