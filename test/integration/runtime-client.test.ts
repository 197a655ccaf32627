import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { KubeConfig } from '@kubernetes/client-node';
import { Registry } from 'prom-client';
import { rooms, type Room } from '#crds/room.ts';
import { EventRecorder } from '#operator/runtime/events.ts';
import {
  creationTime,
  isAlreadyExists,
  isConflict,
  isNotFound,
  keyOf,
  KubeApiError,
  loadKubeConfig,
  ResourceClient,
  splitKey,
} from '#operator/runtime/kube.ts';
import { createRuntimeMetrics } from '#operator/runtime/metrics.ts';
import { transportOf } from '#operator/runtime/transport.ts';
import { systemClock } from '#platform/clock.ts';
import { codeOf, messageOf } from '#platform/errors.ts';
import { FakeClock } from '#platform/fake-clock.ts';
import { createLogger } from '#platform/log.ts';
import { TcpProxy } from '#test/integration/tcp-proxy.ts';
import { LocalControlPlane } from '#tools/local/control-plane.ts';
import { eventually } from '#tools/local/eventually.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';

const log = createLogger({ name: 'test', level: process.env.WEIR_LOG_LEVEL ?? 'silent' });
const kinds = { apiVersion: 'weir.dev/v1alpha1', kind: 'Room' } as const;
const dir = temporaryDirectory('client');
const registry = new Registry();
let plane: LocalControlPlane;
let kubeConfig: KubeConfig;
let client: ResourceClient<Room>;

before(async () => {
  plane = await LocalControlPlane.start({ dir: join(dir, 'kube') });
  kubeConfig = loadKubeConfig({ KUBECONFIG: plane.kubeconfigPath });
  client = new ResourceClient<Room>({ ...rooms, kubeConfig, metrics: createRuntimeMetrics(registry) });
});

after(async () => {
  transportOf(kubeConfig).close();
  await plane?.stop();
});

const make = (name: string) => client.create({ ...kinds, metadata: { name, namespace: 'default' }, spec: {} });

test('an object is made, read, listed, changed and deleted', async () => {
  const made = await make('crud');
  assert.equal(keyOf(made), 'default/crud');
  assert.deepEqual(splitKey(keyOf(made)), { namespace: 'default', name: 'crud' });
  assert.ok(Math.abs(creationTime(made)! - Date.now()) < 60_000);
  assert.equal((await client.get('crud', 'default')).metadata.uid, made.metadata.uid);
  assert.equal((await client.list('default')).filter(({ metadata }) => metadata.name === 'crud').length, 1);
  assert.equal((await client.list()).length, 1);
  const merged = await client.patchMerge('crud', 'default', { metadata: { annotations: { note: 'kept' } } });
  assert.equal(merged.metadata.annotations?.note, 'kept');
  const applied = await client.patchApply(
    'crud',
    'default',
    { ...kinds, metadata: { name: 'crud' }, status: { epoch: 3 } },
    { fieldManager: 'weir-test', subresource: 'status' },
  );
  assert.equal(applied.status?.epoch, 3);
  const replaced = await client.replace({ ...applied, spec: { ...applied.spec, maxParticipants: 7 } });
  assert.equal(replaced.spec.maxParticipants, 7);
  assert.equal(replaced.status?.epoch, 3, 'the status is not touched by a write of the object');
  await client.delete('crud', 'default');
  await assert.rejects(client.get('crud', 'default'), isNotFound);
});

test('of two status writes from one version the second is a conflict, and changes nothing', async () => {
  const made = await make('conflict');
  const first = await client.replaceStatus({ ...made, status: { epoch: 1 } });
  assert.equal(first.status?.epoch, 1);
  await assert.rejects(client.replaceStatus({ ...made, status: { epoch: 2 } }), (error) => {
    assert.ok(isConflict(error));
    assert.ok(!isAlreadyExists(error) && !isNotFound(error));
    return true;
  });
  assert.equal((await client.get('conflict', 'default')).status?.epoch, 1);
  const again = await client.replaceStatus({ ...first, status: { epoch: 2 } });
  assert.equal(again.status?.epoch, 2);
});

