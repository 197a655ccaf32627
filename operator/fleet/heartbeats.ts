import { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { subjects } from '#platform/subjects.ts';
import type { NodeRegistry } from './node-registry.ts';

/** Node names are names of objects, tokens of subjects and names in certificates. */
const nodeName = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** Subjects whose bad heartbeats were told of, at most. */
const maxTold = 1000;

/**
 * Gives heartbeats to the registry. What is no heartbeat of the subject's node is dropped, and told of once a subject:
 * the next one comes in 200 ms.
 */
export function heartbeatReceiver(registry: Pick<NodeRegistry, 'heartbeat'>, log: Logger) {
  const told = new Set<string>();
  return ({ subject, data }: { subject: string; data: Uint8Array }): void => {
    let heartbeat: Heartbeat;
    try {
      heartbeat = parseHeartbeat(subject, data);
    } catch (error) {
      if (told.has(subject) || told.size >= maxTold) return;
      told.add(subject);
      return log.warn({ subject, reason: messageOf(error) }, 'Heartbeats of this subject are dropped');
    }
    told.delete(subject);
    registry.heartbeat(heartbeat);
  };
}

/** @throws WeirError BadHeartbeat, or what decoding throws */
export function parseHeartbeat(subject: string, data: Uint8Array): Heartbeat {
  const heartbeat = Heartbeat.decode(data);
  const { node, instance, region } = heartbeat;
  // A node's NATS permissions cover its own subject alone, so the subject is what can be believed.
  if (!nodeName.test(node) || subject !== subjects.heartbeat(node)) {
    throw new WeirError('BadHeartbeat', `node "${node}" does not belong on ${subject}; a node's name is a DNS label`);
  }
  if (instance === '' || !nodeName.test(region)) {
    throw new WeirError('BadHeartbeat', `instance "${instance}" or region "${region}" is missing or not a DNS label`);
  }
  return heartbeat;
}
