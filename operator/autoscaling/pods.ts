import type { KubeConfig } from '@kubernetes/client-node';
import type { Clock } from '#platform/clock.ts';
import type { Logger } from '#platform/log.ts';
import { keyOf, type KubeObject, type Resource } from '../runtime/kube.ts';
import type { RuntimeMetrics } from '../runtime/metrics.ts';
import { Reflector } from '../runtime/reflector.ts';
import type { PodLabels } from './custom-metrics.ts';

/** The resource of pods. */
export const podResource: Resource = { group: '', version: 'v1', plural: 'pods' };

/** The pods of one namespace, as the API server knows them. */
export class Pods {
  readonly #reflector: Reflector<KubeObject>;
  readonly #byUid = new Map<string, KubeObject>();

  constructor(options: {
    kubeConfig: KubeConfig;
    namespace: string;
    clock: Clock;
    random: () => number;
    log: Logger;
    metrics: RuntimeMetrics;
  }) {
    this.#reflector = new Reflector({ ...options, ...podResource });
    this.#reflector.onChange((_key, current, previous) => {
      if (previous?.metadata.uid) this.#byUid.delete(previous.metadata.uid);
      if (current?.metadata.uid) this.#byUid.set(current.metadata.uid, current);
    });
  }

  start(): void {
    this.#reflector.start();
  }

  async stop(): Promise<void> {
    await this.#reflector.stop();
  }

  get hasSynced(): boolean {
    return this.#reflector.hasSynced;
  }

  byUid(uid: string): KubeObject | undefined {
    return this.#byUid.get(uid);
  }

  /** Identity and labels of a pod. */
  labels(namespace: string, name: string): PodLabels | undefined {
    const metadata = this.#reflector.get(keyOf({ metadata: { namespace, name } }))?.metadata;
    return metadata && { uid: metadata.uid ?? '', labels: metadata.labels ?? {} };
  }
}
