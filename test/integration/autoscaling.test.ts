import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { credentials } from '@grpc/grpc-js';
import type { V1Deployment, V1Pod } from '@kubernetes/client-node';
import {
  ExternalScalerClient,
  type GetMetricSpecResponse,
  type GetMetricsResponse,
  type IsActiveResponse,
  type ScaledObjectRef,
} from '#proto/externalscaler/externalscaler.ts';
import { eventually, Fleet, temporaryDirectory, type FleetOperator } from '#test/fleet/mod.ts';
import { LocalAuthority } from '#tools/local/certificates.ts';
import { ScriptedNode } from './scripted-node.ts';

const namespace = 'weir-system';
const api = `/apis/custom.metrics.k8s.io/v1beta2`;
const annotation = 'controller.kubernetes.io/pod-deletion-cost';
/** An endpoint may not be a loopback address. */
const address = Object.values(networkInterfaces())
  .flat()
  .find((each) => each && !each.internal && each.family === 'IPv4')?.address;
const needsAddress = { skip: address ? false : 'needs an address that is not loopback' };

interface MetricValueList {
  kind: string;
  items: { describedObject: { name: string }; metric: { name: string }; value: string }[];
}

const dir = temporaryDirectory('autoscaling');
let authority: LocalAuthority;
let fleet: Fleet;

before(async () => {
  authority = await LocalAuthority.create('weir-metrics-api');
  const certificate = await authority.issueFiles(dir, 'metrics-api', {
    subject: 'CN=metrics-api',
    names: [`weir-operator.${namespace}.svc`, '127.0.0.1'],
    usage: 'server',
  });
  fleet = await Fleet.start({
    operators: 2,
    nodes: [],
    controllerManager: true,
    operatorEnv: {
      WEIR_METRICS_API_LISTEN: '0.0.0.0:0',
      WEIR_METRICS_API_CERT_FILE: certificate.certFile,
      WEIR_METRICS_API_KEY_FILE: certificate.keyFile,
      WEIR_SCALER_LISTEN: '127.0.0.1:0',
    },
  });
});

after(async () => {
  await fleet?.stop();
});

async function apply(...objects: object[]): Promise<void> {
  await fleet.kubectl.apply({ apiVersion: 'v1', kind: 'List', items: objects });
}

/** Ports of an operator, as its state file has them. */
async function portsOf(operator: FleetOperator): Promise<{ metricsApi: number; scaler: number }> {
  const text = await readFile(join(fleet.dir, 'state', `${operator.id}.json`), 'utf8');
  return JSON.parse(text) as { metricsApi: number; scaler: number };
}

async function callApi(
  path: string,
  options: { token?: string; headers?: Record<string, string>; cert?: string; key?: string; method?: string } = {},
  operator = fleet.operators[0]!,
): Promise<{ status: number; body: { kind?: string; reason?: string; message?: string } & Partial<MetricValueList> }> {
  const { metricsApi: port } = await portsOf(operator);
  const { token, cert, key, method } = options;
  const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  return new Promise((resolve, reject) => {
    const tls = { ca: authority.certificate, cert, key, agent: false };
    const call = request({ host: '127.0.0.1', port, path, method, headers, ...tls }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.once('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        const isJson = response.headers['content-type'] === 'application/json';
        resolve({ status: response.statusCode ?? 0, body: isJson ? (JSON.parse(text) as object) : { message: text } });
      });
    });
    call.once('error', reject);
    call.end();
  });
}

/** A token of a ServiceAccount; with `allowed`, one that may read metrics of pods. */
async function tokenOf(name: string, allowed: boolean): Promise<string> {
  await apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } });
  if (allowed) {
    const rbac = 'rbac.authorization.k8s.io';
    const metadata = { name: `metrics-${name}`, namespace };
    const rules = [{ apiGroups: ['custom.metrics.k8s.io'], resources: ['pods/sfu_streams'], verbs: ['get'] }];
    const roleRef = { apiGroup: rbac, kind: 'Role', name: metadata.name };
    const subjects = [{ kind: 'ServiceAccount', name, namespace }];
    await apply(
      { apiVersion: `${rbac}/v1`, kind: 'Role', metadata, rules },
      { apiVersion: `${rbac}/v1`, kind: 'RoleBinding', metadata, roleRef, subjects },
    );
  }
  return (await fleet.kubectl.run('create', 'token', name, '-n', namespace)).trim();
}

