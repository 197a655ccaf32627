import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import type { SfuNode } from '#crds/sfunode.ts';
import { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
import { FleetView } from './fleet-view.ts';

let view: FleetView;

beforeEach(() => {
  view = new FleetView('Spread');
});

/** Takes a heartbeat of a node of a pool and template, with an SfuNode that was made at a second, if at all. */
function take(node: string, { pool = 'eu', template, at }: { pool?: string; template?: string; at?: number }): void {
  const labels = template === undefined ? {} : { 'weir.dev/pool': pool, 'weir.dev/pod-template': template };
  const capacity = { streams: 100, mbps: 100 };
  const heartbeat = Heartbeat.fromPartial({ node, region: 'eu-west', labels, capacity, load: { workers: 1 } });
  const creationTimestamp = at === undefined ? undefined : new Date(at * 1000).toISOString();
  const object =
    at === undefined ? undefined : ({ metadata: { name: node, creationTimestamp }, spec: {} } as unknown as SfuNode);
  view.update({ heartbeat, alive: true }, object);
}

const outgoing = () =>
  [...view.index.nodes()]
    .filter((node) => node.outgoing)
    .map(({ name }) => name)
    .sort();

test('once a node of a new template is there, those of others in its pool are about to be replaced', () => {
  take('a', { template: 'one', at: 1 });
  take('b', { template: 'one', at: 2 });
  take('c', { pool: 'us', template: 'one', at: 2 });
  assert.deepEqual(outgoing(), []);
  take('d', { template: 'two' });
  assert.deepEqual(outgoing(), ['a', 'b'], 'before its SfuNode is made');
  take('d', { template: 'two', at: 10 });
  take('e', { template: 'two', at: 11 });
  take('a', { template: 'one', at: 1 });
  assert.deepEqual(outgoing(), ['a', 'b']);
});

test('a rollback turns it round', () => {
  take('a', { template: 'one', at: 1 });
  take('b', { template: 'two', at: 2 });
  take('c', { template: 'one', at: 3 });
  assert.deepEqual(outgoing(), ['b']);
});

test('when the new ones go, the old ones stay', () => {
  take('a', { template: 'one', at: 1 });
  take('b', { template: 'two', at: 2 });
  view.remove('b');
  assert.deepEqual(outgoing(), []);
});

test('nodes that tell nothing of pods are never about to be replaced', () => {
  take('a', {});
  take('b', { template: 'one', at: 1 });
  take('c', { template: 'two', at: 2 });
  assert.deepEqual(outgoing(), ['b']);
});