test('a merge patch with an old version is a conflict', async () => {
  const made = await make('merge-conflict');
  await client.patchMerge('merge-conflict', 'default', { metadata: { labels: { a: 'b' } } });
  const { resourceVersion } = made.metadata;
  const late = client.patchMerge('merge-conflict', 'default', { metadata: { resourceVersion, labels: { a: 'c' } } });
  await assert.rejects(late, isConflict);
});

test('errors tell what the API server said, where', async () => {
  await make('twice');
  await assert.rejects(make('twice'), isAlreadyExists);
  const spec = { maxParticipants: -1 };
  await assert.rejects(client.create({ ...kinds, metadata: { name: 'bad', namespace: 'default' }, spec }), (error) => {
    assert.ok(error instanceof KubeApiError);
    assert.equal(error.status, 422);
    assert.equal(error.code, 'Invalid');
    assert.match(error.message, /maxParticipants/);
    assert.equal(error.where, 'POST /apis/weir.dev/v1alpha1/namespaces/default/rooms');
    return true;
  });
});

test('only the very object that was meant is deleted', async () => {
  const made = await make('meant');
  await assert.rejects(client.delete('meant', 'default', { uid: '00000000-0000-0000-0000-000000000000' }), isConflict);
  await client.delete('meant', 'default', { uid: made.metadata.uid });
});

test('calls at once share kept connections', async (t) => {
  const proxy = await TcpProxy.start(plane.apiserver.url);
  const through = proxy.kubeConfig(plane.kubeconfigPath);
  t.after(async () => {
    transportOf(through).close();
    await proxy.close();
  });
  const here = new ResourceClient<Room>({ ...rooms, kubeConfig: through });
  for (let round = 0; round < 3; round++) await Promise.all(Array.from({ length: 100 }, () => here.list('default')));
  assert.ok(proxy.connections <= 32, `${proxy.connections} connections`);
  proxy.cut();
  const stale = await Promise.allSettled(Array.from({ length: 32 }, () => here.list('default')));
  assert.ok(
    stale.every(({ status }) => status === 'fulfilled'),
    'a kept connection that died is no error',
  );
});

test('an API server that cannot be reached is told in words', async (t) => {
  const proxy = await TcpProxy.start(plane.apiserver.url);
  const through = proxy.kubeConfig(plane.kubeconfigPath);
  t.after(() => transportOf(through).close());
  await proxy.close();
  const here = new ResourceClient<Room>({ ...rooms, kubeConfig: through });
  await assert.rejects(here.list(), (error) => {
    assert.equal(codeOf(error), 'ApiUnreachable');
    assert.match(messageOf(error), /no answer from the Kubernetes API at 127\.0\.0\.1:\d+: .*ECONNREFUSED.*check/);
    return true;
  });
});

test('a kubeconfig that is missing is named, with what to do', () => {
  for (const env of [{}, { KUBECONFIG: join(dir, 'nowhere') }]) {
    assert.throws(
      () => loadKubeConfig(env),
      (error) => codeOf(error) === 'BadKubeConfig' && /set it to the path of a kubeconfig file/.test(messageOf(error)),
    );
  }
});

test('calls are counted by answer, method and host', async () => {
  await client.list('default');
  await assert.rejects(client.get('missing', 'default'), isNotFound);
  const text = await registry.metrics();
  assert.match(text, /rest_client_requests_total\{code="200",method="GET",host="127\.0\.0\.1:\d+"\} \d+/);
  assert.match(text, /rest_client_requests_total\{code="404",method="GET",host="127\.0\.0\.1:\d+"\} \d+/);
});

interface SeenEvent {
  metadata: { name: string; namespace: string };
  reason: string;
  note: string;
  type: string;
  action: string;
  reportingController: string;
  reportingInstance: string;
  regarding: { kind: string; name: string; uid: string };
  series?: { count: number };
}

