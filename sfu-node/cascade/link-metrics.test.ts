import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Registry } from 'prom-client';
import { LinkState } from '#proto/weir/control/v1/control.ts';
import { createNodeMetrics } from '../metrics.ts';
import type { LinkFigures } from './link.ts';
import { gatherLinks, type LinkSample } from './link-metrics.ts';

const figures: LinkFigures = {
  ...{ rttMs: 20, baseRttMs: 20, lossIn: 0, lossOut: 0.5, jitterMs: 2 },
  ...{ sentKbps: 100, receivedKbps: 50 },
};
const sample = (more: Partial<LinkSample> = {}): LinkSample => ({
  ...{ region: 'us', state: LinkState.UP, figures, ageMs: 60_000, layersLeftOut: 0 },
  ...more,
});

test('a node without links has none in any state, and no loss', () => {
  const { states, regions, loss } = gatherLinks([]);
  assert.deepEqual(states, { Opening: 0, Up: 0, Degraded: 0, Down: 0 });
  assert.equal(regions.size, 0);
  assert.equal(loss, 0);
});

test('of the links to a region the worst times and shares are told, the sum of rates, and the age of the youngest', () => {
  const narrow = { ...figures, rttMs: 80, lossIn: 0.2, jitterMs: 1 };
  const { states, regions } = gatherLinks([
    sample(),
    sample({ state: LinkState.DEGRADED, figures: narrow, ageMs: 5000, layersLeftOut: 3 }),
    sample({ region: 'ap', layersLeftOut: 1 }),
  ]);
  assert.deepEqual(states, { Opening: 0, Up: 2, Degraded: 1, Down: 0 });
  const us = { rtt: 0.08, loss: 0.2, jitter: 0.002, sent: 200_000, received: 100_000, age: 5, layersLeftOut: 3 };
  assert.deepEqual(regions.get('us'), us);
  assert.equal(regions.get('ap')?.layersLeftOut, 1);
});

test('a link over which nothing comes is counted, and its figures of before are not told', () => {
  const { states, regions, loss } = gatherLinks([
    sample({ state: LinkState.DOWN, figures: { ...figures, lossIn: 0.9 } }),
    sample({ state: LinkState.OPENING, figures: undefined }),
  ]);
  assert.deepEqual(states, { Opening: 1, Up: 0, Degraded: 0, Down: 1 });
  assert.equal(regions.size, 0);
  assert.equal(loss, 0);
});

test('loss of a node is the mean of its links, on the way to it', () => {
  const lossy = { ...figures, lossIn: 0.3 };
  assert.equal(gatherLinks([sample(), sample({ figures: lossy, region: 'ap' }), sample()]).loss, 0.3 / 3);
});

test('metrics of links are read when they are scraped, and a region that has none any more is told no more', async () => {
  const registry = new Registry();
  const metrics = createNodeMetrics(registry);
  let links = [sample({ layersLeftOut: 2 })];
  metrics.trackLinks(() => gatherLinks(links, [{ in: 3, out: 4 }]));
  const before = await registry.metrics();
  for (const line of [
    'sfu_links{state="Up"} 1',
    'sfu_links{state="Down"} 0',
    'sfu_link_rtt_seconds{peer_region="us"} 0.02',
    'sfu_link_loss_ratio{peer_region="us"} 0',
    'sfu_link_jitter_seconds{peer_region="us"} 0.002',
    'sfu_link_bits_per_second{peer_region="us",direction="sent"} 100000',
    'sfu_link_bits_per_second{peer_region="us",direction="received"} 50000',
    'sfu_link_age_seconds{peer_region="us"} 60',
    'sfu_link_layers_left_out{peer_region="us"} 2',
    'sfu_link_tracks{direction="in"} 3',
    'sfu_link_tracks{direction="out"} 4',
  ]) {
    assert.ok(before.includes(`${line}\n`), `${line} is missing in\n${before}`);
  }
  links = [];
  const after = await registry.metrics();
  assert.ok(after.includes('sfu_links{state="Up"} 0\n'));
  assert.ok(!after.includes('peer_region'));
});
