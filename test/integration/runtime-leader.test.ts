import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { KubeConfig, type V1Lease } from '@kubernetes/client-node';
import { Registry } from 'prom-client';
import { LeaderElector } from '#operator/runtime/leader.ts';
import { createRuntimeMetrics } from '#operator/runtime/metrics.ts';
import { transportOf } from '#operator/runtime/transport.ts';
import { systemClock as clock } from '#platform/clock.ts';
import { codeOf } from '#platform/errors.ts';
import { createLogger } from '#platform/log.ts';
import { TcpProxy } from '#test/integration/tcp-proxy.ts';
import { LocalControlPlane } from '#tools/local/control-plane.ts';
import { eventually } from '#tools/local/eventually.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';

const log = createLogger({ name: 'test', level: process.env.WEIR_LOG_LEVEL ?? 'silent' });
/** The shortest that whole seconds allow. */
const quick = { leaseDurationMs: 2000, renewDeadlineMs: 1500, retryPeriodMs: 200 };
const dir = temporaryDirectory('leader');
let plane: LocalControlPlane;
let leases = 0;

before(async () => {
  plane = await LocalControlPlane.start({ dir: join(dir, 'kube'), crds: false });
});

after(async () => {
  await plane?.stop();
});

/** Makes electors of one new Lease, each behind a proxy of its own. */
function candidates(t: TestContext) {
  const name = `lease-${++leases}`;
  const lease = () => plane.kubectl.json<V1Lease>('get', 'lease', name, '-n', 'default');
  const candidate = async (identity: string) => {
    const proxy = await TcpProxy.start(plane.apiserver.url);
    const kubeConfig = proxy.kubeConfig(plane.kubeconfigPath);
    const registry = new Registry();
    const metrics = createRuntimeMetrics(registry);
    const options = { kubeConfig, namespace: 'default', name, identity, clock, random: Math.random, log, metrics };
    const elector = new LeaderElector({ ...options, ...quick });
    const happened: string[] = [];
    const at: Record<string, number> = {};
    const note = (what: string) => () => {
      happened.push(what);
      at[what] = Date.now();
    };
    t.after(async () => {
      proxy.recover();
      await elector.stop();
      transportOf(kubeConfig).close();
      await proxy.close();
    });
    const metric = async (text: string) => {
      const line = (await registry.metrics()).split('\n').find((each) => each.startsWith(text));
      return Number(line?.split(' ').at(-1));
    };
    return {
      elector,
      proxy,
      happened,
      at,
      metric,
      run: () => elector.run({ onElected: note('elected'), onLost: note('lost') }),
    };
  };
  return { lease, candidate };
}

test('one of two leads, keeps the lease and is known to the other', async (t) => {
  const { lease, candidate } = candidates(t);
  const [a, b] = [await candidate('a'), await candidate('b')];
  a.run();
  await eventually(() => a.elector.isLeader);
  b.run();
  await eventually(() => b.elector.leader === 'a');
  const first = await lease();
  assert.equal(first.spec?.holderIdentity, 'a');
  assert.equal(first.spec?.leaseDurationSeconds, 2);
  assert.match(String(first.spec?.renewTime), /\.\d{6}Z$/);
  const renewed = () => lease().then(({ spec }) => String(spec?.renewTime));
  const start = await renewed();
  await eventually(async () => (await renewed()) !== start);
  assert.equal((await lease()).spec?.leaseTransitions, 0);
  assert.deepEqual(a.happened, ['elected']);
  assert.deepEqual(b.happened, []);
  assert.equal(b.elector.isLeader, false);
  assert.equal(await a.metric('leader_election_master_status'), 1);
  assert.equal(await b.metric('leader_election_master_status'), 0);
});

test('of many that start at once exactly one leads', async (t) => {
  const { candidate } = candidates(t);
  const all = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((identity) => candidate(identity)));
  for (const each of all) each.run();
  await eventually(() => all.every(({ elector }) => elector.leader !== undefined));
  assert.equal(all.filter(({ elector }) => elector.isLeader).length, 1);
});

test('a leader that stops releases the lease, and the other follows without waiting it out', async (t) => {
  const { lease, candidate } = candidates(t);
  const [a, b] = [await candidate('a'), await candidate('b')];
  a.run();
  await eventually(() => a.elector.isLeader);
  b.run();
  await eventually(() => b.elector.leader === 'a');
  const stopped = Date.now();
  await a.elector.stop();
  assert.equal(a.elector.isLeader, false);
  await eventually(() => b.elector.isLeader);
  assert.ok(Date.now() - stopped < 1500, 'sooner than the lease runs out');
  assert.deepEqual(a.happened, ['elected'], 'to stop is not to lose');
  assert.equal((await lease()).spec?.leaseTransitions, 1);
  assert.equal(await a.metric('leader_election_master_status'), 0);
});

