/**
 * What helm cannot take away when a release goes: Rooms, which only an operator lets go, and the Lease, which operators
 * make. A Job of the chart, before and after everything else goes. With the CRDs kept, Rooms are left as they are.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { rooms, type Room } from '#crds/room.ts';
import { fields, readConfig } from '#platform/config.ts';
import { codeOf, messageOf } from '#platform/errors.ts';
import { createLogger, type Logger } from '#platform/log.ts';
import { isNotFound, loadKubeConfig, ResourceClient, type KubeObject } from '../runtime/kube.ts';

const leaseName = 'weir-operator';

/** How often it is looked whether Rooms are gone, milliseconds, and how many times at most. */
const lookAgainMs = 500;
const patience = 60;

const shape = {
  WEIR_LOG_FORMAT: fields.logFormat(),
  WEIR_NAMESPACE: fields.text('the namespace of the Lease'),
  WEIR_UNINSTALL_ROOMS: z.enum(['true', 'false']).default('false'),
};

function ignoreMissing(error: unknown): void {
  if (!isNotFound(error)) throw error;
}

/** Deletes all Rooms and waits until operators have let them go; those that they do not are let go of here. */
async function deleteRooms(client: ResourceClient<Room & KubeObject>, log: Logger): Promise<void> {
  const found = await client.list();
  for (const { metadata } of found) await client.delete(metadata.name ?? '', metadata.namespace).catch(ignoreMissing);
  let left = found;
  for (let looks = 0; left.length > 0 && looks < patience; looks++) {
    await sleep(lookAgainMs);
    left = await client.list();
  }
  for (const { metadata } of left) {
    const body = { metadata: { finalizers: null } };
    await client.patchMerge(metadata.name ?? '', metadata.namespace, body).catch(ignoreMissing);
  }
  if (found.length > 0) log.info({ rooms: found.length, leftByOperators: left.length }, 'Rooms are deleted');
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
    // After the release is gone there is no such resource any more.
    await deleteRooms(new ResourceClient({ ...rooms, kubeConfig }), log).catch(ignoreMissing);
  process.exit(0);
} catch (error) {
  process.stderr.write(`uninstall: ${codeOf(error)}: ${messageOf(error)}\n`);
  process.exit(1);
}
