import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { parseAllDocuments, stringify } from 'yaml';
import { locateClusterBinaries } from '#tools/cluster/binaries.ts';
import { projectRoot } from '#tools/local/leftovers.ts';

const run = promisify(execFile);

/** Directory of the chart. */
export const chart = join(projectRoot, 'helm/weir');

/** Values of the chart, as far as a test changes them. */
export type Values = Record<string, unknown>;

/** An object of Kubernetes, as a template has it. */
export interface KubernetesObject {
  apiVersion: string;
  kind: string;
  metadata: {
    name: string;
    namespace?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
  // What else there is differs by kind; tests look at it by path.
  [field: string]: unknown;
}

/** Where helm is, or undefined: the set-up's, or one in PATH. */
export function findHelm(): string | undefined {
  try {
    return locateClusterBinaries().helm;
  } catch {
    const directories = (process.env['PATH'] ?? '').split(delimiter);
    return directories.map((directory) => join(directory, 'helm')).find((path) => existsSync(path));
  }
}

/** Why tests of the chart are skipped, or false. */
export const skip = findHelm() === undefined ? 'helm is missing: run make cluster, or put one into PATH' : false;

/** Runs helm with values in a file, and returns what it printed. Rejects with what it said on stderr. */
export async function helm(args: readonly string[], values: Values = {}): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'weir-chart-'));
  const file = join(directory, 'values.yaml');
  try {
    await writeFile(file, stringify(values));
    const options = { maxBuffer: 64 * 1024 * 1024, env: { ...process.env, HELM_CACHE_HOME: directory } };
    return (await run(findHelm() ?? 'helm', [...args, '--values', file], options)).stdout;
  } catch (error) {
    throw new Error((error as { stderr?: string }).stderr ?? String(error), { cause: error });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** YAML of the release `weir` in the namespace weir-system. */
export async function templateText(values: Values = {}, args: readonly string[] = []): Promise<string> {
  return await helm(
    ['template', 'weir', chart, '--namespace', 'weir-system', '--kube-version', '1.36.0', ...args],
    values,
  );
}

/** Objects of the release `weir` in the namespace weir-system. */
export async function template(values: Values = {}, args: readonly string[] = []): Promise<KubernetesObject[]> {
  const text = await templateText(values, args);
  return parseAllDocuments(text)
    .map((document) => document.toJS() as KubernetesObject | null)
    .filter((object) => object !== null);
}

/** What stands at a path of an object, such as `spec.template.spec.containers.0.env`. */
export function at(object: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], object);
}

/** The one object of a kind and name. Throws when it is not there. */
export function find(objects: readonly KubernetesObject[], kind: string, name: string): KubernetesObject {
  const found = objects.find((object) => object.kind === kind && object.metadata.name === name);
  if (found) return found;
  const names = objects.filter((object) => object.kind === kind).map(({ metadata }) => metadata.name);
  throw new Error(`there is no ${kind} ${name}, only ${names.join(', ')}`);
}

/** A container of a pod, as far as tests look. */
export interface Container {
  name: string;
  image: string;
  command?: string[];
  env?: { name: string; value?: string; valueFrom?: unknown }[];
  ports?: { name: string; containerPort: number; hostPort?: number; protocol?: string }[];
  securityContext?: Record<string, unknown>;
  resources?: unknown;
  volumeMounts?: { name: string; mountPath: string }[];
  startupProbe?: Probe;
  livenessProbe?: Probe;
  readinessProbe?: Probe;
  lifecycle?: { preStop?: { exec: { command: string[] } } };
}

interface Probe {
  httpGet: { path: string; port: string };
}

/** What a pod is made from. */
export interface PodTemplate {
  metadata: { labels: Record<string, string>; annotations?: Record<string, string> };
  spec: {
    containers: Container[];
    initContainers?: Container[];
    serviceAccountName?: string;
    automountServiceAccountToken?: boolean;
    hostNetwork?: boolean;
    securityContext: Record<string, unknown>;
    volumes?: { name: string; [source: string]: unknown }[];
    terminationGracePeriodSeconds?: number;
  };
}

const templatePaths: Record<string, string> = {
  Deployment: 'spec.template',
  StatefulSet: 'spec.template',
  Job: 'spec.template',
  CronJob: 'spec.jobTemplate.spec.template',
};

