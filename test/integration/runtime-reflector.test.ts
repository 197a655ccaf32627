import assert from 'node:assert/strict';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, before, beforeEach, test, type TestContext } from 'node:test';
import { Registry } from 'prom-client';
import { KubeConfig } from '@kubernetes/client-node';
import { ResourceClient, type KubeObject } from '#operator/runtime/kube.ts';
import { createRuntimeMetrics } from '#operator/runtime/metrics.ts';
import { Reflector, type ReflectorOptions } from '#operator/runtime/reflector.ts';
import { systemClock as clock } from '#platform/clock.ts';
import { createLogger } from '#platform/log.ts';
import { TcpProxy } from '#test/integration/tcp-proxy.ts';
import { LocalControlPlane } from '#tools/local/control-plane.ts';
import { eventually } from '#tools/local/eventually.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';

type ConfigMap = KubeObject & { data?: Record<string, string> };
const configMaps = { group: '', version: 'v1', plural: 'configmaps' };
const log = createLogger({ name: 'test', level: process.env.WEIR_LOG_LEVEL ?? 'silent' });
const dir = temporaryDirectory('reflector');
let plane: LocalControlPlane;
let client: ResourceClient<ConfigMap>;
let namespace = '';
let namespaces = 0;

before(async () => {
  plane = await LocalControlPlane.start({ dir: join(dir, 'kube'), crds: false });
  const kubeConfig = new KubeConfig();
  kubeConfig.loadFromFile(plane.kubeconfigPath);
  client = new ResourceClient<ConfigMap>({ ...configMaps, kubeConfig });
});

beforeEach(async () => {
  namespace = `reflector-${++namespaces}`;
  await plane.kubectl.run('create', 'namespace', namespace);
});

after(async () => {
  await plane?.stop();
});

/** A reflector of this test's namespace behind a proxy; both end with the test. */
async function reflect(t: TestContext, options: Partial<ReflectorOptions> = {}) {
  const proxy = await TcpProxy.start(plane.apiserver.url);
  const registry = new Registry();
  const reflector = new Reflector<ConfigMap>({
    ...configMaps,
    kubeConfig: proxy.kubeConfig(plane.kubeconfigPath),
    namespace,
    clock,
    random: Math.random,
    log,
    metrics: createRuntimeMetrics(registry),
    ...options,
  });
  t.after(async () => {
    await proxy.close();
    await reflector.stop();
  });
  const changes: string[] = [];
  reflector.onChange((key, current, previous) => {
    const what = current ? (previous ? 'changed' : 'added') : 'removed';
    changes.push(`${what} ${key.split('/')[1]}`);
  });
  const metric = async (text: string) => {
    const line = (await registry.metrics()).split('\n').find((each) => each.startsWith(text));
    return Number(line?.split(' ').at(-1));
  };
  return { reflector, proxy, changes, metric };
}

const make = (name: string, data: Record<string, string> = {}) =>
  client.create({ metadata: { name, namespace }, data });
const change = (name: string, data: Record<string, string>) => client.patchMerge(name, namespace, { data });
const dataOf = (reflector: Reflector<ConfigMap>, name: string) => reflector.get(`${namespace}/${name}`)?.data;

test('what is there, made, changed and deleted is seen', async (t) => {
  await make('old', { n: '0' });
  const { reflector, changes } = await reflect(t);
  assert.equal(reflector.hasSynced, false);
  reflector.start();
  await reflector.synced();
  assert.equal(reflector.hasSynced, true);
  assert.deepEqual(dataOf(reflector, 'old'), { n: '0' });
  assert.equal(reflector.get(`${namespace}/old`)?.kind, 'ConfigMap');
  await make('new', { n: '1' });
  await eventually(() => dataOf(reflector, 'new'));
  await change('new', { n: '2' });
  await eventually(() => dataOf(reflector, 'new')?.n === '2');
  await client.delete('new', namespace);
  await eventually(() => !dataOf(reflector, 'new'));
  assert.deepEqual(changes, ['added old', 'added new', 'changed new', 'removed new']);
  assert.equal(reflector.list().length, 1);
});

