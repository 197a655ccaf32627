import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { chart, findHelm, type Values } from '#test/chart/helm.ts';
import { eventually } from '#test/fleet/mod.ts';
import { LocalCluster } from '#tools/cluster/local-cluster.ts';
import { clusterProblem } from '#tools/cluster/problem.ts';
import { projectRoot, stateDirectory } from '#tools/local/leftovers.ts';

const run = promisify(execFile);
const namespace = 'weir-system';

interface Named {
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
}

describe('the chart in a cluster', { skip: clusterProblem(), timeout: 580_000 }, () => {
  let cluster: LocalCluster;

  const kubectl = (...args: string[]) => cluster.kubectl.run('--namespace', namespace, ...args);
  const helm = async (...args: string[]) => {
    const env = { ...process.env, KUBECONFIG: cluster.kubeconfigPath };
    return (await run(findHelm() ?? 'helm', ['--namespace', namespace, ...args], { env, timeout: 300_000 })).stdout;
  };
  const set = (values: Values) =>
    Object.entries(values).flatMap(([key, value]) => ['--set', `${key}=${String(value)}`]);
  const nodes = async () =>
    (
      await cluster.kubectl.json<{ items: (Named & { spec: { region?: string } })[] }>(
        '-n',
        namespace,
        'get',
        'sfunodes',
      )
    ).items;

  before(async () => {
    const build = run(process.execPath, [join(projectRoot, 'tools/image/build.ts')], { cwd: projectRoot });
    [cluster] = await Promise.all([LocalCluster.start(), build]);
    for (const name of ['image.tar', 'nats-image.tar']) await cluster.loadImage(join(stateDirectory, name));
    // Nothing of a release wants more than this.
    await cluster.kubectl.run('create', 'namespace', namespace);
    await kubectl('label', 'namespace', namespace, 'pod-security.kubernetes.io/enforce=restricted');
  });

  after(() => cluster?.stop());

  test('helm install without values gives a fleet that serves a Room in a region of its Nodes', async () => {
    await helm('install', 'weir', chart, '--wait', '--timeout', '4m');
    await eventually(async () => (await nodes()).length === 2, { timeoutMs: 60_000, what: 'two SfuNodes' });
    await cluster.kubectl.run('apply', '-f', join(projectRoot, 'examples/room.yaml'), '--namespace', namespace);
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
    const list = JSON.parse(await cluster.kubectl.run('get', '--raw', path)) as { items: object[] };
    assert.equal(list.items.length, 2);
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
    const pods = async () =>
      (await kubectl('get', 'pods', '-l', 'app.kubernetes.io/component=sfu-node', '-o', 'name')).trim().split('\n');
    await eventually(async () => (await pods()).length === 2, { timeoutMs: 90_000, what: 'the old nodes having gone' });
    await kubectl('wait', '--for=condition=Ready', '--timeout=60s', 'rooms', '--all');
    await helm('test', 'weir', '--timeout', '2m');
  });

  test('helm uninstall leaves nothing when the definitions are not to be kept', async () => {
    await helm('upgrade', 'weir', chart, '--reuse-values', ...set({ 'crds.keep': false }), '--wait', '--timeout', '4m');
    await helm('uninstall', 'weir', '--wait', '--timeout', '4m');
    const left = async () => {
      const namespaced =
        'all,secrets,configmaps,serviceaccounts,roles,rolebindings,pvc,networkpolicies,pdb,hpa,leases,cronjobs';
      const inNamespace = await cluster.kubectl.json<{ items: Named[] }>('get', namespaced, '-n', namespace);
      const everywhere = await cluster.kubectl.json<{ items: Named[] }>(
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
});