test('a leader that is cut off has let go before the other leads', async (t) => {
  const { candidate } = candidates(t);
  const [a, b] = [await candidate('a'), await candidate('b')];
  a.run();
  await eventually(() => a.elector.isLeader);
  b.run();
  await eventually(() => b.elector.leader === 'a');
  a.proxy.stall();
  await eventually(() => b.elector.isLeader);
  assert.deepEqual(a.happened, ['elected', 'lost']);
  assert.ok(a.at.lost! <= b.at.elected!);
  assert.equal(a.elector.isLeader, false);
  assert.equal(await a.metric('leader_election_master_status'), 0);
});

test('a connection that dies costs a try and not the lease', async (t) => {
  const { candidate } = candidates(t);
  const a = await candidate('a');
  a.run();
  await eventually(() => a.elector.isLeader);
  for (let cuts = 0; cuts < 5; cuts++) {
    const before = a.proxy.connections;
    a.proxy.cut();
    await eventually(() => a.proxy.connections > before);
  }
  assert.deepEqual(a.happened, ['elected']);
  assert.equal(a.elector.isLeader, true);
});

test('a lease that somebody else wrote is lost at once', async (t) => {
  const { candidate } = candidates(t);
  const a = await candidate('a');
  a.run();
  await eventually(() => a.elector.isLeader);
  const spec = { holderIdentity: 'thief', leaseDurationSeconds: 60 };
  await plane.kubectl.run('patch', 'lease', `lease-${leases}`, '--type=merge', '-p', JSON.stringify({ spec }));
  await eventually(() => a.happened.includes('lost'));
  assert.equal(a.elector.leader, 'thief');
  assert.equal(await a.metric('leader_election_slowpath_total'), 1);
});

test('a lease that another writer touched or deleted is kept', async (t) => {
  const { lease, candidate } = candidates(t);
  const a = await candidate('a');
  a.run();
  await eventually(() => a.elector.isLeader);
  await plane.kubectl.run('label', 'lease', `lease-${leases}`, 'touched=yes');
  await eventually(async () => (await a.metric('leader_election_slowpath_total')) === 1);
  await plane.kubectl.run('delete', 'lease', `lease-${leases}`);
  await eventually(async () => (await lease()).spec?.holderIdentity === 'a');
  assert.equal(a.elector.isLeader, true);
  assert.deepEqual(a.happened, ['elected']);
});

test('a lease of a holder that is gone is taken when it did not change for its duration, whatever its times say', async (t) => {
  const { candidate } = candidates(t);
  const [name, future] = [`lease-${leases}`, '2099-01-01T00:00:00.000000Z'];
  const spec = { holderIdentity: 'gone', leaseDurationSeconds: 1, renewTime: future, acquireTime: future };
  const kubeConfig = new KubeConfig();
  kubeConfig.loadFromFile(plane.kubeconfigPath);
  const transport = transportOf(kubeConfig);
  t.after(() => transport.close());
  await transport.request({
    method: 'POST',
    path: '/apis/coordination.k8s.io/v1/namespaces/default/leases',
    body: { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name }, spec },
  });
  const a = await candidate('a');
  const start = Date.now();
  a.run();
  await eventually(() => a.elector.isLeader);
  assert.ok(Date.now() - start >= 1000, 'not before it was seen unchanged for a second');
});

test('durations that cannot work are refused', () => {
  const kubeConfig = new KubeConfig();
  kubeConfig.loadFromFile(plane.kubeconfigPath);
  const options = { kubeConfig, namespace: 'default', name: 'x', identity: 'a', clock, random: Math.random, log };
  for (const wrong of [
    { leaseDurationMs: 1000, renewDeadlineMs: 1000, retryPeriodMs: 100 },
    { leaseDurationMs: 2000, renewDeadlineMs: 1000, retryPeriodMs: 900 },
  ]) {
    assert.throws(
      () => new LeaderElector({ ...options, ...wrong }),
      (error) => codeOf(error) === 'BadConfiguration',
    );
  }
  assert.throws(() => new LeaderElector({ ...options, identity: '' }), /needs an identity/);
});
