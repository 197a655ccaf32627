import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
import { codeOf } from '#platform/errors.ts';
import type { NodeRecord } from '../fleet/node-registry.ts';
import { accessOf, documents, groupVersion, metricRequestOf, metricValues, type PodLabels } from './custom-metrics.ts';
import { podSamples } from './pod-metrics.ts';

const at = Date.parse('2026-03-01T10:00:00.250Z');
const base = `/apis/${groupVersion}`;

function record(name: string, streams: number, more: Partial<Heartbeat> = {}, alive = true, lastSeen = at): NodeRecord {
  const heartbeat = Heartbeat.create({
    node: `node-${name}`,
    region: 'eu-west',
    zone: 'a',
    pod: { namespace: 'weir', name, uid: `uid-${name}` },
    capacity: { streams: 100, mbps: 1000 },
    load: { workers: 1, rooms: 1, participants: 3, streams, mbps: 100, cpu: 0.25 },
    ...more,
  });
  return { heartbeat, alive, lastSeen, served: undefined };
}

const pods = new Map<string, PodLabels>([
  ['weir/a', { uid: 'uid-a', labels: { app: 'sfu-node', pool: 'one' } }],
  ['weir/b', { uid: 'uid-b', labels: { app: 'sfu-node', pool: 'two' } }],
  ['weir/again', { uid: 'uid-of-a-later-pod', labels: { app: 'sfu-node' } }],
]);
const samples = podSamples(
  [record('b', 60), record('a', 40, { region: 'us-east' }), record('again', 9), record('unknown', 9)],
  () => undefined,
);

interface List {
  items: { describedObject: { name: string }; metric: object; value: string; timestamp: string }[];
}

function values(name: string, metric: string, query = ''): List {
  const request = { namespace: 'weir', name, metric };
  const found = (namespace: string, pod: string) => pods.get(`${namespace}/${pod}`);
  return metricValues(request, new URLSearchParams(query), samples, found) as List;
}

const told = (list: List) => list.items.map(({ describedObject, value }) => `${describedObject.name} ${value}`);

test('a sample is what the heartbeat says, and how full the node is by the scarcest of all', () => {
  const [sample] = podSamples([record('a', 40)], () => undefined);
  assert.deepEqual(sample?.values, { sfu_streams: 40, sfu_participants: 3, sfu_load_percent: 40 });
  const metadata = { name: 'node-a' };
  const [limited] = podSamples([record('a', 40)], () => ({ metadata, spec: { capacity: { streams: 50 } } }));
  assert.equal(limited?.values.sfu_load_percent, 80);
});

test('nodes that are silent or in no pod have no sample; of two in one pod the last that was heard has', () => {
  const none = podSamples([record('a', 1, {}, false), record('b', 1, { pod: undefined })], () => undefined);
  assert.deepEqual(none, []);
  const both = [record('a', 1, { node: 'old' }, true, at - 500), record('a', 2, { node: 'new' })];
  for (const order of [both, both.toReversed()]) {
    assert.deepEqual(
      podSamples(order, () => undefined).map(({ labels }) => labels.node),
      ['new'],
    );
  }
});

test('all pods of a namespace that are there are listed, and only those', () => {
  assert.deepEqual(told(values('*', 'sfu_streams')), ['a 40', 'b 60']);
  const [first] = values('*', 'sfu_streams').items;
  assert.deepEqual(first, {
    describedObject: { kind: 'Pod', namespace: 'weir', name: 'a', apiVersion: '/v1' },
    metric: { name: 'sfu_streams', selector: undefined },
    timestamp: '2026-03-01T10:00:00Z',
    value: '40',
  });
});

test('pods are selected by their labels, values by node, region and zone', () => {
  assert.deepEqual(told(values('*', 'sfu_streams', 'labelSelector=pool%3Dtwo')), ['b 60']);
  assert.deepEqual(told(values('*', 'sfu_streams', 'labelSelector=pool+notin+(one,two)')), []);
  const far = values('*', 'sfu_streams', 'metricLabelSelector=region%3Dus-east');
  assert.deepEqual(told(far), ['a 40']);
  const selector = { matchExpressions: [{ key: 'region', operator: 'In', values: ['us-east'] }] };
  assert.deepEqual(far.items[0]?.metric, { name: 'sfu_streams', selector });
});

for (const { says, call, code } of [
  { says: 'an unknown metric is not found', call: () => values('*', 'cpu'), code: 'NotFound' },
  { says: 'a pod without a node is not found', call: () => values('c', 'sfu_streams'), code: 'NotFound' },
  {
    says: "a pod's name that another pod had is not found",
    call: () => values('again', 'sfu_streams'),
    code: 'NotFound',
  },
  {
    says: 'a selector that is none is a bad request',
    call: () => values('*', 'sfu_streams', 'labelSelector=a b'),
    code: 'BadRequest',
  },
  {
    says: 'a path that is not escaped rightly is a bad request',
    call: () => accessOf('GET', `${base}/%zz`),
    code: 'BadRequest',
  },
]) {
  test(says, () => {
    assert.throws(call, (error) => codeOf(error) === code);
  });
}

for (const { path, request } of [
  {
    path: `${base}/namespaces/weir/pods/*/sfu_streams`,
    request: { namespace: 'weir', name: '*', metric: 'sfu_streams' },
  },
  { path: `${base}/namespaces/weir/pods/a/cpu`, request: { namespace: 'weir', name: 'a', metric: 'cpu' } },
  { path: `${base}/namespaces/weir/services/a/cpu`, request: undefined },
  { path: `${base}/namespaces/weir/pods/a`, request: undefined },
  { path: `${base}/namespaces/weir/pods/a/cpu/more`, request: undefined },
  { path: '/apis/other/v1beta2/namespaces/weir/pods/a/cpu', request: undefined },
]) {
  test(`${path} ${request ? 'asks for a metric' : 'is no path of a metric'}`, () => {
    assert.deepEqual(metricRequestOf(path), request);
  });
}

test('a call for metrics is a resource of RBAC, discovery is a path', () => {
  assert.deepEqual(accessOf('GET', `${base}/namespaces/weir/pods/*/sfu_streams`), {
    resourceAttributes: {
      group: 'custom.metrics.k8s.io',
      version: 'v1beta2',
      verb: 'get',
      namespace: 'weir',
      resource: 'pods',
      subresource: 'sfu_streams',
      name: '*',
    },
  });
  for (const path of ['/apis', '/apis/custom.metrics.k8s.io', base, '/openapi/v2', '/healthz/x']) {
    assert.deepEqual(accessOf('POST', path), { nonResourceAttributes: { path, verb: 'create' } });
  }
});

test('what RBAC is asked for is what is answered, however the path is written', () => {
  for (const path of [
    `${base}//namespaces/weir/pods/*/sfu_streams`,
    `${base}/namespaces/we%69r/pods/%2A/sfu_streams/`,
  ]) {
    const access = accessOf('GET', path);
    assert.ok('resourceAttributes' in access);
    const { namespace, name, subresource: metric } = access.resourceAttributes;
    assert.deepEqual(metricRequestOf(path), { namespace, name, metric });
  }
});

test('every metric is in the list of resources', () => {
  const { resources } = documents[base] as { resources: { name: string; namespaced: boolean }[] };
  assert.deepEqual(
    resources.map(({ name }) => name),
    ['pods/sfu_streams', 'pods/sfu_participants', 'pods/sfu_load_percent'],
  );
});