async function eventsOf(name: string): Promise<SeenEvent[]> {
  const { items } = await plane.kubectl.json<{ items: SeenEvent[] }>('get', 'events.events.k8s.io', '-n', 'default');
  return items.filter(({ regarding }) => regarding.name === name);
}

test('an Event is written, with who says what of which object', async () => {
  const room = await make('told');
  const recorder = new EventRecorder({
    kubeConfig,
    component: 'weir.dev/test',
    instance: 'a',
    clock: systemClock,
    log,
  });
  recorder.event(room, 'Warning', 'NoNodeFits', `no node: ${'ü'.repeat(2000)}`, 'Schedule');
  await recorder.flush();
  const [event, ...others] = await eventsOf('told');
  assert.equal(others.length, 0);
  assert.equal(event?.reason, 'NoNodeFits');
  assert.equal(event.type, 'Warning');
  assert.equal(event.action, 'Schedule');
  assert.equal(event.reportingController, 'weir.dev/test');
  assert.equal(event.reportingInstance, 'a');
  assert.equal(event.regarding.uid, room.metadata.uid);
  assert.ok(Buffer.byteLength(event.note) <= 1024 && event.note.endsWith('ü'));
  assert.match(await plane.kubectl.run('describe', 'room', 'told'), /NoNodeFits/);
});

test('repetitions of an Event become one series, and another message another Event', async () => {
  const room = await make('repeated');
  const clock = new FakeClock(Date.now());
  const recorder = new EventRecorder({ kubeConfig, component: 'weir.dev/test', instance: 'a', clock, log });
  for (let n = 0; n < 5; n++) recorder.event(room, 'Normal', 'Placed', 'on sfu-1');
  recorder.event(room, 'Normal', 'Placed', 'on sfu-2');
  await recorder.flush();
  clock.advance(10_000);
  await recorder.flush();
  const seen = (await eventsOf('repeated')).map(({ note, series }) => [note, series?.count]).sort();
  assert.deepEqual(seen, [
    ['on sfu-1', 5],
    ['on sfu-2', undefined],
  ]);
  // Long after, it is a new Event.
  clock.advance(10 * 60_000);
  recorder.event(room, 'Normal', 'Placed', 'on sfu-1');
  await recorder.flush();
  assert.equal((await eventsOf('repeated')).length, 3);
});

test('an object that will not be quiet is cut short, and others are not', async () => {
  const [noisy, quiet] = [await make('noisy'), await make('quiet')];
  const recorder = new EventRecorder({
    kubeConfig,
    component: 'weir.dev/test',
    instance: 'a',
    clock: systemClock,
    log,
  });
  for (let n = 0; n < 100; n++) recorder.event(noisy, 'Normal', 'Noise', `number ${n}`);
  recorder.event(quiet, 'Normal', 'Placed', 'on sfu-1');
  await recorder.flush();
  assert.equal((await eventsOf('noisy')).length, 25);
  assert.equal((await eventsOf('quiet')).length, 1);
});

test('Events never throw: neither what is refused nor an API server that is away does harm', async (t) => {
  const room = await make('unheard');
  const proxy = await TcpProxy.start(plane.apiserver.url);
  const through = proxy.kubeConfig(plane.kubeconfigPath);
  t.after(async () => {
    transportOf(through).close();
    await proxy.close();
  });
  const clock = new FakeClock(Date.now());
  const recorder = new EventRecorder({ kubeConfig: through, component: 'weir.dev/test', instance: 'a', clock, log });
  recorder.event({ ...room, metadata: { ...room.metadata, namespace: 'no-such' } }, 'Normal', 'Lost', 'nowhere to go');
  await recorder.flush();
  proxy.refuse();
  recorder.event(room, 'Normal', 'Kept', 'told later');
  await recorder.flush();
  proxy.recover();
  clock.advance(10_000);
  await eventually(async () => (await eventsOf('unheard')).some(({ reason }) => reason === 'Kept'));
});
