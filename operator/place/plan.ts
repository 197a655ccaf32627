/** What a pod is to be told of where it runs, from what Kubernetes says of its Node and of its Service. */
import { WeirError } from '#platform/errors.ts';

export type IpFamily = 'IPv4' | 'IPv6' | 'DualStack';

/** A Kubernetes Node, as far as it is looked at. */
export interface NodeObject {
  metadata: { name?: string; labels?: Record<string, string> };
  status?: { addresses?: { type: string; address: string }[] };
}

/** A Service of type LoadBalancer, as far as it is looked at. */
export interface ServiceObject {
  metadata: { name?: string; namespace?: string };
  status?: { loadBalancer?: { ingress?: { ip?: string; hostname?: string }[] } };
}

/** The pod that is told. */
export interface Pod {
  name: string;
  namespace: string;
  uid: string;
}

/** Label by which the Service of one pod finds it. */
export const podLabel = 'weir.dev/pod';

/** Region and zone by the names of the variables of an SFU node; what the Node does not have is left out. */
export function topologyOf(node: NodeObject): Record<string, string> {
  const { 'topology.kubernetes.io/region': region, 'topology.kubernetes.io/zone': zone } = node.metadata.labels ?? {};
  return { ...(region ? { WEIR_REGION: region } : {}), ...(zone ? { WEIR_ZONE: zone } : {}) };
}

/**
 * External addresses of a Node, the first of each wanted family, separated by commas.
 * @throws WeirError NoExternalAddress
 */
export function externalAddressOf(node: NodeObject, family: IpFamily): string {
  const external = (node.status?.addresses ?? []).filter(({ type }) => type === 'ExternalIP');
  const first = (isV6: boolean) => external.find(({ address }) => address.includes(':') === isV6)?.address;
  const wanted = [family === 'IPv6' ? undefined : first(false), family === 'IPv4' ? undefined : first(true)];
  const found = wanted.filter((address) => address !== undefined);
  if (found.length > 0) return found.join(',');
  const name = node.metadata.name ?? '';
  const words = `Kubernetes Node ${name} has no ExternalIP of ${family}: set sfuNode.media.announce to HostIP or Fixed, or give the Node one`;
  throw new WeirError('NoExternalAddress', words, { where: name });
}

/** Address of a Service that its load balancer has given it; undefined until then. */
export function loadBalancerAddressOf(service: ServiceObject): string | undefined {
  const [first] = service.status?.loadBalancer?.ingress ?? [];
  return first?.ip ?? first?.hostname;
}

/** The Service of one pod. The pod owns it, so it goes with the pod. */
export function serviceOf(
  pod: Pod,
  options: {
    ports: { min: number; max: number };
    ipFamily: IpFamily;
    loadBalancer: { class?: string; annotations: Record<string, string> };
  },
) {
  const { ports, ipFamily, loadBalancer } = options;
  const numbers = Array.from({ length: ports.max - ports.min + 1 }, (_, index) => ports.min + index);
  const families = ipFamily === 'DualStack' ? {} : { ipFamilies: [ipFamily] };
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      name: pod.name,
      namespace: pod.namespace,
      annotations: loadBalancer.annotations,
      labels: { 'app.kubernetes.io/part-of': 'weir', 'app.kubernetes.io/component': 'sfu-node' },
      ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: pod.name, uid: pod.uid }],
    },
    spec: {
      type: 'LoadBalancer',
      externalTrafficPolicy: 'Local',
      allocateLoadBalancerNodePorts: true,
      ipFamilyPolicy: ipFamily === 'DualStack' ? 'PreferDualStack' : 'SingleStack',
      ...families,
      ...(loadBalancer.class ? { loadBalancerClass: loadBalancer.class } : {}),
      // Clients are told the address before the pod is ready: it is, when they come.
      publishNotReadyAddresses: true,
      selector: { [podLabel]: pod.name },
      ports: numbers.flatMap((port) =>
        ['UDP', 'TCP'].map((protocol) => ({ name: `media-${protocol.toLowerCase()}-${port}`, protocol, port })),
      ),
    },
  };
}

/** A file of variables, as Node reads them with --env-file. */
export function environmentFile(variables: Readonly<Record<string, string>>): string {
  return Object.entries(variables)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('');
}
