import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Room } from '#crds/room.ts';
import { describeLink, placeOf, type RoomState } from './page/room-state.ts';
import { stateOf } from './room-watch.ts';

const spanning: NonNullable<Room['status']> = {
  epoch: 3,
  placement: [
    { node: 'sfu-1', region: 'eu-west', role: 'Edge' },
    { node: 'sfu-3', region: 'us-east', role: 'Edge' },
  ],
  topology: { kind: 'Mesh', reason: 'FewNodes', message: 'Each to each.' },
  links: [{ from: 'sfu-1', to: 'sfu-3' }],
  conditions: [
    {
      type: 'Ready',
      status: 'True',
      reason: 'Serving',
      message: 'Served.',
      lastTransitionTime: '2026-01-01T00:00:00Z',
    },
  ],
};
const state = stateOf({ status: spanning });

test('the page is told what the status says of nodes, links and topology', () => {
  assert.deepEqual(state.nodes, spanning.placement);
  assert.deepEqual(state.links, [{ from: 'sfu-1', to: 'sfu-3', state: 'Opening', rttMillis: undefined }]);
  assert.deepEqual([state.ready, state.message, state.topology, state.epoch], [true, 'Served.', 'Mesh', 3]);
});

test('a Room without a status is not ready and has no nodes', () => {
  const none: RoomState = { ready: false, message: '', epoch: 0, topology: '', reason: '', nodes: [], links: [] };
  assert.deepEqual(stateOf({}), none);
});

test('a participant elsewhere is on the one node of their region', () => {
  assert.equal(placeOf(state, 'us-east'), 'sfu-3 · us-east');
});

test('no node is named where a region has several, or none, or nothing is known', () => {
  const second = { node: 'sfu-4', region: 'us-east', role: 'Edge' };
  assert.equal(placeOf({ ...state, nodes: [...state.nodes, second] }, 'us-east'), 'us-east');
  assert.equal(placeOf(state, 'ap-south'), 'ap-south');
  assert.equal(placeOf(undefined, 'us-east'), 'us-east');
  assert.equal(placeOf(state, undefined), '');
});

test('the own node is known whatever the status says', () => {
  assert.equal(placeOf(undefined, 'eu-west', 'sfu-2'), 'sfu-2 · eu-west');
});

test('the round trip time of a link is told while it carries something', () => {
  const link = { from: 'sfu-1', to: 'sfu-3', rttMillis: 82 };
  assert.equal(describeLink({ ...link, state: 'Opening' }), 'Opening');
  assert.equal(describeLink({ ...link, state: 'Up' }), 'Up · 82 ms');
  assert.equal(describeLink({ ...link, state: 'Up', rttMillis: 0 }), 'Up · < 1 ms');
  assert.equal(describeLink({ ...link, state: 'Up', rttMillis: undefined }), 'Up');
  assert.equal(describeLink({ ...link, state: 'Degraded' }), 'Degraded · 82 ms');
  assert.equal(describeLink({ ...link, state: 'Down' }), 'Down');
});