/** A Deployment of pods that no kubelet runs, once it has so many. */
async function deploy(name: string, replicas: number): Promise<V1Pod[]> {
  const labels = { app: name };
  const spec = {
    replicas,
    selector: { matchLabels: labels },
    template: { metadata: { labels }, spec: { containers: [{ name: 'sfu-node', image: 'none' }] } },
  };
  await apply({ apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name, namespace }, spec });
  return podsOf(name, replicas);
}

/** The pods of a Deployment once there are so many that are not on their way out, told to be running. */
async function podsOf(name: string, count: number): Promise<V1Pod[]> {
  const list = () => fleet.kubectl.json<{ items: V1Pod[] }>('get', 'pods', '-n', namespace, '-l', `app=${name}`);
  const pods = await eventually(
    async () => {
      const found = (await list()).items.filter(({ metadata }) => !metadata?.deletionTimestamp);
      return found.length === count ? found : undefined;
    },
    { timeoutMs: 60_000, what: `${count} pods of ${name}` },
  );
  for (const { metadata } of pods) {
    const status = { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] };
    const patch = JSON.stringify({ status });
    const target = ['patch', 'pod', metadata?.name ?? '', '-n', namespace, '--subresource=status'];
    await fleet.kubectl.run(...target, '--type=merge', '-p', patch);
  }
  return pods;
}

/** A node that runs in a pod; it ends with the test. */
async function nodeOf(t: TestContext, pod: V1Pod, streams: number, region = 'eu-west'): Promise<ScriptedNode> {
  const { name = '', uid = '' } = pod.metadata ?? {};
  const node = await ScriptedNode.start(fleet, name, { region, pod: { namespace, name, uid } });
  node.load = { streams, participants: streams };
  t.after(() => node.close());
  return node;
}

/** Registers the metrics API of both operators with the API server. */
async function register(): Promise<void> {
  const endpoints = await Promise.all(
    fleet.operators.map(async (operator) => ({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: operator.id, namespace, labels: { 'kubernetes.io/service-name': 'weir-operator' } },
      addressType: 'IPv4',
      endpoints: [{ addresses: [address], conditions: { ready: true } }],
      ports: [{ name: 'metrics-api', port: (await portsOf(operator)).metricsApi, protocol: 'TCP' }],
    })),
  );
  await apply(
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'weir-operator', namespace },
      spec: { ports: [{ name: 'metrics-api', port: 443, protocol: 'TCP' }] },
    },
    ...endpoints,
    {
      apiVersion: 'apiregistration.k8s.io/v1',
      kind: 'APIService',
      metadata: { name: 'v1beta2.custom.metrics.k8s.io' },
      spec: {
        group: 'custom.metrics.k8s.io',
        version: 'v1beta2',
        groupPriorityMinimum: 100,
        versionPriority: 100,
        service: { name: 'weir-operator', namespace, port: 443 },
        caBundle: Buffer.from(authority.certificate).toString('base64'),
      },
    },
  );
  const available = ['apiservice/v1beta2.custom.metrics.k8s.io', '--for=condition=Available', '--timeout=60s'];
  await fleet.kubectl.run('wait', ...available);
}

