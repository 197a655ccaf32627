import type { SfuNode } from '#crds/sfunode.ts';
import { FleetIndex } from '#core/placement/mod.ts';
import type { NodeView, Strategy } from '#core/model.ts';
import type { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
import { creationTime } from '../runtime/kube.ts';
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

/** Labels by which nodes tell of which Deployment their pods are, and of which of its templates. */
const poolLabel = 'weir.dev/pool';
const templateLabel = 'weir.dev/pod-template';

/** What is known of one node. */
interface Seen {
  view: NodeView;
  /** When its SfuNode was made, milliseconds since the epoch; Infinity before it was. */
  madeAt: number;
}

/** The fleet for placement, kept in step with the registry and the SfuNodes. */
export class FleetView {
  readonly index: FleetIndex;
  readonly #last = new Map<string, string>();
  readonly #seen = new Map<string, Seen>();
  /** The template of the newest node of each pool: nodes of others are about to be replaced. */
  readonly #templates = new Map<string, string>();

  constructor(strategy: Strategy) {
    this.index = new FleetIndex(strategy);
  }

  /** Takes the newest of a node; true when it may take rooms now that it could not before. */
  update(record: Pick<NodeRecord, 'heartbeat' | 'alive'>, object: SfuNode | undefined): boolean {
    const view = this.#withOutgoing(nodeView(record, object), object);
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
    const pool = this.#seen.get(name)?.view.labels[poolLabel];
    this.#seen.delete(name);
    if (pool !== undefined) this.#findTemplate(pool);
  }

  #withOutgoing(view: NodeView, object: SfuNode | undefined): NodeView {
    const { [poolLabel]: pool, [templateLabel]: template } = view.labels;
    if (pool === undefined || template === undefined) return view;
    const madeAt = (object && creationTime(object)) ?? Infinity;
    const before = this.#seen.get(view.name);
    this.#seen.set(view.name, { view, madeAt });
    // Most reports change nothing of this.
    if (before?.madeAt !== madeAt || before.view.labels[templateLabel] !== template) this.#findTemplate(pool);
    return { ...view, outgoing: template !== this.#templates.get(pool) };
  }

  /** Looks which template of a pool is the newest, and marks the nodes of others when that has changed. */
  #findTemplate(pool: string): void {
    const members = [...this.#seen.values()].filter(({ view }) => view.labels[poolLabel] === pool);
    const newest = members.reduce<Seen | undefined>((a, b) => (!a || b.madeAt > a.madeAt ? b : a), undefined);
    const template = newest?.view.labels[templateLabel];
    if (template === this.#templates.get(pool)) return;
    if (template === undefined) this.#templates.delete(pool);
    else this.#templates.set(pool, template);
    for (const { view } of members) this.index.update({ ...view, outgoing: view.labels[templateLabel] !== template });
  }
}
