import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parse, stringify } from 'yaml';
import { FakeClock } from '#platform/fake-clock.ts';
import { createLogger } from '#platform/log.ts';
import { readRequest } from '#operator/credentials/config.ts';
import { provideCredentials } from '#operator/credentials/credentials.ts';
import { loadKubeConfig } from '#operator/runtime/kube.ts';
import {
  at,
  find,
  podTemplates,
  skip,
  template,
  templateText,
  variants,
  type KubernetesObject,
} from '#test/chart/helm.ts';
import { LocalControlPlane } from '#tools/local/control-plane.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';

const namespace = 'weir-system';
const log = createLogger({ name: 'test', level: 'silent' });

let dir: string;
let plane: LocalControlPlane;

void describe('the chart on a real API server', { skip }, () => {
  before(async () => {
    dir = temporaryDirectory('chart');
    plane = await LocalControlPlane.start({ dir: join(dir, 'plane') });
    await plane.kubectl.run('label', 'namespace', namespace, 'pod-security.kubernetes.io/enforce=restricted');
    // Without the controller manager nobody makes it, and no pod comes without one.
    await plane.kubectl.run('create', 'serviceaccount', 'default', '--namespace', namespace);
  });

  after(async () => {
    await plane.stop();
    await rm(dir, { recursive: true, force: true });
  });

  /** Writes objects to a file for kubectl. */
  async function fileOf(objects: readonly object[]): Promise<string> {
    const file = join(dir, 'objects.yaml');
    await writeFile(file, objects.map((object) => stringify(object)).join('---\n'));
    return file;
  }

  // Objects of others' kinds, which this API server does not have.
  const isForeign = ({ apiVersion }: KubernetesObject) =>
    /^(cert-manager\.io|keda\.sh|monitoring\.coreos\.com)\//.test(apiVersion);

  for (const [title, values] of Object.entries(variants)) {
    void it(`is taken ${title}`, async () => {
      // The Services of this API server have IPv4 addresses alone.
      const isTaken = (object: KubernetesObject) =>
        !isForeign(object) && (title !== 'on IPv6' || object.kind !== 'Service');
      const objects = (await template(values)).filter(isTaken);
      await plane.kubectl.run('apply', '--dry-run=server', '--validate=strict', '-f', await fileOf(objects));
    });

    void it(`has pods that a restricted namespace admits ${title}`, async () => {
      const pods = [...podTemplates(await template(values))].map(([name, { metadata, spec }]) => ({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { ...metadata, name: name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-'), namespace },
        // Service accounts are not there on a dry run.
        spec: { restartPolicy: 'Always', ...spec, serviceAccountName: undefined, priorityClassName: undefined },
      }));
      const admit = async () =>
        plane.kubectl.run('create', '--dry-run=server', '--validate=strict', '-f', await fileOf(pods));
      if (/of its Nodes/.test(title)) await assert.rejects(admit, /violates PodSecurity.*host/);
      else await admit();
    });
  }

  void it('gets certificates, passwords and an API key, which stay, and which are renewed in time', async () => {
    const text = await templateText({ metricsAPI: { enabled: true } });
    const wanted = await template();
    assert.match(text, /kind: Job/);
    await plane.kubectl.run(
      ...['apply', '--server-side', '-f'],
      await fileOf(wanted.filter(({ kind }) => ['Secret', 'APIService', 'Role', 'RoleBinding'].includes(kind))),
    );
    const config = find(wanted, 'ConfigMap', 'weir-credentials');
    const file = join(dir, 'credentials.yaml');
    await writeFile(file, at(config, 'data')?.['credentials.yaml' as never] ?? '');
    const clock = new FakeClock(Date.now());
    const provide = async () =>
      provideCredentials({
        request: await readRequest(file),
        kubeConfig: loadKubeConfig({ KUBECONFIG: plane.kubeconfigPath }),
        clock,
        log,
      });
    const read = async (name: string) => {
      const secret = await plane.kubectl.json<{ data?: Record<string, string> }>(
        '-n',
        namespace,
        'get',
        'secret',
        name,
      );
      return Object.fromEntries(
        Object.entries(secret.data ?? {}).map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]),
      );
    };
    const names = ['weir-operator-tls', 'weir-sfu-node-tls', 'weir-nats-tls', 'weir-metrics-api-tls'];
    const all = async () => Promise.all([...names, 'weir-nats-auth', 'weir-api-keys', 'weir-ca'].map(read));

    await provide();
    const [operator, node, nats, metrics, auth, keys] = await all();
    const certificate = (secret?: Record<string, string>) => new X509Certificate(secret?.['tls.crt'] ?? '');
    for (const secret of [operator, node, nats, metrics])
      assert.ok(certificate(secret).verify(new X509Certificate(secret?.['ca.crt'] ?? '').publicKey));
    assert.match(certificate(operator).subject, /OU=operator/);
    assert.match(certificate(node).subject, /OU=sfu-node/);
    assert.ok(certificate(node).checkHost('weir-sfu-node-abc.sfu-node.weir-system.weir.internal'));
    assert.ok(certificate(nats).checkHost('weir-nats.weir-system.svc'));
    assert.ok(certificate(nats).checkHost('weir-nats-0.weir-nats-headless.weir-system.svc'));
    assert.ok(certificate(metrics).checkHost('weir-operator.weir-system.svc'));
    assert.deepEqual(Object.keys(auth ?? {}).sort(), ['cluster', 'operator', 'sfu-node']);
    const [key] = parse(keys?.['keys.yaml'] ?? '') as { key: string; secret: string; createRooms: boolean }[];
    assert.ok(key?.createRooms && key.secret.length === 64);
    const apiService = await plane.kubectl.json('get', 'apiservice', 'v1beta2.custom.metrics.k8s.io');
    assert.equal(at(apiService, 'spec.caBundle'), Buffer.from(metrics?.['ca.crt'] ?? '').toString('base64'));

    const before = await all();
    await provide();
    assert.deepEqual(await all(), before, 'a second run changes nothing');

    // What helm upgrade does: the chart's Secrets have no data of their own.
    await plane.kubectl.run(
      ...['apply', '--server-side', '-f'],
      await fileOf(wanted.filter(({ kind }) => kind === 'Secret')),
    );
    assert.deepEqual(await all(), before, 'an upgrade changes nothing');

    clock.advance(62 * 24 * 3600 * 1000);
    await provide();
    const [renewed, , , , sameAuth, sameKeys, sameCa] = await all();
    assert.notEqual(renewed?.['tls.crt'], operator?.['tls.crt']);
    assert.equal(renewed?.['ca.crt'], operator?.['ca.crt']);
    assert.deepEqual([sameAuth, sameKeys, sameCa], [auth, keys, before[6]]);
  });
});