test('a caller whom the API server vouches for reads what pods carry', needsAddress, async (t) => {
  await register();
  const [one, two] = await deploy('read', 2);
  await nodeOf(t, one!, 12);
  await nodeOf(t, two!, 30, 'us-east');
  const read = async (path: string) =>
    JSON.parse(
      await fleet.kubectl.run('get', '--raw', `${api}/namespaces/${namespace}/pods/${path}`),
    ) as MetricValueList;
  const list = await eventually(async () => {
    const found = await read('*/sfu_streams?labelSelector=app%3Dread');
    return found.items.length === 2 ? found : undefined;
  });
  assert.equal(list.kind, 'MetricValueList');
  const values = Object.fromEntries(list.items.map((item) => [item.describedObject.name, item.value]));
  assert.deepEqual(values, { [one!.metadata!.name!]: '12', [two!.metadata!.name!]: '30' });
  assert.deepEqual((await read('*/sfu_streams?labelSelector=app%3Dother')).items, []);
  const far = await read('*/sfu_participants?metricLabelSelector=region%3Dus-east&labelSelector=app%3Dread');
  assert.deepEqual(
    far.items.map(({ value }) => value),
    ['30'],
  );
  const single = await read(`${one!.metadata!.name}/sfu_load_percent`);
  assert.deepEqual(
    single.items.map(({ value }) => value),
    ['1'],
  );
  await assert.rejects(read('*/sfu_unknown'), /there is no metric sfu_unknown/);
  await assert.rejects(read('nobody/sfu_streams'), /has no sfu_streams/);
  const { resources } = JSON.parse(await fleet.kubectl.run('get', '--raw', api)) as { resources: { name: string }[] };
  assert.deepEqual(
    resources.map(({ name }) => name),
    ['pods/sfu_streams', 'pods/sfu_participants', 'pods/sfu_load_percent'],
  );
});

test('both replicas answer, whoever leads', async () => {
  const token = await tokenOf('reader', true);
  for (const operator of fleet.operators) {
    const { status, body } = await callApi(`${api}/namespaces/${namespace}/pods/*/sfu_streams`, { token }, operator);
    assert.equal(status, 200, body.message);
    assert.equal(body.kind, 'MetricValueList');
  }
  for (const path of ['/apis', '/apis/custom.metrics.k8s.io', api, '/openapi/v2', '/openapi/v3']) {
    assert.equal((await callApi(path, { token })).status, 200, path);
  }
});

test('who is not known is refused, and who may not read it too, in the words of Kubernetes', async () => {
  const metric = `${api}/namespaces/${namespace}/pods/*/sfu_streams`;
  const refusal = async (options: Parameters<typeof callApi>[1], path = metric) => {
    const { status, body } = await callApi(path, options);
    assert.equal(body.kind, 'Status');
    return `${status} ${body.reason}`;
  };
  assert.equal(await refusal({}), '401 Unauthorized');
  assert.equal(await refusal({ token: 'nonsense' }), '401 Unauthorized');
  assert.equal(await refusal({}, '/openapi/v2'), '401 Unauthorized');
  const masters = { 'x-remote-user': 'admin', 'x-remote-group': 'system:masters' };
  assert.equal(await refusal({ headers: masters }), '401 Unauthorized', 'headers without a certificate');
  const strangers = await LocalAuthority.create('strangers');
  const stranger = await strangers.issue({ subject: 'CN=front-proxy-client', usage: 'client' });
  const forged = { headers: masters, cert: stranger.certificate, key: stranger.key };
  assert.equal(await refusal(forged), '401 Unauthorized', 'a certificate of another authority');
  const fleetCertificate = await fleet.authority.issue({ subject: 'OU=operator,CN=front-proxy-client' });
  const inside = { headers: masters, cert: fleetCertificate.certificate, key: fleetCertificate.key };
  assert.equal(await refusal(inside), '401 Unauthorized', "a certificate of the fleet's authority");
  const { cert, key } = fleet.plane!.tls;
  assert.equal(await refusal({ headers: masters, cert, key }), '401 Unauthorized', "a user of the API server's");
  const token = await tokenOf('nobody', false);
  assert.equal(await refusal({ token }), '403 Forbidden');
  const other = await tokenOf('streams-only', true);
  assert.equal(
    await refusal({ token: other }, `${api}/namespaces/${namespace}/pods/*/sfu_participants`),
    '403 Forbidden',
  );
  assert.equal(await refusal({ token: other }, `${api}/namespaces/default/pods/*/sfu_streams`), '403 Forbidden');
  assert.equal(await refusal({ token: other, method: 'DELETE' }), '403 Forbidden');
  const { status, body } = await callApi('/healthz');
  assert.equal(`${status} ${body.message}`, '200 ok');
});

