import type { KubeConfig } from '@kubernetes/client-node';
import type { Room } from '#crds/room.ts';
import type { SfuNode } from '#crds/sfunode.ts';
import type { Clock } from '#platform/clock.ts';
import type { Logger } from '#platform/log.ts';
import type { OperatorConfig } from '../config.ts';
import type { NodeRegistry } from '../fleet/node-registry.ts';
import type { AutoscalingMetrics } from '../metrics.ts';
import { ResourceClient } from '../runtime/kube.ts';
import type { RuntimeMetrics } from '../runtime/metrics.ts';
import type { Reflector } from '../runtime/reflector.ts';
import { DeletionCosts } from './deletion-cost/writer.ts';
import { ExternalScaler } from './external-scaler.ts';
import { MetricsApi, type PodFacts } from './metrics-api.ts';
import { podSamples } from './pod-metrics.ts';
import { podResource, Pods } from './pods.ts';

export interface AutoscalingOptions {
  config: Pick<OperatorConfig, 'namespace' | 'metricsApi' | 'scalerListen'>;
  kubeConfig: KubeConfig;
  registry: NodeRegistry;
  rooms: Reflector<Room>;
  sfuNodes: Reflector<SfuNode>;
  metrics: AutoscalingMetrics;
  runtimeMetrics: RuntimeMetrics;
  clock: Clock;
  /** In [0, 1). */
  random: () => number;
  log: Logger;
}

/** What others scale the fleet by. Every replica answers; the leader alone writes. */
export class Autoscaling {
  /** Ports that are listened on; undefined for what is off. */
  readonly ports: { readonly metricsApi: number | undefined; readonly scaler: number | undefined };
  readonly #pods: Pods;
  readonly #costs: DeletionCosts;
  readonly #metricsApi: MetricsApi | undefined;
  readonly #scaler: ExternalScaler | undefined;

  /** @throws WeirError BadTlsFiles, PortInUse and its kin */
  static async start(options: AutoscalingOptions): Promise<Autoscaling> {
    const { config, kubeConfig, registry, rooms, sfuNodes, metrics, runtimeMetrics, clock, random, log } = options;
    const { namespace } = config;
    const pods = new Pods({ kubeConfig, namespace, clock, random, log, metrics: runtimeMetrics });
    const object = (node: string) => sfuNodes.get(`${namespace}/${node}`);
    const facts: PodFacts = {
      samples: () => (pods.hasSynced ? podSamples(registry.list(), object) : undefined),
      pod: (ofNamespace, name) => pods.labels(ofNamespace, name),
    };
    const common = { facts, metrics, clock, log };
    const metricsApi =
      config.metricsApi &&
      (await MetricsApi.create({ ...common, ...config.metricsApi, kubeConfig, runtimeMetrics, random }));
    let scaler: ExternalScaler | undefined;
    try {
      const listen = config.scalerListen;
      scaler = listen && (await ExternalScaler.create({ ...common, listen, rooms: () => rooms.list().length }));
    } catch (error) {
      await metricsApi?.close();
      throw error;
    }
    pods.start();
    const client = new ResourceClient({ ...podResource, kubeConfig, metrics: runtimeMetrics });
    const costs = new DeletionCosts({ registry, pods, rooms: () => rooms.list(), client, metrics, clock, log });
    return new Autoscaling(pods, costs, metricsApi, scaler);
  }

  private constructor(
    pods: Pods,
    costs: DeletionCosts,
    metricsApi: MetricsApi | undefined,
    scaler: ExternalScaler | undefined,
  ) {
    this.#pods = pods;
    this.#costs = costs;
    this.#metricsApi = metricsApi;
    this.#scaler = scaler;
    this.ports = { metricsApi: metricsApi?.port, scaler: scaler?.port };
  }

  /** This replica leads now. */
  lead(): void {
    this.#costs.start();
  }

  /** Ends what only a leader does; call it before the lease is released. */
  async unlead(): Promise<void> {
    await this.#costs.stop();
  }

  async close(): Promise<void> {
    this.#scaler?.close();
    await Promise.all([this.#costs.stop(), this.#metricsApi?.close(), this.#pods.stop()]);
  }
}
