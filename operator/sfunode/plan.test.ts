import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SfuNode } from '#crds/sfunode.ts';
import { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
import { planSfuNode, statusIntervalMs, type SfuNodeAction, type SfuNodeSnapshot } from './plan.ts';

const now = Date.parse('2026-03-01T10:00:00Z');

function heartbeat(more: Partial<Heartbeat> = {}): Heartbeat {
  return Heartbeat.create({
    node: 'sfu-1',
    instance: 'first',
    region: 'eu-west',
    controlAddress: '10.0.0.1:7990',
    url: 'ws://10.0.0.1:7880',
    addresses: ['10.0.0.1'],
    version: '0.1.0',
    capacity: { streams: 500, mbps: 500 },
    load: { workers: 2, rooms: 3, participants: 4, streams: 12, cpu: 0.336 },
    ...more,
  });
}

const bare = (spec: SfuNode['spec'] = {}, metadata: Partial<SfuNode['metadata']> = {}): SfuNode => ({
  metadata: { name: 'sfu-1', namespace: 'weir-system', generation: 1, ...metadata },
  spec: { region: 'eu-west', ...spec },
});

function snapshot(more: Partial<SfuNodeSnapshot> = {}): SfuNodeSnapshot {
  return {
    name: 'sfu-1',
    namespace: 'weir-system',
    object: bare(),
    heartbeat: heartbeat(),
    alive: true,
    lastSeen: now,
    settled: true,
    goneAt: undefined,
    statusWrittenAt: 0,
    toldToDrain: undefined,
    removeAfterMs: 600_000,
    now,
    ...more,
  };
}

const types = (actions: readonly SfuNodeAction[]) => actions.map(({ type }) => type);

/** The object with the status that a plan writes. */
function written(from: SfuNodeSnapshot): SfuNode {
  const write = planSfuNode(from).actions.find((action) => action.type === 'writeStatus');
  assert.ok(write, 'a status is written');
  return { ...from.object!, status: write.status };
}

const condition = (node: SfuNode, type: string) => {
  const found = node.status?.conditions?.find((each) => each.type === type);
  return found && `${found.status} ${found.reason}`;
};

test('a node that registers gets an object, owned by its pod when that is in the same namespace', () => {
  for (const { namespace, owners } of [
    { namespace: 'weir-system', owners: ['pod-1'] },
    { namespace: 'elsewhere', owners: undefined },
  ]) {
    const pod = { namespace, name: 'pod-1', uid: 'uid-1' };
    const [create] = planSfuNode(snapshot({ object: undefined, heartbeat: heartbeat({ pod }) })).actions;
    assert.ok(create?.type === 'create');
    assert.equal(create.object.spec.region, 'eu-west');
    assert.deepEqual(
      create.object.metadata.ownerReferences?.map(({ name }) => name),
      owners,
    );
  }
});

test('a node that is lost gets no object', () => {
  assert.deepEqual(planSfuNode(snapshot({ object: undefined, alive: false })).actions, []);
});

test('an object that went is made again only when its node is heard on', () => {
  const gone = snapshot({ object: undefined, goneAt: now - 500 });
  const wait = planSfuNode(gone);
  assert.deepEqual(wait.actions, []);
  assert.ok(wait.requeueAfterMs);
  const later = { ...gone, now: now + wait.requeueAfterMs };
  assert.deepEqual(types(planSfuNode(later).actions), ['create']);
  assert.deepEqual(planSfuNode({ ...later, alive: false }).actions, []);
});

test('region and zone follow the registration', () => {
  const [patch] = planSfuNode(snapshot({ heartbeat: heartbeat({ region: 'us-east', zone: 'b' }) })).actions;
  assert.deepEqual(patch, { type: 'patchSpec', spec: { region: 'us-east', zone: 'b' } });
});

test('the status tells what the node told', () => {
  const { status } = written(snapshot());
  assert.equal(status?.cpu, '34%');
  assert.equal(status.streams, 12);
  assert.equal(status.rooms, 3);
  assert.equal(status.workers, 2);
  assert.equal(status.controlAddress, '10.0.0.1:7990');
  assert.deepEqual(
    status.conditions?.map(({ type, status: is }) => `${type} ${is}`),
    ['Ready True', 'Draining False', 'Overloaded False'],
  );
});

test('figures are written at most every five seconds, and not at all when they are the same', () => {
  const object = written(snapshot());
  assert.deepEqual(planSfuNode(snapshot({ object })).actions, []);
  const busier = heartbeat({ load: { ...heartbeat().load!, streams: 20 } });
  const soon = planSfuNode(snapshot({ object, heartbeat: busier, statusWrittenAt: now - 1000 }));
  assert.deepEqual(soon.actions, []);
  assert.equal(soon.requeueAfterMs, statusIntervalMs - 1000);
  const due = planSfuNode(snapshot({ object, heartbeat: busier, statusWrittenAt: now - statusIntervalMs }));
  assert.deepEqual(types(due.actions), ['writeStatus']);
});

for (const { says, change, becomes } of [
  { says: 'silence', change: { alive: false }, becomes: ['Ready', 'False HeartbeatLost'] },
  {
    says: 'a node that leaves',
    change: { alive: false, heartbeat: heartbeat({ leaving: true }) },
    becomes: ['Ready', 'False NodeLeft'],
  },
  {
    says: 'the loss of every worker',
    change: { heartbeat: heartbeat({ load: { ...heartbeat().load!, workers: 0 } }) },
    becomes: ['Ready', 'False NoWorkers'],
  },
  {
    says: 'a full node',
    change: { heartbeat: heartbeat({ load: { ...heartbeat().load!, streams: 500 } }) },
    becomes: ['Overloaded', 'True StreamsExhausted'],
  },
  {
    says: 'a hot node',
    change: { heartbeat: heartbeat({ load: { ...heartbeat().load!, cpu: 0.95 } }) },
    becomes: ['Overloaded', 'True CpuHigh'],
  },
  {
    says: 'a node that ends',
    change: { heartbeat: heartbeat({ draining: true }) },
    becomes: ['Draining', 'True NodeEnding'],
  },
] as const) {
  test(`${says} is written at once`, () => {
    const object = written(snapshot());
    const after = written(snapshot({ object, statusWrittenAt: now, ...change }));
    assert.equal(condition(after, becomes[0]), becomes[1]);
  });
}

const drains = [
  { says: 'a node that shall drain is told', spec: true, heart: false, told: undefined, tells: [true] },
  { says: 'and not told again before it says so itself', spec: true, heart: false, told: true, tells: [] },
  { says: 'nor when it drains already', spec: true, heart: true, told: undefined, tells: [] },
  { says: 'a drain that is taken back is told', spec: false, heart: true, told: true, tells: [false] },
  { says: 'a node that ends on its own is left to', spec: false, heart: true, told: undefined, tells: [] },
  { says: 'a node that does not drain is left alone', spec: false, heart: false, told: undefined, tells: [] },
];
for (const { says, spec, heart, told, tells } of drains) {
  test(says, () => {
    const { actions } = planSfuNode(
      snapshot({ object: bare({ drain: spec }), heartbeat: heartbeat({ draining: heart }), toldToDrain: told }),
    );
    assert.deepEqual(
      actions.flatMap((action) => (action.type === 'drain' ? [action.drain] : [])),
      tells,
    );
  });
}

test('a new leader takes a drain back that the one before had asked for', () => {
  const drained = written(snapshot({ object: bare({ drain: true }), heartbeat: heartbeat({ draining: true }) }));
  assert.equal(condition(drained, 'Draining'), 'True DrainRequested');
  const object = { ...drained, spec: { ...drained.spec, drain: false } };
  const { actions } = planSfuNode(snapshot({ object, heartbeat: heartbeat({ draining: true }) }));
  assert.deepEqual(actions[0], { type: 'drain', drain: false });
});

test('an SfuNode that was never heard of is judged only when there was time to hear of it', () => {
  const early = planSfuNode(snapshot({ heartbeat: undefined, alive: false, lastSeen: undefined, settled: false }));
  assert.deepEqual(early.actions, []);
  assert.ok(early.requeueAfterMs);
  const late = written(snapshot({ heartbeat: undefined, alive: false, lastSeen: undefined }));
  assert.equal(condition(late, 'Ready'), 'False HeartbeatLost');
});

test('a node without a pod is removed when it was silent for long, one with a pod is left to garbage collection', () => {
  const lost = written(snapshot({ alive: false }));
  const later = { alive: false, now: now + 600_000 };
  assert.deepEqual(types(planSfuNode(snapshot({ object: lost, ...later })).actions), ['remove']);
  assert.equal(planSfuNode(snapshot({ object: lost, alive: false, now: now + 1000 })).requeueAfterMs, 599_000);
  const owned = {
    ...lost,
    metadata: { ...lost.metadata, ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: 'p', uid: 'u' }] },
  };
  assert.deepEqual(planSfuNode(snapshot({ object: owned, ...later })).actions, []);
});

