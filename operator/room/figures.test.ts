import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Room } from '#crds/room.ts';
import { networkFigures } from './figures.ts';

const room = (status: Room['status']): Room => ({ metadata: {}, spec: {}, status });

test('rooms are counted by nodes, links by state, and regions have their longest round trip time', () => {
  const eu = { node: 'a', region: 'eu-west', role: 'Edge' } as const;
  const us = { node: 'b', region: 'us-east', role: 'Edge' } as const;
  const link = { from: 'a', to: 'b' };
  const figures = networkFigures([
    room(undefined),
    room({ placement: [eu] }),
    room({ placement: [us, eu], links: [{ ...link, state: 'Up', rttMillis: 80 }] }),
    room({ placement: [eu, us], links: [{ ...link, state: 'Degraded', rttMillis: 95 }] }),
    room({ placement: [eu, us], links: [{ ...link, state: 'Down', rttMillis: 900 }] }),
    room({ placement: ['c', 'd', 'e', 'f', 'g'].map((node) => ({ ...eu, node })), links: [{ from: 'c', to: 'd' }] }),
  ]);
  assert.deepEqual(figures.nodes, { '1': 1, '2': 3, '3': 0, '4+': 1 });
  assert.deepEqual(figures.links, { Opening: 1, Up: 1, Degraded: 1, Down: 1 });
  assert.deepEqual(figures.rtts, [{ from: 'eu-west', to: 'us-east', seconds: 0.095 }]);
});
