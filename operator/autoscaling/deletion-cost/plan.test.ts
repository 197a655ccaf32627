import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
import type { NodeRecord } from '../../fleet/node-registry.ts';
import { deletionCost, intervalMs, planDeletionCosts, type PodCost } from './plan.ts';

const now = 1_000_000;

function record(streams: number, more: Partial<Heartbeat> = {}, alive = true): NodeRecord {
  const heartbeat = Heartbeat.create({
    node: 'sfu-1',
    pod: { namespace: 'weir-system', name: 'sfu-1', uid: 'uid-1' },
    load: { workers: 1, rooms: 1, participants: streams > 0 ? 1 : 0, streams },
    ...more,
  });
  return { heartbeat, alive, lastSeen: now, served: undefined };
}

function pod(cost: number | undefined, writtenAt?: number): PodCost {
  return { namespace: 'weir-system', name: 'sfu-1', uid: 'uid-1', cost, writtenAt };
}

function written(node: NodeRecord, before: PodCost | undefined, hubs: string[] = []): number | undefined {
  const podOf = (uid: string) => (uid === 'uid-1' ? before : undefined);
  return planDeletionCosts([node], new Set(hubs), podOf, now)[0]?.cost;
}

const someone = { workers: 1, rooms: 1, participants: 1, streams: 0, mbps: 0, cpu: 0, eventLoopLagMs: 0 };

for (const { says, cost, expect } of [
  { says: 'an idle node costs nothing', cost: deletionCost(record(0), false), expect: 0 },
  { says: 'a node costs its streams', cost: deletionCost(record(40), false), expect: 40 },
  {
    says: 'a node with people but no streams costs something',
    cost: deletionCost(record(0, { load: someone }), false),
    expect: 1,
  },
  {
    says: 'a node that drains goes before an idle one',
    cost: deletionCost(record(40, { draining: true }), false),
    expect: -1,
  },
  { says: 'a hub costs more than any other node', cost: deletionCost(record(40), true), expect: 1_000_040 },
  {
    says: 'a node that is not heard of costs what it did',
    cost: deletionCost(record(40, {}, false), false),
    expect: undefined,
  },
]) {
  test(says, () => assert.equal(cost, expect));
}

for (const { says, node, before, hubs, expect } of [
  { says: 'the first figure is written', node: record(40), before: pod(undefined), expect: 40 },
  { says: 'an idle pod needs no annotation', node: record(0), before: pod(undefined), expect: undefined },
  { says: 'a change of a tenth is not written', node: record(110), before: pod(100), expect: undefined },
  { says: 'a change of more than a tenth is', node: record(111), before: pod(100), expect: 111 },
  { says: 'a fall to nothing is written', node: record(0), before: pod(1), expect: 0 },
  { says: 'a rise from nothing is written', node: record(1), before: pod(0), expect: 1 },
  {
    says: 'a pod that becomes a hub is written',
    node: record(100),
    before: pod(100),
    hubs: ['sfu-1'],
    expect: 1_000_100,
  },
  {
    says: "a hub's streams are compared without what it costs as a hub",
    node: record(150),
    before: pod(1_000_100),
    hubs: ['sfu-1'],
    expect: 1_000_150,
  },
  { says: 'a pod that begins to drain is written', node: record(0, { draining: true }), before: pod(0), expect: -1 },
  {
    says: 'nothing is written twice within fifteen seconds',
    node: record(80),
    before: pod(40, now - intervalMs + 1),
    expect: undefined,
  },
  { says: 'it is written when they have passed', node: record(80), before: pod(40, now - intervalMs), expect: 80 },
  { says: 'a pod that is gone is left alone', node: record(80), before: undefined, expect: undefined },
  {
    says: 'a node without a pod is left alone',
    node: record(80, { pod: undefined }),
    before: pod(0),
    expect: undefined,
  },
] as { says: string; node: NodeRecord; before: PodCost | undefined; hubs?: string[]; expect?: number }[]) {
  test(says, () => assert.equal(written(node, before, hubs), expect));
}

test('what is written is never wrong by more than a tenth once its time has come, and fits an annotation', () => {
  fc.assert(
    fc.property(fc.nat(2_000_000), fc.nat(2_000_000), fc.boolean(), fc.boolean(), (before, streams, wasHub, isHub) => {
      const wanted = deletionCost(record(streams), isHub)!;
      const stands = deletionCost(record(before), wasHub)!;
      const after = written(record(streams), pod(stands), isHub ? ['sfu-1'] : []) ?? stands;
      assert.ok(Number.isInteger(after) && after < 2 ** 31);
      assert.ok(Math.abs(after - wanted) <= 0.1 * (stands % 1_000_000));
      assert.equal(after >= 1_000_000, isHub);
    }),
  );
});
