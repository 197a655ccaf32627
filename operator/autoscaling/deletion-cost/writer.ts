import type { Room } from '#crds/room.ts';
import type { Clock } from '#platform/clock.ts';
import { messageOf } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import type { NodeRegistry } from '../../fleet/node-registry.ts';
import type { AutoscalingMetrics } from '../../metrics.ts';
import { isConflict, isNotFound, type KubeObject, type ResourceClient } from '../../runtime/kube.ts';
import type { Pods } from '../pods.ts';
import { annotation, planDeletionCosts, type CostWrite, type PodCost } from './plan.ts';

/** How often costs are looked at, milliseconds. */
const lookMs = 5000;

export interface DeletionCostsOptions {
  registry: Pick<NodeRegistry, 'list'>;
  pods: Pick<Pods, 'byUid'>;
  rooms: () => Iterable<Room>;
  client: Pick<ResourceClient<KubeObject>, 'patchMerge'>;
  metrics: AutoscalingMetrics;
  clock: Clock;
  log: Logger;
}

/** Keeps `pod-deletion-cost` of nodes' pods in step with what they carry. The leader alone runs it. */
export class DeletionCosts {
  readonly #options: DeletionCostsOptions;
  /** When costs were written, by pod uid. */
  readonly #written = new Map<string, number>();
  #cancel: () => void = () => undefined;
  #writing: Promise<void> = Promise.resolve();
  #running = false;

  constructor(options: DeletionCostsOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#schedule();
  }

  /** Ends when the write that is under way has. */
  async stop(): Promise<void> {
    this.#running = false;
    this.#cancel();
    await this.#writing;
  }

  #schedule(): void {
    this.#cancel = this.#options.clock.after(lookMs, () => {
      this.#writing = this.#look().then(() => {
        if (this.#running) this.#schedule();
      });
    });
  }

  async #look(): Promise<void> {
    const { registry, rooms, clock } = this.#options;
    const writes = planDeletionCosts(registry.list(), hubsOf(rooms()), (uid) => this.#podOf(uid), clock.now());
    for (const write of writes) {
      if (!this.#running) return;
      await this.#write(write);
    }
    this.#forgetGone();
  }

  #podOf(uid: string): PodCost | undefined {
    const pod = this.#options.pods.byUid(uid);
    if (!pod || pod.metadata.deletionTimestamp) return undefined;
    const { name = '', namespace = '', annotations } = pod.metadata;
    const cost = Number.parseInt(annotations?.[annotation] ?? '', 10);
    const writtenAt = this.#written.get(uid);
    return { namespace, name, uid, cost: Number.isNaN(cost) ? undefined : cost, writtenAt };
  }

  async #write({ pod: { name, namespace, uid }, cost }: CostWrite): Promise<void> {
    const { client, metrics, clock, log } = this.#options;
    this.#written.set(uid, clock.now());
    try {
      // With its uid: never a pod that was made later under the name.
      const metadata = { uid, annotations: { [annotation]: String(cost) } };
      await client.patchMerge(name, namespace, { metadata });
      metrics.deletionCosts.inc({ result: 'written' });
    } catch (error) {
      const isPodGone = isNotFound(error) || isConflict(error);
      metrics.deletionCosts.inc({ result: isPodGone ? 'gone' : 'failed' });
      if (isPodGone) return;
      log.warn({ pod: name, reason: messageOf(error) }, 'pod-deletion-cost could not be written; trying again in 15 s');
    }
  }

  #forgetGone(): void {
    for (const uid of this.#written.keys()) if (!this.#options.pods.byUid(uid)) this.#written.delete(uid);
  }
}

/** Names of the nodes that are the hub of a room. */
function hubsOf(rooms: Iterable<Room>): Set<string> {
  const hubs = new Set<string>();
  for (const { status } of rooms) {
    for (const { node, role } of status?.placement ?? []) if (role === 'Hub') hubs.add(node);
  }
  return hubs;
}