const strained = heartbeat({
  capacity: { streams: 360, mbps: 500 },
  configured: { streams: 500, mbps: 500 },
  limitedBy: 'CpuHigh',
});
const atEase = heartbeat({ configured: { streams: 500, mbps: 500 } });

test('a node that takes fewer streams than it was set up for says why, and Events tell when that begins and ends', () => {
  const eventOf = (from: SfuNodeSnapshot) => {
    const write = planSfuNode(from).actions.find((action) => action.type === 'writeStatus');
    return write?.event && `${write.event.type} ${write.event.reason}: ${write.event.message}`;
  };
  const before = written(snapshot({ heartbeat: atEase }));
  assert.equal(condition(before, 'CapacityLowered'), 'False AsConfigured');
  assert.equal(
    eventOf(snapshot({ object: before, heartbeat: strained })),
    'Warning CapacityLowered: CpuHigh: It takes 360 streams in place of 500 until it is at ease.',
  );
  const lowered = written(snapshot({ object: before, heartbeat: strained }));
  assert.equal(condition(lowered, 'CapacityLowered'), 'True CpuHigh');
  assert.equal(
    eventOf(snapshot({ object: lowered, heartbeat: { ...strained, limitedBy: 'EventLoopSlow' } })),
    undefined,
  );
  assert.equal(
    eventOf(snapshot({ object: lowered, heartbeat: atEase })),
    'Normal CapacityRestored: It carries 500 streams.',
  );
});

test('a reason that Kubernetes would not take is told in other words', () => {
  const odd = { ...strained, limitedBy: 'no reason\n' };
  assert.equal(condition(written(snapshot({ heartbeat: odd })), 'CapacityLowered'), 'True Strained');
});

test('a node that does not tell what it was set up for has no such condition', () => {
  assert.equal(condition(written(snapshot()), 'CapacityLowered'), undefined);
});
