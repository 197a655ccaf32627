import { usedShare } from '#core/placement/mod.ts';
import type { SfuNode } from '#crds/sfunode.ts';
import { nodeView } from '../fleet/fleet-view.ts';
import type { NodeRecord } from '../fleet/node-registry.ts';

/** Metrics of pods that others scale by. */
export const metricNames = ['sfu_streams', 'sfu_participants', 'sfu_load_percent'] as const;
export type MetricName = (typeof metricNames)[number];

/** What one sfu-node pod carries. */
export interface PodSample {
  readonly namespace: string;
  readonly pod: string;
  readonly uid: string;
  /** What values can be selected by. */
  readonly labels: { readonly node: string; readonly region: string; readonly zone: string };
  /** When the node said so, milliseconds since the epoch. */
  readonly at: number;
  /** Whole numbers. */
  readonly values: Readonly<Record<MetricName, number>>;
}

/**
 * A sample of each pod whose node is heard.
 * @param object the SfuNode of a node's name, for the capacity that an administrator allows
 */
export function podSamples(nodes: Iterable<NodeRecord>, object: (node: string) => SfuNode | undefined): PodSample[] {
  const samples = new Map<string, PodSample>();
  for (const record of nodes) {
    const { pod, node, region, zone, load } = record.heartbeat;
    if (!record.alive || !pod?.uid) continue;
    const newer = samples.get(pod.uid);
    // Two nodes of one pod: the one that was heard last runs there.
    if (newer && newer.at > record.lastSeen) continue;
    const view = nodeView(record, object(node));
    const values = {
      sfu_streams: load?.streams ?? 0,
      sfu_participants: load?.participants ?? 0,
      sfu_load_percent: Math.round(100 * usedShare(view)),
    };
    const labels = { node, region, zone };
    const { namespace, name, uid } = pod;
    samples.set(uid, { namespace, pod: name, uid, labels, at: record.lastSeen, values });
  }
  return [...samples.values()];
}

export function isMetric(name: string): name is MetricName {
  return (metricNames as readonly string[]).includes(name);
}
