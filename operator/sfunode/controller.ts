import type { SfuNode } from '#crds/sfunode.ts';
import type { Clock } from '#platform/clock.ts';
import type { Logger } from '#platform/log.ts';
import type { NodeConnections } from '../fleet/connections.ts';
import type { FleetView } from '../fleet/fleet-view.ts';
import type { NodeRegistry } from '../fleet/node-registry.ts';
import type { OperatorMetrics } from '../metrics.ts';
import type { ReconcileResult } from '../runtime/controller.ts';
import type { EventRecorder } from '../runtime/events.ts';
import { isAlreadyExists, isConflict, isNotFound, type ResourceClient } from '../runtime/kube.ts';
import type { Reflector } from '../runtime/reflector.ts';
import type { WorkQueue } from '../runtime/workqueue.ts';
import { Drains } from './drains.ts';
import { planSfuNode, type SfuNodeAction, type SfuNodeSnapshot } from './plan.ts';

const maxSteps = 8;

export interface SfuNodeControllerOptions {
  nodes: Reflector<SfuNode>;
  client: ResourceClient<SfuNode>;
  queue: WorkQueue;
  view: FleetView;
  registry: NodeRegistry;
  connections: NodeConnections;
  events: EventRecorder;
  /** Namespace in which SfuNodes are made. */
  namespace: string;
  removeAfterMs: number;
  metrics: Pick<OperatorMetrics, 'drains'>;
  /** A node may take rooms now that could not before. */
  onCapacity: () => void;
  /** Rooms on this node must be looked at: it was lost, came back, restarted or drains. */
  onRoomsAffected: (node: string) => void;
  clock: Clock;
  log: Logger;
}

/**
 * Keeps one SfuNode for each node that registers, and the fleet as placement sees it in step with both. Heartbeats come
 * five times a second and only touch memory; the queue gets a node when something about it changed.
 */
export class SfuNodeController {
  readonly #options: SfuNodeControllerOptions;
  readonly #written = new Map<string, number>();
  readonly #drains: Drains;
  readonly #goneAt = new Map<string, number>();
  readonly #told = new Map<string, { instance: string; drain: boolean }>();

  constructor(options: SfuNodeControllerOptions) {
    this.#options = options;
    const { registry, nodes, queue, clock, metrics } = options;
    this.#drains = new Drains({ now: () => clock.now(), onEnd: (seconds) => metrics.drains.observe(seconds) });
    registry.onChange((name, change) => {
      const record = registry.get(name);
      const heard = record?.alive ? record.heartbeat : undefined;
      this.#drains.take(name, heard && { draining: heard.draining, rooms: heard.load?.rooms ?? 0 });
      // A node of which nothing is left: its pod went, and its SfuNode with that.
      if (change === 'lost' && nodes.hasSynced && !this.#object(name)) return registry.forget(name);
      this.#updateView(name);
      if (change !== 'report') {
        queue.add(name);
        if (change !== 'registered') options.onRoomsAffected(name);
      }
    });
    nodes.onChange((key, current, previous) => {
      const name = (current ?? previous)?.metadata.name ?? '';
      const record = registry.get(name);
      if (!current && record?.alive) this.#goneAt.set(name, options.clock.now());
      else if (!current && record) registry.forget(name);
      this.#updateView(name);
      if ((current?.spec.drain ?? false) !== (previous?.spec.drain ?? false)) options.onRoomsAffected(name);
      queue.add(name);
    });
  }

  /** One reconciliation of the node of a name. */
  async reconcile(name: string): Promise<void | ReconcileResult> {
    for (let step = 0; step < maxSteps; step += 1) {
      const snapshot = this.#observe(name);
      const plan = planSfuNode(snapshot);
      for (const action of plan.actions) {
        try {
          await this.#apply(action, snapshot);
        } catch (error) {
          if (isConflict(error) || isAlreadyExists(error)) return { requeueAfterMs: 20 };
          if (isNotFound(error)) return { requeueAfterMs: 100 };
          throw error;
        }
      }
      if (plan.actions.length === 0)
        return plan.requeueAfterMs === undefined ? undefined : { requeueAfterMs: plan.requeueAfterMs };
    }
    return { requeueAfterMs: 1000 };
  }

  #object(name: string): SfuNode | undefined {
    return this.#options.nodes.get(`${this.#options.namespace}/${name}`);
  }

  #observe(name: string): SfuNodeSnapshot {
    const { registry, namespace, removeAfterMs, clock } = this.#options;
    const record = registry.get(name);
    const told = this.#told.get(name);
    return {
      name,
      namespace,
      object: this.#object(name),
      heartbeat: record?.heartbeat,
      alive: record?.alive ?? false,
      lastSeen: record?.lastSeen,
      goneAt: this.#goneAt.get(name),
      settled: record !== undefined || registry.isGone(name),
      statusWrittenAt: this.#written.get(name) ?? 0,
      toldToDrain: told && told.instance === record?.heartbeat.instance ? told.drain : undefined,
      removeAfterMs,
      now: clock.now(),
    };
  }

  async #apply(action: SfuNodeAction, { name, namespace, object, heartbeat }: SfuNodeSnapshot): Promise<void> {
    const { client, nodes, events, connections, registry, clock, log } = this.#options;
    switch (action.type) {
      case 'create':
        nodes.observeWrite(await client.create(action.object));
        this.#goneAt.delete(name);
        return log.info({ node: name, region: action.object.spec.region }, 'SfuNode created');
      case 'patchSpec':
        return nodes.observeWrite(await client.patchMerge(name, namespace, { spec: action.spec }));
      case 'writeStatus': {
        if (!object) return;
        nodes.observeWrite(await client.replaceStatus({ ...object, status: action.status }));
        this.#written.set(name, clock.now());
        if (!action.event) return;
        const { type, reason, message } = action.event;
        log[type === 'Warning' ? 'warn' : 'info']({ node: name, reason }, message);
        return events.event(
          { apiVersion: 'weir.dev/v1alpha1', kind: 'SfuNode', metadata: object.metadata },
          type,
          reason,
          message,
          'Reconcile',
        );
      }
      case 'drain':
        await connections.client(name).drain(action.drain);
        this.#told.set(name, { instance: heartbeat?.instance ?? '', drain: action.drain });
        return log.info(
          { node: name, drain: action.drain },
          action.drain ? 'Node drains' : 'Node does not drain any more',
        );
      case 'remove':
        log.info({ node: name, reason: action.reason }, `SfuNode removed: ${action.message}`);
        await client.delete(name, namespace, { uid: object?.metadata.uid });
        return registry.forget(name);
    }
  }

  #updateView(name: string): void {
    const { registry, view } = this.#options;
    const record = registry.get(name);
    if (!record) {
      this.#goneAt.delete(name);
      return view.remove(name);
    }
    const before = view.index.get(name);
    if (view.update(record, this.#object(name))) this.#options.onCapacity();
    const after = view.index.get(name);
    if (before?.draining === after?.draining && before?.ready === after?.ready) return;
    // It began to drain of its own accord, or lost its last worker: its heartbeats alone tell.
    this.#options.queue.add(name);
    this.#options.onRoomsAffected(name);
  }
}