test('a user whom the front proxy names may do what RBAC allows that user, and no more', async () => {
  await tokenOf('behind', true);
  const pki = join(fleet.dir, 'kube/pki');
  const [cert, key] = await Promise.all(
    ['front-proxy.crt', 'front-proxy.key'].map((file) => readFile(join(pki, file), 'utf8')),
  );
  const ask = async (user: string, metric: string) => {
    const headers = { 'x-remote-user': user, 'x-remote-group': 'system:serviceaccounts' };
    return (await callApi(`${api}/namespaces/${namespace}/pods/*/${metric}`, { headers, cert, key })).status;
  };
  const user = `system:serviceaccount:${namespace}:behind`;
  // The authority of front proxies is read after the start.
  await eventually(async () => (await ask(user, 'sfu_streams')) === 200);
  assert.equal(await ask(user, 'sfu_participants'), 403);
  assert.equal(await ask('somebody', 'sfu_streams'), 403);
  assert.equal(await ask('', 'sfu_streams'), 401);
});

test('a renewed certificate is taken up without a restart, and a wrong one is not', async () => {
  const seen = async () => {
    try {
      return (await callApi('/healthz')).status;
    } catch (error) {
      return (error as NodeJS.ErrnoException).code;
    }
  };
  assert.equal(await seen(), 200);
  const others = await LocalAuthority.create('renewed');
  const [own, renewed] = await Promise.all([
    Promise.all(['crt', 'key'].map((kind) => readFile(join(dir, `metrics-api.${kind}`)))),
    others.issueFiles(dir, 'metrics-api', { subject: 'CN=metrics-api', names: ['127.0.0.1'], usage: 'server' }),
  ]);
  assert.ok(renewed);
  await eventually(async () => (await seen()) !== 200, { timeoutMs: 20_000, what: 'the other certificate is shown' });
  await writeFile(join(dir, 'metrics-api.crt'), own[0]!);
  await writeFile(join(dir, 'metrics-api.key'), own[1]!);
  await eventually(async () => (await seen()) === 200, { timeoutMs: 20_000, what: 'the first is shown again' });
});

test('an HPA grows and shrinks a Deployment on streams, and the emptiest pods go first', needsAddress, async (t) => {
  await register();
  const [busy, idle] = await deploy('scaled', 2);
  const nodes = [await nodeOf(t, busy!, 150), await nodeOf(t, idle!, 50)];
  await apply({
    apiVersion: 'autoscaling/v2',
    kind: 'HorizontalPodAutoscaler',
    metadata: { name: 'scaled', namespace },
    spec: {
      scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'scaled' },
      minReplicas: 1,
      maxReplicas: 5,
      metrics: [
        {
          type: 'Pods',
          pods: { metric: { name: 'sfu_streams' }, target: { type: 'AverageValue', averageValue: '50' } },
        },
      ],
      behavior: { scaleDown: { stabilizationWindowSeconds: 0, selectPolicy: 'Disabled' } },
    },
  });
  const replicas = async (count: number) => {
    const reached = async () => {
      const deployment = await fleet.kubectl.json<V1Deployment>('get', 'deployment', 'scaled', '-n', namespace);
      return deployment.spec?.replicas === count;
    };
    await eventually(reached, { timeoutMs: 90_000, what: `${count} replicas` });
  };
  await replicas(4);
  const pods = await podsOf('scaled', 4);
  const fresh = pods.filter(({ metadata }) => ![busy, idle].some((pod) => pod?.metadata?.uid === metadata?.uid));
  for (const pod of fresh) nodes.push(await nodeOf(t, pod, 50));
  // 150 + 50 + 50 + 50 streams keep six pods busy, five are allowed.
  await replicas(5);
  const [fifth] = (await podsOf('scaled', 5)).filter(
    ({ metadata }) => !nodes.some(({ name }) => name === metadata?.name),
  );
  nodes.push(await nodeOf(t, fifth!, 0));
  const loads = [90, 5, 0, 20, 3];
  for (const [index, node] of nodes.entries()) node.load = { streams: loads[index]!, participants: loads[index]! };
  const costs = async () => {
    const pods = await fleet.kubectl.json<{ items: V1Pod[] }>('get', 'pods', '-n', namespace, '-l', 'app=scaled');
    const byName = new Map(pods.items.map(({ metadata }) => [metadata?.name, metadata?.annotations?.[annotation]]));
    return nodes.map(({ name }) => Number(byName.get(name) ?? 0));
  };
  const areWritten = async () => (await costs()).join() === loads.join();
  await eventually(areWritten, { timeoutMs: 60_000, what: 'costs of the new loads' });
  const enable = { spec: { behavior: { scaleDown: { selectPolicy: 'Max' } } } };
  await fleet.kubectl.run('patch', 'hpa', 'scaled', '-n', namespace, '--type=merge', '-p', JSON.stringify(enable));
  // 118 streams are work for three pods; those with the fewest go.
  await replicas(3);
  const left = (await podsOf('scaled', 3)).map(({ metadata }) => metadata?.name);
  const stay = [0, 1, 3].map((index) => nodes[index]!.name);
  assert.deepEqual(left.toSorted(), stay.toSorted());
});

