import assert from 'node:assert/strict';
import { test } from 'node:test';
import { codeOf, messageOf } from '#platform/errors.ts';
import type { PodSample } from './pod-metrics.ts';
import { demandOf, isActive, triggerOf } from './scaler.ts';

function sample(pod: string, streams: number, namespace = 'weir'): PodSample {
  const values = { sfu_streams: streams, sfu_participants: 1, sfu_load_percent: 1 };
  return { namespace, pod, uid: `uid-${pod}`, labels: { node: pod, region: 'eu-west', zone: '' }, at: 0, values };
}

const ref = (scalerMetadata: Record<string, string>) => ({ name: 'fleet', namespace: 'weir', scalerMetadata });
const samples = [sample('a', 10), sample('b', 20), sample('c', 40, 'other'), sample('gone', 80)];
const pod = (_namespace: string, name: string) =>
  name === 'gone' ? undefined : { uid: `uid-${name}`, labels: { pool: name } };

test('the streams of all nodes of the namespace count, of pods that are there', () => {
  assert.deepEqual(demandOf(triggerOf(ref({ streamsPerPod: '5' })), samples, pod), { streams: 30, participants: 2 });
});

test('a selector and a namespace narrow that down', () => {
  const one = triggerOf(ref({ streamsPerPod: '5', podSelector: 'pool=b' }));
  assert.equal(demandOf(one, samples, pod).streams, 20);
  const other = triggerOf(ref({ streamsPerPod: '5', namespace: 'other' }));
  assert.equal(demandOf(other, samples, pod).streams, 40);
});

test('a pod is needed while there is a Room, somebody, or a stream', () => {
  const nothing = { streams: 0, participants: 0 };
  assert.equal(isActive(nothing, 0), false);
  assert.equal(isActive(nothing, 1), true);
  assert.equal(isActive({ ...nothing, participants: 1 }, 0), true);
  assert.equal(isActive({ ...nothing, streams: 1 }, 0), true);
});

for (const { metadata, words } of [
  { metadata: {}, words: /ScaledObject weir\/fleet: metadata\.streamsPerPod is missing/ },
  { metadata: { streamsPerPod: 'many' }, words: /metadata\.streamsPerPod is no whole number/ },
  { metadata: { streamsPerPod: '-1' }, words: /metadata\.streamsPerPod/ },
  { metadata: { streamsPerPod: '5', podSelector: 'a=b=c' }, words: /metadata\.podSelector: "a=b=c"/ },
] as { metadata: Record<string, string>; words: RegExp }[]) {
  test(`the trigger ${JSON.stringify(metadata)} is refused with the field's name`, () => {
    assert.throws(
      () => triggerOf(ref(metadata)),
      (error) => codeOf(error) === 'BadScalerMetadata' && words.test(messageOf(error)),
    );
  });
}
