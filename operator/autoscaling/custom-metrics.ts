/** The documents of custom.metrics.k8s.io/v1beta2, and how its paths are read. Pure. */
import { matches, parseSelector } from './label-selector.ts';
import { isMetric, metricNames, type MetricName, type PodSample } from './pod-metrics.ts';
import { ApiRefusal } from './refusal.ts';

export const group = 'custom.metrics.k8s.io';
const version = 'v1beta2';
export const groupVersion = `${group}/${version}`;

/** What a caller wants to do, as a SubjectAccessReview asks. */
export type AccessAttributes =
  | { readonly nonResourceAttributes: { readonly path: string; readonly verb: string } }
  | {
      readonly resourceAttributes: {
        readonly group: string;
        readonly version: string;
        readonly verb: string;
        readonly namespace: string;
        readonly resource: string;
        readonly subresource: string;
        readonly name: string;
      };
    };

const verbs: Readonly<Record<string, string>> = {
  GET: 'get',
  HEAD: 'get',
  POST: 'create',
  PUT: 'update',
  PATCH: 'patch',
  DELETE: 'delete',
};

/** What a call is, in the words of RBAC. Paths of the group beyond its discovery are resources. */
export function accessOf(method: string, path: string): AccessAttributes {
  const verb = verbs[method] ?? method.toLowerCase();
  const [apis, ofGroup, ofVersion, ...rest] = segments(path);
  if (apis !== 'apis' || ofGroup !== group || !ofVersion || rest.length === 0) {
    return { nonResourceAttributes: { path, verb } };
  }
  const isNamespaced = rest[0] === 'namespaces' && rest.length > 2;
  const [resource = '', name = '', subresource = ''] = isNamespaced ? rest.slice(2) : rest;
  const namespace = isNamespaced ? (rest[1] ?? '') : '';
  return { resourceAttributes: { group, version: ofVersion, verb, namespace, resource, subresource, name } };
}

/** A request for the values of one metric. */
export interface MetricRequest {
  readonly namespace: string;
  /** Of a pod, or `*` for all. */
  readonly name: string;
  readonly metric: string;
}

/** Reads a path of metrics of pods; undefined for any other. */
export function metricRequestOf(path: string): MetricRequest | undefined {
  const [, ofGroup, ofVersion, namespaces, namespace, pods, name, metric, ...more] = segments(path);
  const isMetricPath = ofGroup === group && ofVersion === version && namespaces === 'namespaces' && pods === 'pods';
  if (!isMetricPath || !namespace || !name || !metric || more.length > 0) return undefined;
  return { namespace, name, metric };
}

/** @throws ApiRefusal BadRequest for escapes that are none */
function segments(path: string): string[] {
  try {
    return path.split('/').filter(Boolean).map(decodeURIComponent);
  } catch (error) {
    throw new ApiRefusal(400, 'BadRequest', `the path ${path} is not escaped rightly`, { cause: error });
  }
}

/** What is known of a pod's object: its identity and labels. */
export interface PodLabels {
  readonly uid: string;
  readonly labels: Readonly<Record<string, string>>;
}

/**
 * The MetricValueList that answers a request.
 * @param pod what is known of the pod of a namespace and name
 * @throws ApiRefusal NotFound for an unknown metric, or a pod without values; BadRequest for a wrong selector
 */
export function metricValues(
  request: MetricRequest,
  query: URLSearchParams,
  samples: readonly PodSample[],
  pod: (namespace: string, name: string) => PodLabels | undefined,
): object {
  const { namespace, name, metric } = request;
  if (!isMetric(metric)) {
    const words = `there is no metric ${metric} of pods; there are ${metricNames.join(', ')}`;
    throw new ApiRefusal(404, 'NotFound', words);
  }
  const podSelector = parseSelector(query.get('labelSelector') ?? '');
  const metricSelector = parseSelector(query.get('metricLabelSelector') ?? '');
  const found = samples.filter((sample) => {
    if (sample.namespace !== namespace || (name !== '*' && sample.pod !== name)) return false;
    const known = pod(namespace, sample.pod);
    // Only pods that are there, and are the ones that the heartbeats mean.
    if (known?.uid !== sample.uid) return false;
    return (name !== '*' || matches(podSelector, known.labels)) && matches(metricSelector, sample.labels);
  });
  if (name !== '*' && found.length === 0) {
    const words = `pod ${namespace}/${name} has no ${metric}: no heartbeats of an sfu-node come from it`;
    throw new ApiRefusal(404, 'NotFound', words);
  }
  const selector = metricSelector.length > 0 ? { matchExpressions: metricSelector } : undefined;
  const items = found.toSorted((a, b) => (a.pod < b.pod ? -1 : 1)).map((sample) => valueOf(sample, metric, selector));
  return { kind: 'MetricValueList', apiVersion: groupVersion, metadata: {}, items };
}

function valueOf({ namespace, pod, at, values }: PodSample, name: MetricName, selector: object | undefined): object {
  return {
    describedObject: { kind: 'Pod', namespace, name: pod, apiVersion: '/v1' },
    metric: { name, selector },
    timestamp: new Date(at).toISOString().replace(/\.\d+Z$/, 'Z'),
    value: String(values[name]),
  };
}

const versionEntry = { groupVersion, version };
const groupDocument = { name: group, versions: [versionEntry], preferredVersion: versionEntry };
const info = { title: 'Weir custom metrics', version };
const resources = metricNames.map((name) => ({
  name: `pods/${name}`,
  singularName: '',
  namespaced: true,
  kind: 'MetricValueList',
  verbs: ['get'],
}));

function parameter(name: string, where: 'path' | 'query', description: string): object {
  return { name, in: where, required: where === 'path', description, schema: { type: 'string' } };
}

/** Documents that say what is served, by path. */
export const documents: Readonly<Record<string, object>> = {
  '/apis': { kind: 'APIGroupList', apiVersion: 'v1', groups: [groupDocument] },
  [`/apis/${group}`]: { kind: 'APIGroup', apiVersion: 'v1', ...groupDocument },
  [`/apis/${groupVersion}`]: { kind: 'APIResourceList', apiVersion: 'v1', groupVersion, resources },
  '/openapi/v2': { swagger: '2.0', info, paths: {} },
  '/openapi/v3': {
    paths: { [`apis/${groupVersion}`]: { serverRelativeURL: `/openapi/v3/apis/${groupVersion}` } },
  },
  [`/openapi/v3/apis/${groupVersion}`]: {
    openapi: '3.0.0',
    info,
    paths: {
      [`/apis/${groupVersion}/namespaces/{namespace}/pods/{name}/{metric}`]: {
        get: {
          description: `Values of a metric of sfu-node pods: ${metricNames.join(', ')}.`,
          parameters: [
            parameter('namespace', 'path', 'Namespace of the pods.'),
            parameter('name', 'path', 'Name of a pod, or * for all.'),
            parameter('metric', 'path', 'Name of the metric.'),
            parameter('labelSelector', 'query', 'Selects pods by their labels.'),
            parameter('metricLabelSelector', 'query', 'Selects values by node, region and zone.'),
          ],
          responses: {
            '200': {
              description: 'A MetricValueList.',
              content: { 'application/json': { schema: { type: 'object' } } },
            },
          },
        },
      },
    },
  },
};