test('the cost of a pod follows its streams, and a node that drains costs less than any other', async (t) => {
  const [pod] = await deploy('costs', 1);
  const node = await nodeOf(t, pod!, 40);
  const costIs = (expected: string) =>
    eventually(
      async () => {
        const found = await fleet.kubectl.json<V1Pod>('get', 'pod', pod!.metadata!.name!, '-n', namespace);
        return found.metadata?.annotations?.[annotation] === expected;
      },
      { timeoutMs: 40_000, what: `cost ${expected}` },
    );
  await costIs('40');
  node.beats = { draining: true };
  await costIs('-1');
});

test('KEDA is told the streams of the pods that it asks for', async (t) => {
  const [pod] = await deploy('keda', 1);
  await nodeOf(t, pod!, 70);
  const { scaler } = await portsOf(fleet.operators[1]!);
  const client = new ExternalScalerClient(`127.0.0.1:${scaler}`, credentials.createInsecure());
  t.after(() => client.close());
  const ref = (scalerMetadata: Record<string, string>): ScaledObjectRef => ({
    name: 'keda',
    namespace,
    scalerMetadata,
  });
  const scaled = ref({ streamsPerPod: '50', podSelector: 'app=keda' });
  const ask = <T>(call: (done: (error: Error | null, answer: T) => void) => unknown) =>
    new Promise<T>((resolve, reject) => call((error, answer) => (error ? reject(error) : resolve(answer))));
  const streams = async () => {
    const request = { scaledObjectRef: scaled, metricName: 'sfu_streams' };
    const { metricValues } = await ask<GetMetricsResponse>((done) => client.getMetrics(request, done));
    return metricValues[0]?.metricValue;
  };
  await eventually(async () => (await streams()) === 70, { what: '70 streams' });
  const { metricSpecs } = await ask<GetMetricSpecResponse>((done) => client.getMetricSpec(scaled, done));
  assert.deepEqual(metricSpecs, [{ metricName: 'sfu_streams', targetSize: 50, targetSizeFloat: 50 }]);
  assert.deepEqual(await ask<IsActiveResponse>((done) => client.isActive(scaled, done)), { result: true });
  const elsewhere = ref({ streamsPerPod: '50', podSelector: 'app=other' });
  assert.deepEqual(await ask<IsActiveResponse>((done) => client.isActive(elsewhere, done)), { result: false });
  const refused = (metadata: Record<string, string>) =>
    ask<GetMetricSpecResponse>((done) => client.getMetricSpec(ref(metadata), done));
  await assert.rejects(refused({}), /BadScalerMetadata.*metadata\.streamsPerPod is missing/);
  await assert.rejects(refused({ streamsPerPod: '0' }), /no whole number/);
  await assert.rejects(refused({ streamsPerPod: '5', podSelector: 'a b' }), /podSelector.*"a b"/);
  const stream = client.streamIsActive(elsewhere);
  const told: boolean[] = [];
  stream.on('data', ({ result }: IsActiveResponse) => told.push(result));
  stream.on('error', () => undefined);
  await eventually(() => told.length === 1);
  await apply({
    apiVersion: 'weir.dev/v1alpha1',
    kind: 'Room',
    metadata: { name: 'wanted', namespace: 'default' },
    spec: {},
  });
  await eventually(() => told.length === 2, { what: 'a Room makes it active' });
  assert.deepEqual(told, [false, true]);
  stream.cancel();
  await fleet.kubectl.run('delete', 'room', 'wanted', '--timeout=20s');
});