/** Templates of pods of all objects, by `Kind/name`. */
export function podTemplates(objects: readonly KubernetesObject[]): Map<string, PodTemplate> {
  const templates = new Map<string, PodTemplate>();
  for (const object of objects) {
    const path = templatePaths[object.kind];
    if (path)
      templates.set(`${object.kind}/${object.metadata.name}`, withClaims(object, at(object, path) as PodTemplate));
    if (object.kind === 'Pod') templates.set(`Pod/${object.metadata.name}`, object as unknown as PodTemplate);
  }
  return templates;
}

/** What a StatefulSet adds to its pods: a volume a claim. */
function withClaims(object: KubernetesObject, pod: PodTemplate): PodTemplate {
  const claims = (at(object, 'spec.volumeClaimTemplates') ?? []) as { metadata: { name: string } }[];
  const volumes = claims.map(({ metadata: { name } }) => ({ name, persistentVolumeClaim: { claimName: name } }));
  return { ...pod, spec: { ...pod.spec, volumes: [...(pod.spec.volumes ?? []), ...volumes] } };
}

/** Values that turn each thing on that a release may have, by a sentence. */
export const variants: Readonly<Record<string, Values>> = {
  'without any values': {},
  'with one pool a region': {
    pools: {
      eu: { region: 'eu-west', nodeSelector: { 'topology.kubernetes.io/region': 'eu-west' } },
      us: { region: 'us-east', workers: 4, autoscaling: { mode: 'None' }, replicas: 3 },
    },
  },
  'with the network of its Nodes': {
    sfuNode: { media: { network: 'HostNetwork', announce: 'NodeExternalIP' }, topologyFrom: 'Node' },
  },
  'with ports of its Nodes': { sfuNode: { media: { network: 'HostPort', announce: 'HostIP' }, workers: 2 } },
  'with a load balancer a pod': {
    sfuNode: {
      media: { announce: 'LoadBalancer', loadBalancer: { annotations: { a: 'b' }, class: 'example.org/lb' } },
    },
  },
  'with a fixed address': { sfuNode: { media: { announce: 'Fixed', address: 'media.example.org' } } },
  'on IPv6': { network: { ipFamily: 'IPv6' } },
  'on IPv4 and IPv6': { network: { ipFamily: 'DualStack' } },
  'with three NATS servers that keep their data': { nats: { replicas: 3, persistence: { enabled: true } } },
  'with a NATS that exists': {
    nats: { external: { url: 'tls://nats.example.org:4222', authSecret: 'nats-users', caSecret: 'nats-ca' } },
  },
  'with cert-manager': { certificates: { mode: 'CertManager' } },
  'with an issuer of cert-manager that exists': {
    certificates: { mode: 'CertManager', certManager: { issuerName: 'fleet', issuerKind: 'ClusterIssuer' } },
  },
  'with certificates that exist': { certificates: { mode: 'Existing' }, metricsAPI: { caBundle: 'QQ==' } },
  'with KEDA': { sfuNode: { autoscaling: { mode: 'KEDA' } } },
  'with prometheus-adapter': {
    sfuNode: { autoscaling: { mode: 'PrometheusAdapter' } },
    metricsAPI: { enabled: false },
  },
  'with an Ingress, TURN and keys of its own': {
    signal: { ingress: { enabled: true, host: 'calls.example.org', tlsSecret: 'calls-tls', className: 'nginx' } },
    turn: { urls: ['turn:turn.example.org:3478?transport=udp', 'turns:turn.example.org:5349'], existingSecret: 'turn' },
    apiKeys: { existingSecret: 'api-keys' },
  },
  'with a Service of type LoadBalancer': {
    signal: { service: { type: 'LoadBalancer', externalTrafficPolicy: 'Local' } },
  },
  'with everything for Prometheus and Grafana': {
    monitoring: { podMonitors: { enabled: true }, alerts: { enabled: true }, dashboards: { enabled: true } },
  },
  'without what can be left out': {
    crds: { enabled: false },
    metricsAPI: { enabled: false },
    networkPolicy: { enabled: false },
    sfuNode: { autoscaling: { mode: 'None' }, podDisruptionBudget: { enabled: false } },
    operator: { podDisruptionBudget: { enabled: false } },
    tests: { enabled: false },
  },
};