test('a listener that comes late is told what is there', async (t) => {
  await make('old');
  const { reflector } = await reflect(t);
  reflector.start();
  await reflector.synced();
  const seen: string[] = [];
  const end = reflector.onChange((key) => seen.push(key));
  assert.deepEqual(seen, [`${namespace}/old`]);
  end();
  await make('new');
  await eventually(() => reflector.list().length === 2);
  assert.equal(seen.length, 1);
});

test('more objects than fit on a page are listed', async (t) => {
  const names = Array.from({ length: 620 }, (_, n) => `object-${n}`);
  for (let at = 0; at < names.length; at += 32) await Promise.all(names.slice(at, at + 32).map((name) => make(name)));
  const { reflector } = await reflect(t);
  reflector.start();
  await reflector.synced();
  assert.equal(reflector.list().length, 620);
});

test('only what the selector matches is seen', async (t) => {
  const labelled = (name: string, app: string) =>
    client.create({ metadata: { name, namespace, labels: { app } }, data: {} });
  await labelled('mine', 'weir');
  await labelled('other', 'else');
  const { reflector } = await reflect(t, { labelSelector: 'app=weir' });
  reflector.start();
  await reflector.synced();
  assert.deepEqual(
    reflector.list().map(({ metadata }) => metadata.name),
    ['mine'],
  );
  await client.patchMerge('mine', namespace, { metadata: { labels: { app: 'else' } } });
  await eventually(() => reflector.list().length === 0);
});

test('a watch goes on after its connection is cut, and nothing in the gap is missed', async (t) => {
  const { reflector, proxy, changes, metric } = await reflect(t);
  await make('kept');
  await make('deleted');
  reflector.start();
  await reflector.synced();
  await eventually(async () => (await metric('reflector_watches_total')) === 1);
  proxy.refuse();
  await make('made');
  await client.delete('deleted', namespace);
  proxy.recover();
  await eventually(() => reflector.get(`${namespace}/made`) && !reflector.get(`${namespace}/deleted`));
  assert.equal(await metric('reflector_lists_total'), 1, 'it went on from where it was, with no second list');
  // Removed by the watch itself: each change once.
  assert.equal(changes.filter((line) => line === 'removed deleted').length, 1);
  assert.equal(changes.filter((line) => line === 'added kept').length, 1);
});

test('a watch that goes silent without an end is noticed and started again', async (t) => {
  const { reflector, proxy, metric } = await reflect(t, { stallTimeoutMs: 1500 });
  reflector.start();
  await reflector.synced();
  await make('before');
  await eventually(() => dataOf(reflector, 'before') !== undefined || reflector.list().length === 1);
  proxy.stall();
  await make('after');
  await eventually(() => reflector.stalenessMs > 1000, { what: 'a growing staleness' });
  assert.equal(reflector.get(`${namespace}/after`), undefined);
  proxy.recover();
  await eventually(() => reflector.get(`${namespace}/after`));
  assert.ok((await metric('reflector_watch_failures_total{name="configmaps",reason="stalled"}')) >= 1);
  assert.ok(reflector.stalenessMs < 1500);
});

test('a quiet watch is left alone', async (t) => {
  const { reflector, proxy } = await reflect(t, { stallTimeoutMs: 60_000 });
  reflector.start();
  await reflector.synced();
  await make('one');
  await eventually(() => reflector.list().length === 1);
  const before = proxy.connections;
  await new Promise((resolve) => setTimeout(resolve, 2000));
  assert.equal(proxy.connections, before);
});

test('history that the server no longer keeps is made up for by a new list', async (t) => {
  const { reflector, proxy, changes, metric } = await reflect(t, { stallTimeoutMs: 2000 });
  await make('deleted', { n: '1' });
  await make('changed', { n: '1' });
  reflector.start();
  await reflector.synced();
  await eventually(async () => (await metric('reflector_watches_total')) === 1);
  proxy.refuse();
  await client.delete('deleted', namespace);
  await change('changed', { n: '2' });
  const { metadata } = await make('made', { n: '1' });
  await compact(Number(metadata.resourceVersion));
  // A watch cache that begins after the gap cannot serve it either.
  await plane.restartApiServer();
  proxy.recover();
  await eventually(() => !dataOf(reflector, 'deleted') && dataOf(reflector, 'made')?.n === '1', { timeoutMs: 30_000 });
  assert.equal(dataOf(reflector, 'changed')?.n, '2');
  assert.ok((await metric('reflector_watch_failures_total{name="configmaps",reason="expired"}')) >= 1);
  assert.equal(await metric('reflector_lists_total'), 2);
  assert.deepEqual([...changes].sort(), [
    'added changed',
    'added deleted',
    'added made',
    'changed changed',
    'removed deleted',
  ]);
});

