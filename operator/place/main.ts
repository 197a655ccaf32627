/** Finds out where an SFU node's pod runs, for what the downward API cannot say, and ends. An init container. */
import { rename, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeConfig } from '@kubernetes/client-node';
import { codeOf, messageOf } from '#platform/errors.ts';
import { createLogger, type Logger } from '#platform/log.ts';
import { isAlreadyExists, loadKubeConfig, ResourceClient } from '../runtime/kube.ts';
import { readPlaceConfig, type PlaceConfig } from './config.ts';
import {
  environmentFile,
  externalAddressOf,
  loadBalancerAddressOf,
  podLabel,
  serviceOf,
  topologyOf,
  type NodeObject,
  type ServiceObject,
} from './plan.ts';

const core = { group: '', version: 'v1' };
const askAgainMs = 1000;

async function findPlace(config: PlaceConfig, kubeConfig: KubeConfig, log: Logger): Promise<Record<string, string>> {
  const variables: Record<string, string> = {};
  if (config.topology || config.address === 'NodeExternalIP') {
    const node = await new ResourceClient<NodeObject>({ ...core, plural: 'nodes', kubeConfig }).get(config.node);
    if (config.topology) Object.assign(variables, topologyOf(node));
    if (config.address === 'NodeExternalIP')
      variables['WEIR_MEDIA_ANNOUNCED_ADDRESS'] = externalAddressOf(node, config.ipFamily);
  }
  if (config.address === 'LoadBalancer')
    variables['WEIR_MEDIA_ANNOUNCED_ADDRESS'] = await balance(config, kubeConfig, log);
  return variables;
}

/** Makes the Service of this pod, and waits for its address. */
async function balance(config: PlaceConfig, kubeConfig: KubeConfig, log: Logger): Promise<string> {
  const { name, namespace } = config.pod;
  const pods = new ResourceClient<{ metadata: object }>({ ...core, plural: 'pods', kubeConfig });
  const services = new ResourceClient<ServiceObject>({ ...core, plural: 'services', kubeConfig });
  await pods.patchMerge(name, namespace, { metadata: { labels: { [podLabel]: name } } });
  await services.create(serviceOf(config.pod, config)).catch((error: unknown) => {
    if (!isAlreadyExists(error)) throw error;
  });
  for (let said = false; ; said = true) {
    const address = loadBalancerAddressOf(await services.get(name, namespace));
    if (address !== undefined) return address;
    if (!said) log.info({ service: name }, 'Waiting for the address of the load balancer');
    await sleep(askAgainMs);
  }
}

try {
  const config = readPlaceConfig(process.env);
  const log = createLogger({ name: 'place', ...config.log });
  const variables = await findPlace(config, loadKubeConfig(), log);
  await writeFile(`${config.file}.tmp`, environmentFile(variables));
  await rename(`${config.file}.tmp`, config.file);
  log.info(variables, 'Where this pod is');
  process.exit(0);
} catch (error) {
  process.stderr.write(`place: ${codeOf(error)}: ${messageOf(error)}\n`);
  process.exit(1);
}
