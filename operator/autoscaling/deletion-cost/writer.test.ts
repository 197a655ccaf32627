import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { Registry } from 'prom-client';
import type { Room } from '#crds/room.ts';
import { FakeClock } from '#platform/fake-clock.ts';
import { createLogger } from '#platform/log.ts';
import { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
import type { NodeRecord } from '../../fleet/node-registry.ts';
import { createAutoscalingMetrics, type AutoscalingMetrics } from '../../metrics.ts';
import { KubeApiError, type KubeObject } from '../../runtime/kube.ts';
import { annotation } from './plan.ts';
import { DeletionCosts } from './writer.ts';

let clock: FakeClock;
let nodes: NodeRecord[];
let rooms: Room[];
/** Pods by uid; writes change them. */
let pods: Map<string, KubeObject>;
let writes: string[];
let refuse: ((name: string) => Error | undefined) | undefined;
let metrics: AutoscalingMetrics;
let costs: DeletionCosts;

beforeEach(() => {
  clock = new FakeClock();
  nodes = [];
  rooms = [];
  pods = new Map();
  writes = [];
  refuse = undefined;
  metrics = createAutoscalingMetrics(new Registry());
  costs = new DeletionCosts({
    registry: { list: () => nodes },
    pods: { byUid: (uid) => pods.get(uid) },
    rooms: () => rooms,
    client: { patchMerge: write },
    metrics,
    clock,
    log: createLogger({ name: 'test', level: 'silent' }),
  });
});

function write(name: string, namespace: string | undefined, body: unknown): Promise<KubeObject> {
  const error = refuse?.(name);
  if (error) return Promise.reject(error);
  const { metadata } = body as { metadata: { uid: string; annotations: Record<string, string> } };
  const pod = { metadata: { name, namespace, ...metadata } };
  pods.set(metadata.uid, pod);
  writes.push(`${name} ${metadata.annotations[annotation]}`);
  return Promise.resolve(pod);
}

/** A node in a pod of its name. */
function add(name: string, streams: number): void {
  const ref = { namespace: 'weir', name, uid: `uid-${name}` };
  const load = { workers: 1, rooms: 1, participants: 1, streams };
  const heartbeat = Heartbeat.create({ node: name, pod: ref, load });
  nodes = [
    ...nodes.filter((record) => record.heartbeat.node !== name),
    { heartbeat, alive: true, lastSeen: clock.now(), served: undefined },
  ];
  if (!pods.has(ref.uid)) pods.set(ref.uid, { metadata: ref });
}

async function count(result: string): Promise<number | undefined> {
  return (await metrics.deletionCosts.get()).values.find(({ labels }) => labels.result === result)?.value;
}

test('costs are written for every pod while this replica leads, and not before or after', async () => {
  add('a', 5);
  add('b', 7);
  await clock.run(30_000);
  assert.deepEqual(writes, []);
  costs.start();
  await clock.run(5000);
  assert.deepEqual(writes, ['a 5', 'b 7']);
  await costs.stop();
  add('a', 50);
  await clock.run(60_000);
  assert.deepEqual(writes, ['a 5', 'b 7']);
});

test('a pod whose streams go up and down is written every fifteen seconds, not at every look', async () => {
  costs.start();
  for (let second = 0; second < 60; second += 5) {
    add('a', second % 10 === 0 ? 10 : 90);
    await clock.run(5000);
  }
  assert.ok(writes.length >= 3 && writes.length <= 4, writes.join(', '));
  await costs.stop();
});

test('the hub of a room costs more than a fuller node', async () => {
  add('a', 5);
  add('b', 90);
  const placement = [
    { node: 'a', region: 'eu-west', role: 'Hub' as const },
    { node: 'b', region: 'us-east', role: 'Edge' as const },
  ];
  rooms = [{ metadata: { name: 'room' }, spec: {}, status: { placement } }];
  costs.start();
  await clock.run(5000);
  assert.deepEqual(writes, ['a 1000005', 'b 90']);
  await costs.stop();
});

test('a pod that is gone, or was made anew under its name, is no error and keeps nobody else back', async () => {
  for (const name of ['a', 'b', 'c']) add(name, 5);
  refuse = (name) => {
    if (name === 'a') return new KubeApiError(404, 'NotFound', 'pods "a" not found', 'PATCH');
    return name === 'b' ? new KubeApiError(409, 'Conflict', 'the uid is another', 'PATCH') : undefined;
  };
  costs.start();
  await clock.run(5000);
  assert.deepEqual(writes, ['c 5']);
  assert.equal(await count('gone'), 2);
  assert.equal(await count('failed'), 0);
  await costs.stop();
});

test('what could not be written is tried again, and the others are written', async () => {
  add('a', 5);
  add('b', 5);
  refuse = (name) => (name === 'a' ? new KubeApiError(403, 'Forbidden', 'no', 'PATCH') : undefined);
  costs.start();
  await clock.run(5000);
  assert.deepEqual(writes, ['b 5']);
  assert.equal(await count('failed'), 1);
  refuse = undefined;
  await clock.run(20_000);
  assert.deepEqual(writes, ['b 5', 'a 5']);
  await costs.stop();
});

test('a pod that is on its way out is left alone', async () => {
  add('a', 5);
  const deletionTimestamp = new Date(clock.now());
  pods.set('uid-a', { metadata: { name: 'a', namespace: 'weir', uid: 'uid-a', deletionTimestamp } });
  costs.start();
  await clock.run(5000);
  assert.deepEqual(writes, []);
  await costs.stop();
});
