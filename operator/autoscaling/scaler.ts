/** What KEDA is told of a ScaledObject. Pure. */
import { z } from 'zod';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { ScaledObjectRef } from '#proto/externalscaler/externalscaler.ts';
import type { PodLabels } from './custom-metrics.ts';
import { matches, parseSelector, type Requirement } from './label-selector.ts';
import type { PodSample } from './pod-metrics.ts';

/** What a ScaledObject's trigger asks for. */
export interface Trigger {
  /** Streams that one pod is to carry. */
  readonly streamsPerPod: number;
  readonly namespace: string;
  readonly podSelector: readonly Requirement[];
}

const metadataSchema = z.object({
  streamsPerPod: z
    .string({ error: 'is missing; write the streams that one pod is to carry, such as 350' })
    .regex(/^[1-9]\d{0,8}$/, 'is no whole number of streams from 1 on'),
  namespace: z.string().optional(),
  podSelector: z.string().default(''),
});

/** @throws WeirError BadScalerMetadata naming the field */
export function triggerOf({ name, namespace, scalerMetadata }: ScaledObjectRef): Trigger {
  const where = `ScaledObject ${namespace}/${name}`;
  const refuse = (words: string) => new WeirError('BadScalerMetadata', `${where}: ${words}`, { where });
  const parsed = metadataSchema.safeParse(scalerMetadata);
  if (!parsed.success) {
    throw refuse(parsed.error.issues.map(({ path, message }) => `metadata.${path.join('.')} ${message}`).join('; '));
  }
  const { streamsPerPod, podSelector, namespace: given } = parsed.data;
  try {
    const selector = parseSelector(podSelector);
    return { streamsPerPod: Number(streamsPerPod), namespace: given || namespace, podSelector: selector };
  } catch (error) {
    throw refuse(`metadata.podSelector: ${messageOf(error)}`);
  }
}

/** What all pods of a trigger carry together. */
export interface Demand {
  readonly streams: number;
  readonly participants: number;
}

/** @param pod what is known of the pod of a namespace and name */
export function demandOf(
  { namespace, podSelector }: Trigger,
  samples: readonly PodSample[],
  pod: (namespace: string, name: string) => PodLabels | undefined,
): Demand {
  let [streams, participants] = [0, 0];
  for (const sample of samples) {
    const known = sample.namespace === namespace ? pod(namespace, sample.pod) : undefined;
    if (known?.uid !== sample.uid || !matches(podSelector, known.labels)) continue;
    streams += sample.values.sfu_streams;
    participants += sample.values.sfu_participants;
  }
  return { streams, participants };
}

/** Whether there is to be a pod at all. A Room that nobody is in yet needs one, or nobody could come. */
export function isActive({ streams, participants }: Demand, rooms: number): boolean {
  return rooms > 0 || streams > 0 || participants > 0;
}
