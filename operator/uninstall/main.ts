/**
 * What helm cannot take away when a release goes: the Lease, which operators make, and finalizers of Rooms, for which no
 * operator is left. A Job of the chart, after everything else is gone. With the CRDs kept, Rooms are left as they are.
 */
import { z } from 'zod';
import { rooms, type Room } from '#crds/room.ts';
import { fields, readConfig } from '#platform/config.ts';
import { codeOf, messageOf } from '#platform/errors.ts';
import { createLogger, type Logger } from '#platform/log.ts';
import { isNotFound, loadKubeConfig, ResourceClient, type KubeObject } from '../runtime/kube.ts';

const leaseName = 'weir-operator';

const shape = {
  WEIR_LOG_FORMAT: fields.logFormat(),
  WEIR_NAMESPACE: fields.text('the namespace of the Lease'),
  WEIR_UNINSTALL_ROOMS: z.enum(['true', 'false']).default('false'),
};

function ignoreMissing(error: unknown): void {
  if (!isNotFound(error)) throw error;
}

/** Lets the API server remove Rooms that it waits with. */
async function releaseRooms(client: ResourceClient<Room & KubeObject>, log: Logger): Promise<void> {
  const waiting = (await client.list()).filter(({ metadata }) => (metadata.finalizers ?? []).length > 0);
  for (const { metadata } of waiting) {
    const body = { metadata: { finalizers: null } };
    await client.patchMerge(metadata.name ?? '', metadata.namespace, body).catch(ignoreMissing);
  }
  if (waiting.length > 0) log.info({ rooms: waiting.length }, 'Rooms go with their definition');
}

try {
  const values = readConfig(shape, process.env);
  const log = createLogger({ name: 'uninstall', format: values.WEIR_LOG_FORMAT });
  const kubeConfig = loadKubeConfig();
  const leases = new ResourceClient<KubeObject>({
    ...{ group: 'coordination.k8s.io', version: 'v1', plural: 'leases' },
    kubeConfig,
  });
  await leases.delete(leaseName, values.WEIR_NAMESPACE).catch(ignoreMissing);
  if (values.WEIR_UNINSTALL_ROOMS === 'true')
    await releaseRooms(new ResourceClient({ ...rooms, kubeConfig }), log).catch(ignoreMissing);
  process.exit(0);
} catch (error) {
  process.stderr.write(`uninstall: ${codeOf(error)}: ${messageOf(error)}\n`);
  process.exit(1);
}
