import assert from 'node:assert/strict';
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { chart, type Values } from '#test/chart/helm.ts';
import { eventually } from '#test/fleet/mod.ts';
import { clusterProblem } from '#tools/cluster/problem.ts';
import { projectRoot } from '#tools/local/leftovers.ts';
import { tryControl, tryMedia, tryMetricsApi, tryNats, trySignal } from './callers.ts';
import { namespace, WeirCluster } from './weir-cluster.ts';

interface Named {
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
}

/** A Service, as far as a cloud looks. */
interface LoadBalanced {
  metadata: { name: string };
  spec: { type: string };
  status: { loadBalancer?: { ingress?: object[] } };
}

describe('the chart in a cluster', { skip: clusterProblem(), timeout: 580_000 }, () => {
  let weir: WeirCluster;
  const kubectl = (...args: string[]) => weir.kubectl(...args);
  const helm = (...args: string[]) => weir.helm(...args);
  const set = (values: Values) =>
    Object.entries(values).flatMap(([key, value]) => ['--set', `${key}=${String(value)}`]);

  before(async () => {
    weir = await WeirCluster.start();
  });

  after(() => weir?.stop());

  test('helm install without values gives a fleet that serves a Room in a region of its Nodes', async () => {
    await helm('install', 'weir', chart, '--wait', '--timeout', '4m');
    await eventually(async () => (await weir.sfuNodes()).length === 2, { timeoutMs: 60_000, what: 'two SfuNodes' });
    await kubectl('apply', '-f', join(projectRoot, 'examples/room.yaml'));
    await kubectl('wait', '--for=condition=Ready', '--timeout=60s', 'rooms', '--all');
    const regions = await kubectl('get', 'sfunodes', '-o', 'jsonpath={.items[*].spec.region}');
    for (const region of regions.split(' ')) assert.match(region, /^(eu-west|us-east)$/);
  });

  test('helm test hears a call', async () => {
    await helm('test', 'weir', '--timeout', '2m');
  });

  test('the autoscaler reads streams of the pods', async () => {
    await kubectl('wait', '--for=condition=ScalingActive', '--timeout=90s', 'hpa/weir-sfu-node');
    const path = `/apis/custom.metrics.k8s.io/v1beta2/namespaces/${namespace}/pods/*/sfu_streams`;
    const list = JSON.parse(await kubectl('get', '--raw', path)) as { items: object[] };
    assert.equal(list.items.length, 2);
  });

  test('who has no right to call is refused on every port', async () => {
    assert.deepEqual(await tryMetricsApi(weir), {
      'without a token': '401',
      'as whom it says it is': '401',
      'with a token that is none': '401',
      'with an account that has no right': '403',
    });
    assert.deepEqual(await tryControl(weir), {
      'in plain text': 'UNAVAILABLE',
      'without a certificate': 'UNAUTHENTICATED',
      'as an operator of another authority': 'UNAUTHENTICATED',
      'as a node': 'PERMISSION_DENIED',
    });
    assert.deepEqual(await tryNats(weir), {
      'by an authority that it is not of': 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
      'without a password': 'AuthorizationError',
      'with a wrong password': 'AuthorizationError',
      'as a node that writes a route': 'PermissionViolationError',
      'as a node that listens to what others ask of the operator': 'PermissionViolationError',
    });
    assert.deepEqual(await trySignal(weir), {
      'without a token': '401',
      'with a token that another secret signed': '401',
      'with a key that is not there': '401',
      'with a token that has expired': '401',
      'with a token that does not grant a join': '403',
    });
    assert.deepEqual(await tryMedia(weir), { 'over UDP': '0 bytes', 'over TCP': '0 bytes' });
    const pods = await Promise.all((['operator', 'sfu-node', 'nats'] as const).map((name) => weir.pods(name)));
    for (const { metadata, status } of pods.flat())
      for (const { restartCount } of status.containerStatuses ?? []) assert.equal(restartCount, 0, metadata.name);
  });

  test('what cannot be installed says why', async () => {
    const refused = (words: RegExp, ...args: string[]) =>
      assert.rejects(helm(...args), (error: { stderr?: string }) => words.test(error.stderr ?? ''));
    await refused(/has Weir already: release weir in namespace weir-system/, 'install', 'other', chart);
    await refused(
      /names the Secret nope, which is not in/,
      'upgrade',
      'weir',
      chart,
      ...set({ 'apiKeys.existingSecret': 'nope' }),
    );
    await refused(
      /install cert-manager first/,
      'upgrade',
      'weir',
      chart,
      ...set({ 'certificates.mode': 'CertManager' }),
    );
  });

  test('a renewed certificate is taken up by NATS without a restart', async () => {
    await kubectl('patch', 'secret', 'weir-nats-tls', '--type=json', '-p', '[{"op":"remove","path":"/data/tls.crt"}]');
    await kubectl('create', 'job', '--from=cronjob/weir-credentials', 'renew');
    await eventually(async () => (await kubectl('logs', 'weir-nats-0', '-c', 'nats')).includes('Reloaded: tls'), {
      timeoutMs: 180_000,
      what: 'NATS reading its new certificate',
    });
    const restarts = await kubectl(
      'get',
      'pod',
      'weir-nats-0',
      '-o',
      'jsonpath={.status.containerStatuses[*].restartCount}',
    );
    assert.equal(restarts, '0 0');
    await kubectl('delete', 'job', 'renew');
  });

  test('an upgrade keeps what was made, and Rooms are served after it', async () => {
    const secrets = () =>
      kubectl('get', 'secret', 'weir-nats-auth', 'weir-api-keys', 'weir-ca', '-o', 'jsonpath={.items[*].data}');
    const before = await secrets();
    const changes = { 'nats.replicas': 3, 'sfuNode.topologyFrom': 'Node', 'sfuNode.drainSeconds': 20 };
    await helm('upgrade', 'weir', chart, ...set(changes), '--wait', '--timeout', '4m');
    assert.equal(await secrets(), before);
    await weir.settled('sfu-node', 2);
    await kubectl('wait', '--for=condition=Ready', '--timeout=60s', 'rooms', '--all');
    await helm('test', 'weir', '--timeout', '2m');
  });

  for (const [network, announce] of [
    ['HostPort', 'HostIP'],
    ['HostPort', 'NodeExternalIP'],
    ['HostNetwork', 'HostIP'],
  ] as const) {
    test(`with media.network ${network} and media.announce ${announce} media goes over the Kubernetes Nodes`, async () => {
      await kubectl('label', 'namespace', namespace, '--overwrite', 'pod-security.kubernetes.io/enforce=privileged');
      const changes = { 'sfuNode.media.network': network, 'sfuNode.media.announce': announce };
      await helm('upgrade', 'weir', chart, '--reuse-values', ...set(changes), '--wait', '--timeout', '4m');
      await weir.settled('sfu-node', 2);
      const addresses = (await weir.sfuNodes()).flatMap(({ status }) => status?.addresses ?? []);
      const ofNodes = weir.cluster.nodes.flatMap((node) =>
        announce === 'HostIP' ? node.addresses : node.externalAddresses,
      );
      assert.ok(addresses.length >= 2 && addresses.every((address) => ofNodes.includes(address)), addresses.join());
      await helm('test', 'weir', '--timeout', '2m');
    });
  }

  test('with media.announce LoadBalancer media goes by a Service for each pod, which goes with it', async () => {
    const ofPods = () =>
      weir
        .list<LoadBalanced>('services', '-l', 'app.kubernetes.io/component=sfu-node')
        .then((services) => services.filter(({ spec }) => spec.type === 'LoadBalancer'));
    // What a cloud does: here the address is that of the Kubernetes Node that the pod is on.
    const give = async ({ metadata, status }: LoadBalanced) => {
      const pod = (await weir.pods('sfu-node')).find((candidate) => candidate.metadata.name === metadata.name);
      if (!pod?.spec.nodeName || status.loadBalancer?.ingress) return;
      const ingress = [{ ip: weir.cluster.node(pod.spec.nodeName).address }];
      const patch = JSON.stringify({ status: { loadBalancer: { ingress } } });
      await kubectl('patch', 'service', metadata.name, '--subresource=status', '--type=merge', '-p', patch);
    };
    const changes = { 'sfuNode.media.network': 'Pod', 'sfuNode.media.announce': 'LoadBalancer' };
    const upgrade = helm('upgrade', 'weir', chart, '--reuse-values', ...set(changes), '--wait', '--timeout', '4m');
    let going = true;
    const cloud = (async () => {
      for (; going; await delay(250)) await Promise.all((await ofPods()).map(give));
    })();
    await upgrade.finally(() => (going = false));
    await cloud;
    const pods = (await weir.settled('sfu-node', 2)).map(({ metadata }) => metadata.name);
    assert.deepEqual((await ofPods()).map(({ metadata }) => metadata.name).sort(), pods.sort());
    for (const { status } of await weir.readySfuNodes()) {
      assert.ok(weir.cluster.nodes.some(({ address }) => address === status?.addresses?.[0]));
    }
    await helm('test', 'weir', '--timeout', '2m');
    await helm('upgrade', 'weir', chart, '--reuse-values', ...set({ 'sfuNode.media.announce': 'PodIP' }), '--wait');
    await weir.settled('sfu-node', 2);
    await eventually(async () => (await ofPods()).length === 0, { timeoutMs: 60_000, what: 'the Services to go' });
  });

  test('helm uninstall leaves nothing when the definitions are not to be kept', async () => {
    await helm('upgrade', 'weir', chart, '--reuse-values', ...set({ 'crds.keep': false }), '--wait', '--timeout', '4m');
    await helm('uninstall', 'weir', '--wait', '--timeout', '4m');
    const left = async () => {
      const namespaced =
        'all,secrets,configmaps,serviceaccounts,roles,rolebindings,pvc,networkpolicies,pdb,hpa,leases,cronjobs';
      const inNamespace = await weir.cluster.kubectl.json<{ items: Named[] }>('get', namespaced, '-n', namespace);
      const everywhere = await weir.cluster.kubectl.json<{ items: Named[] }>(
        'get',
        'clusterroles,clusterrolebindings,apiservices,crds,rolebindings.rbac.authorization.k8s.io',
        '-A',
      );
      const own = everywhere.items.filter(({ metadata }) => /weir/.test(metadata.name));
      return [...inNamespace.items, ...own]
        .map(({ kind, metadata }) => `${kind}/${metadata.name}`)
        .filter((name) => !['ConfigMap/kube-root-ca.crt', 'ServiceAccount/default'].includes(name));
    };
    let last: string[] = [];
    await eventually(async () => (last = await left()).length === 0, {
      timeoutMs: 120_000,
      what: 'nothing being left',
    }).catch(() => assert.deepEqual(last, []));
  });

  test('an older chart is upgraded with its definitions, and its Rooms stay', async () => {
    const older = join(weir.cluster.dir, 'older');
    await cp(chart, older, { recursive: true });
    const edit = async (file: string, change: (text: string) => string) => {
      const text = await readFile(join(older, file), 'utf8');
      assert.notEqual(change(text), text, file);
      await writeFile(join(older, file), change(text));
    };
    await edit('Chart.yaml', (text) => text.replace(/^version: .*/m, 'version: 0.0.9'));
    // A column that the definition did not have yet.
    await edit('files/crds/weir.dev_rooms.yaml', (text) => text.replace(/name: Streams/, 'name: Amount'));
    await helm('install', 'weir', older, '--wait', '--timeout', '4m');
    await kubectl('apply', '-f', join(projectRoot, 'examples/room.yaml'));
    await kubectl('wait', '--for=condition=Ready', '--timeout=60s', 'rooms', '--all');
    const uid = () => kubectl('get', 'rooms', '-o', 'jsonpath={.items[*].metadata.uid}');
    const before = await uid();
    assert.match(await kubectl('get', 'rooms'), /AMOUNT/);
    await helm('upgrade', 'weir', chart, '--wait', '--timeout', '4m');
    await eventually(async () => /STREAMS/.test(await kubectl('get', 'rooms')), { what: 'the new definition' });
    await weir.settled('sfu-node', 2);
    await kubectl('wait', '--for=condition=Ready', '--timeout=60s', 'rooms', '--all');
    assert.equal(await uid(), before);
  });
});
