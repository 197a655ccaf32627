/** Which of the nodes' pods a shrinking ReplicaSet is to take first. Pure. */
import type { NodeRecord } from '../../fleet/node-registry.ts';

/** A ReplicaSet takes pods with a lower figure here first. */
export const annotation = 'controller.kubernetes.io/pod-deletion-cost';

/** A pod's cost is written at most this often, milliseconds. */
export const intervalMs = 15_000;
/** Smaller changes than this share are not worth a write. */
const tellingShare = 0.1;

/** Costs that are not streams: what drains goes first of all, and hubs go last, as every node of a room hangs on them. */
const costs = { draining: -1, inUse: 1, hub: 1_000_000 } as const;

/** A pod, as far as its cost needs it. */
export interface PodCost {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** What its annotation says; undefined when it has none that is a number. */
  readonly cost: number | undefined;
  /** When this process last wrote it, milliseconds since the epoch; undefined when it did not. */
  readonly writtenAt: number | undefined;
}

/** A cost to write. */
export interface CostWrite {
  readonly pod: PodCost;
  readonly cost: number;
}

/** What a node's pod costs: its streams; more for a hub. A node that nobody hears costs what it did. */
export function deletionCost({ alive, heartbeat }: NodeRecord, isHub: boolean): number | undefined {
  if (!alive) return undefined;
  if (heartbeat.draining) return costs.draining;
  const { streams = 0, participants = 0 } = heartbeat.load ?? {};
  const ofStreams = Math.min(streams, costs.hub - 1);
  // Somebody who neither publishes nor subscribes is there all the same.
  return Math.max(ofStreams, participants > 0 ? costs.inUse : 0) + (isHub ? costs.hub : 0);
}

/**
 * The costs to write now.
 * @param hubs names of nodes that are the hub of a room
 * @param podOf the pod of a uid
 */
export function planDeletionCosts(
  nodes: Iterable<NodeRecord>,
  hubs: ReadonlySet<string>,
  podOf: (uid: string) => PodCost | undefined,
  now: number,
): CostWrite[] {
  return [...nodes].flatMap((record) => {
    const { node, pod: ref } = record.heartbeat;
    const pod = ref && podOf(ref.uid);
    const cost = deletionCost(record, hubs.has(node));
    if (!pod || cost === undefined || !isTelling(pod.cost, cost)) return [];
    if (pod.writtenAt !== undefined && now - pod.writtenAt < intervalMs) return [];
    return [{ pod, cost }];
  });
}

/** Whether the order in which pods go may depend on the change. A pod without the annotation counts as 0. */
function isTelling(before = 0, after: number): boolean {
  if (before === after) return false;
  const crosses = Math.sign(before) !== Math.sign(after) || before >= costs.hub !== after >= costs.hub;
  if (crosses) return true;
  const streams = (cost: number) => cost % costs.hub;
  return Math.abs(streams(after) - streams(before)) > tellingShare * streams(before);
}
