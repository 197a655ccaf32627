import type { SfuNode } from '#crds/sfunode.ts';
import type { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';

export type SfuNodeStatus = NonNullable<SfuNode['status']>;
type Condition = NonNullable<SfuNodeStatus['conditions']>[number];
type Told = Omit<Condition, 'type' | 'lastTransitionTime'>;

/** Everything that a decision about one SfuNode looks at. */
export interface SfuNodeSnapshot {
  readonly name: string;
  readonly namespace: string;
  readonly object: SfuNode | undefined;
  /** Newest heartbeat; undefined when the node was never heard of. */
  readonly heartbeat: Heartbeat | undefined;
  readonly alive: boolean;
  /** When it was last heard, milliseconds since the epoch; undefined when it never was. */
  readonly lastSeen: number | undefined;
  /** There was time to hear of it. */
  readonly settled: boolean;
  /** When its SfuNode was last seen to go, milliseconds since the epoch; undefined when it never was. */
  readonly goneAt: number | undefined;
  /** When its status was last written by this process; 0 for never. */
  readonly statusWrittenAt: number;
  /** The node was told to drain (true) or not (false); undefined when it was told nothing yet. */
  readonly toldToDrain: boolean | undefined;
  /** An SfuNode without a pod is removed when it was silent for so long, milliseconds. */
  readonly removeAfterMs: number;
  readonly now: number;
}

export type SfuNodeAction =
  | { readonly type: 'create'; readonly object: SfuNode }
  | { readonly type: 'patchSpec'; readonly spec: { region: string; zone?: string } }
  | {
      readonly type: 'writeStatus';
      readonly status: SfuNodeStatus;
      readonly event?: NodeEvent;
    }
  | { readonly type: 'drain'; readonly drain: boolean }
  | { readonly type: 'remove'; readonly reason: string; readonly message: string };

export interface SfuNodePlan {
  readonly actions: readonly SfuNodeAction[];
  readonly requeueAfterMs?: number;
}

/** Figures in the status change at most this often, milliseconds; conditions change at once. */
export const statusIntervalMs = 5000;
/** Longer than a node that is gone counts as alive, milliseconds. */
const againAfterMs = 2000;
/** CPU share (0..1) from which a node is called overloaded. */
const overloadedCpu = 0.9;

/** Decides the next steps for one SfuNode. */
export function planSfuNode(snapshot: SfuNodeSnapshot): SfuNodePlan {
  const { object, heartbeat, alive, now } = snapshot;
  if (!object) return planNew(snapshot);
  if (object.metadata.deletionTimestamp) return { actions: [] };
  if (!heartbeat) return planUnheard(snapshot, object);
  const { region, zone } = heartbeat;
  if (object.spec.region !== region || (object.spec.zone ?? '') !== zone) {
    return { actions: [{ type: 'patchSpec', spec: { region, zone: zone || undefined } }] };
  }
  const actions: SfuNodeAction[] = [];
  if (alive) actions.push(...planDrain(snapshot, object, heartbeat));
  const removal = planRemoval(snapshot, object);
  if (removal.actions.length > 0) return removal;
  const status = statusOf(snapshot, object, heartbeat);
  const conditionsChanged =
    sameConditions(status, object.status) === false || status.instance !== object.status?.instance;
  const wait = snapshot.statusWrittenAt + statusIntervalMs - now;
  const changed = JSON.stringify(status) !== JSON.stringify(sorted(status, object.status));
  if (conditionsChanged || (changed && wait <= 0)) {
    actions.push({ type: 'writeStatus', status, event: eventOf(status, object.status) });
  }
  const waits = [
    changed && wait > 0 ? wait : undefined,
    alive ? statusIntervalMs : undefined,
    removal.requeueAfterMs,
  ].filter((ms) => ms !== undefined);
  return { actions, requeueAfterMs: waits.length > 0 ? Math.min(...waits) : undefined };
}

/** A node that drains of its own accord (it was told to end) is not told to stop that. */
function planDrain({ toldToDrain }: SfuNodeSnapshot, object: SfuNode, heartbeat: Heartbeat): SfuNodeAction[] {
  const drain = object.spec.drain ?? false;
  if (drain) return (toldToDrain ?? heartbeat.draining) ? [] : [{ type: 'drain', drain }];
  const draining = object.status?.conditions?.find(({ type }) => type === 'Draining');
  const byUs = toldToDrain ?? (draining?.status === 'True' && draining.reason === 'DrainRequested');
  return byUs && heartbeat.draining ? [{ type: 'drain', drain }] : [];
}

/**
 * An SfuNode that went is made again only when its node is heard on: it goes with its pod, of which the last words may come
 * later.
 */
function planNew(snapshot: SfuNodeSnapshot): SfuNodePlan {
  const { heartbeat, alive, goneAt = 0, now } = snapshot;
  if (!heartbeat || !alive) return { actions: [] };
  const wait = goneAt + againAfterMs - now;
  if (wait > 0) return { actions: [], requeueAfterMs: wait };
  return { actions: [{ type: 'create', object: newObject(snapshot, heartbeat) }] };
}

function newObject({ name, namespace }: SfuNodeSnapshot, heartbeat: Heartbeat): SfuNode {
  const { pod, region, zone, labels } = heartbeat;
  const owned = pod && pod.namespace === namespace;
  return {
    apiVersion: 'weir.dev/v1alpha1',
    kind: 'SfuNode',
    metadata: {
      name,
      namespace,
      labels,
      ownerReferences: owned ? [{ apiVersion: 'v1', kind: 'Pod', name: pod.name, uid: pod.uid }] : undefined,
    },
    spec: { region, zone: zone || undefined },
  };
}

function planUnheard(snapshot: SfuNodeSnapshot, object: SfuNode): SfuNodePlan {
  if (!snapshot.settled) return { actions: [], requeueAfterMs: 500 };
  const removal = planRemoval(snapshot, object);
  if (removal.actions.length > 0) return removal;
  const ready = {
    status: 'False',
    reason: 'HeartbeatLost',
    message: 'The node was not heard of since the operator started. Is its process up, and NATS reachable for it?',
  } as const;
  const status = { ...object.status, conditions: conditions(snapshot, object, { Ready: ready }) };
  const changed = !sameConditions(status, object.status);
  return {
    actions: changed ? [{ type: 'writeStatus', status, event: eventOf(status, object.status) }] : [],
    requeueAfterMs: removal.requeueAfterMs,
  };
}

/** A node that a pod runs goes with its pod; another one when it was silent for long. */
function planRemoval({ object: _, ...snapshot }: SfuNodeSnapshot, object: SfuNode): SfuNodePlan {
  if (snapshot.alive || object.metadata.ownerReferences?.length) return { actions: [] };
  const lost = object.status?.conditions?.find(({ type, status }) => type === 'Ready' && status === 'False');
  const since = Math.max(snapshot.lastSeen ?? 0, lost ? Date.parse(lost.lastTransitionTime) : snapshot.now);
  const wait = since + snapshot.removeAfterMs - snapshot.now;
  if (wait > 0) return { actions: [], requeueAfterMs: wait };
  return {
    actions: [
      { type: 'remove', reason: 'Silent', message: `Not heard of for ${Math.round(snapshot.removeAfterMs / 1000)} s.` },
    ],
  };
}

function statusOf(snapshot: SfuNodeSnapshot, object: SfuNode, heartbeat: Heartbeat): SfuNodeStatus {
  const { load, capacity } = heartbeat;
  const cpu = load?.cpu ?? 0;
  const asked = object.spec.drain ?? false;
  const drain = heartbeat.draining || asked;
  const streams = load?.streams ?? 0;
  const full = capacity !== undefined && streams >= capacity.streams;
  return {
    observedGeneration: object.metadata.generation ?? 1,
    instance: heartbeat.instance,
    url: heartbeat.url,
    controlAddress: heartbeat.controlAddress,
    addresses: heartbeat.addresses,
    workers: load?.workers ?? 0,
    rooms: load?.rooms ?? 0,
    participants: load?.participants ?? 0,
    streams,
    cpu: `${Math.round(cpu * 100)}%`,
    capacity: capacity && { streams: capacity.streams, mbps: capacity.mbps },
    version: heartbeat.version,
    conditions: conditions(snapshot, object, {
      Ready: readyOf(snapshot, heartbeat),
      Draining: drain
        ? {
            status: 'True',
            reason: asked ? 'DrainRequested' : 'NodeEnding',
            message: `${load?.rooms ?? 0} rooms are still here.`,
          }
        : { status: 'False', reason: 'NotDraining', message: 'Rooms may be placed here.' },
      Overloaded:
        cpu >= overloadedCpu || full
          ? {
              status: 'True',
              reason: full ? 'StreamsExhausted' : 'CpuHigh',
              message: `${streams} of ${capacity?.streams ?? 0} streams, CPU ${Math.round(cpu * 100)} %.`,
            }
          : { status: 'False', reason: 'WithinCapacity', message: 'There is capacity left.' },
      ...loweredOf(heartbeat),
    }),
  };
}

const reasonPattern = /^[A-Z][A-Za-z]{0,63}$/;

/** Whether the node takes fewer streams than it was set up for; nothing of a node that does not tell. */
function loweredOf({ capacity, configured, limitedBy }: Heartbeat): Record<string, Told> {
  if (!configured || !capacity) return {};
  const told: Told =
    limitedBy === ''
      ? { status: 'False', reason: 'AsConfigured', message: `It carries ${configured.streams} streams.` }
      : {
          status: 'True',
          // A node's own word: what Kubernetes would refuse as a reason must not keep the status from being written.
          reason: reasonPattern.test(limitedBy) ? limitedBy : 'Strained',
          message: `It takes ${capacity.streams} streams in place of ${configured.streams} until it is at ease.`,
        };
  return { CapacityLowered: told };
}

function readyOf({ alive, now, lastSeen }: SfuNodeSnapshot, heartbeat: Heartbeat): Told {
  if (heartbeat.leaving) return { status: 'False', reason: 'NodeLeft', message: 'Its process has ended in order.' };
  if (!alive) {
    const at = new Date(lastSeen ?? now).toISOString();
    return {
      status: 'False',
      reason: 'HeartbeatLost',
      message: `Last heard at ${at}. Its rooms are placed on other nodes.`,
    };
  }
  if ((heartbeat.load?.workers ?? 0) === 0) {
    return { status: 'False', reason: 'NoWorkers', message: 'No media worker is alive on the node; its log says why.' };
  }
  return { status: 'True', reason: 'Heartbeating', message: 'Heartbeats arrive.' };
}

function conditions({ now }: SfuNodeSnapshot, object: SfuNode, wanted: Record<string, Told>): Condition[] {
  const at = new Date(now).toISOString().replace(/\.\d+Z$/, 'Z');
  const kept = (object.status?.conditions ?? []).filter(({ type }) => !(type in wanted));
  const made = Object.entries(wanted).map(([type, condition]): Condition => {
    const old = object.status?.conditions?.find((other) => other.type === type);
    const lastTransitionTime = old?.status === condition.status ? old.lastTransitionTime : at;
    return { type, ...condition, observedGeneration: object.metadata.generation ?? 1, lastTransitionTime };
  });
  return [...kept, ...made];
}

/** Conditions say the same, apart from figures in their messages. */
function sameConditions(a: SfuNodeStatus, b: SfuNodeStatus | undefined): boolean {
  const words = (status: SfuNodeStatus | undefined) =>
    (status?.conditions ?? [])
      .map(({ type, status: is, reason, observedGeneration }) => `${type} ${is} ${reason} ${observedGeneration}`)
      .sort()
      .join();
  return words(a) === words(b);
}

/** The stored status with its keys in the order of the new one, so that both can be compared as text. */
function sorted(order: SfuNodeStatus, status: SfuNodeStatus | undefined): unknown {
  const same = (model: unknown, value: unknown): unknown => {
    if (Array.isArray(model) && Array.isArray(value)) return value.map((part, index) => same(model[index], part));
    if (typeof model !== 'object' || model === null || typeof value !== 'object' || value === null) return value;
    const keys = [...new Set([...Object.keys(model), ...Object.keys(value)])];
    return Object.fromEntries(
      keys.map((key) => [key, same((model as Record<string, unknown>)[key], (value as Record<string, unknown>)[key])]),
    );
  };
  return same(order, status);
}

interface NodeEvent {
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  readonly message: string;
}

/** What of a new status a person would want to know: readiness first. */
function eventOf(after: SfuNodeStatus, before: SfuNodeStatus | undefined): NodeEvent | undefined {
  return readyEvent(after, before) ?? loweredEvent(after, before);
}

function readyEvent(after: SfuNodeStatus, before: SfuNodeStatus | undefined): NodeEvent | undefined {
  const [now, then] = [conditionOf(after, 'Ready'), conditionOf(before, 'Ready')];
  if (!now || now.status === then?.status) return undefined;
  return now.status === 'True'
    ? { type: 'Normal', reason: 'NodeReady', message: now.message }
    : now.reason === 'NodeLeft'
      ? { type: 'Normal', reason: 'NodeLeft', message: now.message }
      : { type: 'Warning', reason: 'NodeNotReady', message: now.message };
}

function loweredEvent(after: SfuNodeStatus, before: SfuNodeStatus | undefined): NodeEvent | undefined {
  const [now, then] = [conditionOf(after, 'CapacityLowered'), conditionOf(before, 'CapacityLowered')];
  if (!now || now.status === (then?.status ?? 'False')) return undefined;
  return now.status === 'True'
    ? { type: 'Warning', reason: 'CapacityLowered', message: `${now.reason}: ${now.message}` }
    : { type: 'Normal', reason: 'CapacityRestored', message: now.message };
}

function conditionOf(status: SfuNodeStatus | undefined, type: string): Condition | undefined {
  return status?.conditions?.find((each) => each.type === type);
}
