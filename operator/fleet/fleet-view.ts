import type { SfuNode } from '#crds/sfunode.ts';
import { FleetIndex } from '#core/placement/mod.ts';
import type { NodeView, Strategy } from '#core/model.ts';
import type { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
import type { NodeRecord } from './node-registry.ts';

const defaultCost = 100;
/** Fewer joins than this in the last minute say nothing about a node. */
const tellingJoins = 3;

/** A node as placement sees it: what it tells, and what an administrator wants of it. */
export function nodeView(record: Pick<NodeRecord, 'heartbeat' | 'alive'>, object: SfuNode | undefined): NodeView {
  const { heartbeat, alive } = record;
  const spec = object?.spec;
  return {
    name: heartbeat.node,
    region: heartbeat.region,
    zone: heartbeat.zone,
    // A label that an administrator sets on the SfuNode goes before what the node says.
    labels: { ...heartbeat.labels, ...object?.metadata.labels },
    ready: alive && (heartbeat.load?.workers ?? 0) > 0,
    unschedulable: spec?.unschedulable ?? false,
    draining: heartbeat.draining || (spec?.drain ?? false),
    capacity: capacityOf(heartbeat, spec),
    load: {
      streams: heartbeat.load?.streams ?? 0,
      mbps: heartbeat.load?.mbps ?? 0,
      cpu: heartbeat.load?.cpu ?? 0,
    },
    reliability: { joinSuccess: joinSuccess(heartbeat), linkLoss: heartbeat.reliability?.linkLoss ?? 0 },
    cost: spec?.cost ?? defaultCost,
  };
}

/** The lower of what the node advertises and what an administrator allows. */
export function capacityOf(heartbeat: Heartbeat, spec: SfuNode['spec'] | undefined): { streams: number; mbps: number } {
  const { streams = 0, mbps = 0 } = heartbeat.capacity ?? {};
  return {
    streams: Math.min(streams, spec?.capacity?.streams ?? Infinity),
    mbps: Math.min(mbps, spec?.capacity?.mbps ?? Infinity),
  };
}

function joinSuccess({ reliability }: Heartbeat): number {
  const { joinsSucceeded = 0, joinsFailed = 0 } = reliability ?? {};
  const all = joinsSucceeded + joinsFailed;
  return all < tellingJoins ? 1 : joinsSucceeded / all;
}

/** The fleet for placement, kept in step with the registry and the SfuNodes. */
export class FleetView {
  readonly index: FleetIndex;
  readonly #last = new Map<string, string>();

  constructor(strategy: Strategy) {
    this.index = new FleetIndex(strategy);
  }

  /** Takes the newest of a node; true when it may take rooms now that it could not before. */
  update(record: Pick<NodeRecord, 'heartbeat' | 'alive'>, object: SfuNode | undefined): boolean {
    const view = nodeView(record, object);
    this.index.update(view);
    const { name, ready, unschedulable, draining, capacity, labels, region } = view;
    const eligibility = JSON.stringify([ready, unschedulable, draining, capacity, labels, region]);
    const changed = this.#last.get(name) !== eligibility;
    this.#last.set(name, eligibility);
    return changed && ready && !unschedulable && !draining;
  }

  remove(name: string): void {
    this.index.remove(name);
    this.#last.delete(name);
  }
}
