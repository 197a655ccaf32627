import { z } from 'zod';
import { fields, readConfig } from '#platform/config.ts';
import { WeirError } from '#platform/errors.ts';

/** Addresses that a pod may announce and that have to be looked up. Others are known without this program. */
const lookedUp = ['NodeExternalIP', 'LoadBalancer'] as const;

const shape = {
  WEIR_LOG_LEVEL: fields.logLevel(),
  WEIR_LOG_FORMAT: fields.logFormat(),
  WEIR_PLACE_FILE: fields.text('the file to write the variables of the node to'),
  WEIR_PLACE_NODE: fields.text('the name of the Kubernetes Node'),
  WEIR_PLACE_TOPOLOGY: z.enum(['true', 'false']).default('false'),
  WEIR_PLACE_ADDRESS: fields.text(`what is announced: ${lookedUp.join(', ')} are looked up`).default('PodIP'),
  WEIR_PLACE_IP_FAMILY: z.enum(['IPv4', 'IPv6', 'DualStack']).default('IPv4'),
  WEIR_PLACE_PORTS: fields.portRange('the media ports'),
  WEIR_PLACE_LOAD_BALANCER_CLASS: fields.text('the loadBalancerClass').optional(),
  WEIR_PLACE_LOAD_BALANCER_ANNOTATIONS: z.string().default('{}'),
  WEIR_POD_NAME: fields.text("the pod's name"),
  WEIR_POD_NAMESPACE: fields.text("the pod's namespace"),
  WEIR_POD_UID: fields.text("the pod's uid"),
  WEIR_POD_IP: fields.text("the pod's IP address"),
};

/** Settings of the program, from its environment. */
export type PlaceConfig = ReturnType<typeof readPlaceConfig>;

/** @throws WeirError BadConfiguration naming every wrong variable */
export function readPlaceConfig(env: Readonly<Record<string, string | undefined>>) {
  const values = readConfig(shape, env);
  return {
    log: { level: values.WEIR_LOG_LEVEL, format: values.WEIR_LOG_FORMAT },
    file: values.WEIR_PLACE_FILE,
    node: values.WEIR_PLACE_NODE,
    topology: values.WEIR_PLACE_TOPOLOGY === 'true',
    address: lookedUp.find((name) => name === values.WEIR_PLACE_ADDRESS),
    ipFamily: values.WEIR_PLACE_IP_FAMILY,
    ports: values.WEIR_PLACE_PORTS,
    loadBalancer: {
      class: values.WEIR_PLACE_LOAD_BALANCER_CLASS,
      annotations: readAnnotations(values.WEIR_PLACE_LOAD_BALANCER_ANNOTATIONS),
    },
    pod: { name: values.WEIR_POD_NAME, namespace: values.WEIR_POD_NAMESPACE, uid: values.WEIR_POD_UID },
  };
}

function readAnnotations(text: string): Record<string, string> {
  try {
    return z.record(z.string(), z.string()).parse(JSON.parse(text));
  } catch (error) {
    const words = 'WEIR_PLACE_LOAD_BALANCER_ANNOTATIONS: write a JSON object of strings';
    throw new WeirError('BadConfiguration', words, { where: 'environment', cause: error });
  }
}