test('everything is listed anew from time to time', async (t) => {
  const { reflector, metric } = await reflect(t, { relistIntervalMs: 2000 });
  reflector.start();
  await reflector.synced();
  await eventually(async () => (await metric('reflector_lists_total')) >= 3);
  assert.equal(await metric('reflector_watch_failures_total{name="configmaps",reason="error"}'), 0);
});

test('a write of our own is seen at once, and the watch does not take it back', async (t) => {
  const { reflector, changes } = await reflect(t);
  const made = await make('mine', { n: '1' });
  reflector.start();
  await reflector.synced();
  for (let n = 2; n < 20; n++) {
    reflector.observeWrite(await change('mine', { n: String(n) }));
    assert.equal(dataOf(reflector, 'mine')?.n, String(n));
  }
  reflector.observeWrite(made);
  assert.equal(dataOf(reflector, 'mine')?.n, '19', 'an older write changes nothing');
  await make('marker');
  await eventually(() => reflector.get(`${namespace}/marker`));
  assert.deepEqual(changes, ['added mine', ...Array.from({ length: 18 }, () => 'changed mine'), 'added marker']);
});

test('the late result of a write does not bring a deleted object back', async (t) => {
  const { reflector } = await reflect(t);
  reflector.start();
  await reflector.synced();
  await make('gone', { n: '1' });
  const late = await change('gone', { n: '2' });
  await client.delete('gone', namespace);
  await make('marker');
  await eventually(() => reflector.get(`${namespace}/marker`));
  reflector.observeWrite(late);
  assert.equal(reflector.get(`${namespace}/gone`), undefined);
});

test('an object that is made again under its name is told as a removal and a new one', async (t) => {
  const { reflector, proxy, changes, metric } = await reflect(t);
  const first = await make('twice');
  reflector.start();
  await reflector.synced();
  await eventually(async () => (await metric('reflector_watches_total')) === 1);
  proxy.refuse();
  await client.delete('twice', namespace);
  const second = await make('twice');
  assert.notEqual(first.metadata.uid, second.metadata.uid);
  proxy.recover();
  await eventually(() => reflector.get(`${namespace}/twice`)?.metadata.uid === second.metadata.uid);
  assert.deepEqual(changes, ['added twice', 'removed twice', 'added twice']);
});

test('objects that are handed out cannot be changed by mistake', async (t) => {
  await make('shared', { n: '1' });
  const { reflector } = await reflect(t);
  reflector.start();
  await reflector.synced();
  const shared = reflector.get(`${namespace}/shared`)!;
  assert.throws(() => (shared.data!.n = '2'), TypeError);
  assert.throws(() => delete shared.metadata.name, TypeError);
});

test('a server that is not there at first is waited for', async (t) => {
  const { reflector, proxy } = await reflect(t);
  await make('there');
  proxy.refuse();
  reflector.start();
  await assert.rejects(eventually(() => reflector.hasSynced, { timeoutMs: 500 }));
  proxy.recover();
  await reflector.synced();
  assert.equal(reflector.list().length, 1);
});

/** Has etcd forget what was before a revision. */
async function compact(revision: number): Promise<void> {
  const body = JSON.stringify({ revision, physical: true });
  await new Promise<void>((resolve, reject) => {
    const socketPath = join(dir, 'kube', 'etcd.sock');
    const call = request({ socketPath, path: '/v3/kv/compaction', method: 'POST' }, (answer) => {
      answer.resume();
      answer.on('end', () => (answer.statusCode === 200 ? resolve() : reject(new Error(`etcd: ${answer.statusCode}`))));
    });
    call.on('error', reject);
    call.end(body);
  });
}
