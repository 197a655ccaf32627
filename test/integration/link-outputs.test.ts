import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import type { Producer } from 'mediasoup/types';
import { Registry } from 'prom-client';
import { systemClock } from '#platform/clock.ts';
import { codeOf } from '#platform/errors.ts';
import { FakeClock } from '#platform/fake-clock.ts';
import { createLogger } from '#platform/log.ts';
import { Link } from '#sfu-node/cascade/link.ts';
import { LinkOutputs, retireMs } from '#sfu-node/cascade/link-outputs.ts';
import type { LayerDemand } from '#sfu-node/media/demand.ts';
import { Site } from '#sfu-node/media/site.ts';
import type { PublishedTrack } from '#sfu-node/media/track.ts';
import { WorkerPool } from '#sfu-node/media/worker-pool.ts';
import { createNodeMetrics } from '#sfu-node/metrics.ts';
import { SyntheticMicrophone } from '#tools/bench/synthetic-microphone.ts';
import { eventually } from '#tools/local/eventually.ts';

/** The sending end of a link on a real worker, with a track and a clock by hand. */
const log = createLogger({ name: 'test', level: 'silent' });
const demand: LayerDemand = { paused: false, layers: 1 };
const trackSid = 'TR_1';

/** A track of which the test says which producer it has. */
class FakeTrack {
  readonly sid = trackSid;
  holds = 0;
  give: (producer: Producer) => void = () => assert.fail('nobody holds the track');

  hold(_site: Site, _demand: LayerDemand, onProducer: (producer: Producer) => void) {
    this.holds += 1;
    this.give = onProducer;
    return { update: () => undefined, release: () => (this.holds -= 1) };
  }

  get asTrack(): PublishedTrack {
    return this as unknown as PublishedTrack;
  }
}

let workers: WorkerPool;
let site: Site;
let clock: FakeClock;
let outputs: LinkOutputs;
let track: FakeTrack;
let told: string[];
let version = 0;
const opened: { close: () => void }[] = [];

before(async () => {
  const metrics = createNodeMetrics(new Registry());
  workers = await WorkerPool.create({
    count: 1,
    addresses: [{ ip: '127.0.0.1' }],
    portBase: 0,
    clock: systemClock,
    log,
    metrics,
  });
});

beforeEach(async () => {
  clock = new FakeClock();
  site = await Site.create(workers, ['opus']);
  const listen = { ip: '127.0.0.1', capacityMbps: 1000 };
  const ignore = () => undefined;
  const link = await Link.create({ id: 'LK_1', peer: 'b', site, listen, clock, onUp: ignore, onChange: ignore });
  track = new FakeTrack();
  told = [];
  let streams = 0;
  const newId = (prefix: string) => `${prefix}${(streams += 1)}`;
  outputs = new LinkOutputs({ link, clock, log, newId, onStream: (sid) => told.push(sid) });
  opened.push(site, link, outputs);
});

afterEach(() => {
  for (const each of opened.splice(0).reverse()) each.close();
});

after(() => workers?.close());

async function microphone(): Promise<Producer> {
  const source = await SyntheticMicrophone.start(await site.router.createDirectTransport(), -30);
  opened.push(source);
  return source.producer;
}

function request(wanted: LayerDemand | undefined) {
  version += 1;
  const from = { roomUid: 'room', epoch: 1, link: 'LK_1', trackSid, version };
  return outputs.handle({ ...from, demand: wanted }, track.asTrack);
}

const ask = () => request(demand);
const letGo = () => request(undefined);

async function consumers({ id }: Producer): Promise<number> {
  const { mapProducerIdConsumerIds: all } = await site.router.dump();
  return all.find(({ key }) => key === id)?.values.length ?? 0;
}

test('a request is answered when the track is there, and the next one with the same stream', async () => {
  const asked = ask();
  track.give(await microphone());
  const supply = await asked;
  assert.equal(supply?.kind, 'audio');
  assert.equal((await ask())?.stream, supply?.stream);
  assert.equal(track.holds, 1);
});

test('a request for a track that does not come in time is told to ask again', async () => {
  const asked = ask();
  const refused = assert.rejects(asked, (error) => codeOf(error) === 'TrackPending');
  await clock.run(2000);
  await refused;
});

test('the other end is told of another stream until it asks for it; the first goes on for a while', async () => {
  const [first, second] = [await microphone(), await microphone()];
  const asked = ask();
  track.give(first);
  const before = await asked;
  track.give(second);
  await eventually(() => told.length === 1, { what: 'the other end to be told' });
  await clock.run(retireMs - 1);
  assert.equal(told.length, 3, 'again each second');
  assert.equal(await consumers(first), 1);
  const now = await ask();
  assert.notEqual(now?.stream, before?.stream);
  await clock.run(10 * retireMs);
  assert.equal(told.length, 3, 'it knows');
  assert.deepEqual([await consumers(first), await consumers(second)], [0, 1]);
});

test('of two streams in quick succession the later one is sent', async () => {
  const [first, second] = [await microphone(), await microphone()];
  const asked = ask();
  track.give(first);
  track.give(second);
  await asked;
  await clock.run(10 * retireMs);
  assert.deepEqual([await consumers(first), await consumers(second)], [0, 1]);
});

test('a track that could not be sent is held anew by the next request', async () => {
  const closed = await microphone();
  closed.close();
  const refused = assert.rejects(ask(), (error) => codeOf(error) === 'TrackPending');
  track.give(closed);
  await refused;
  assert.equal(track.holds, 0);
  const asked = ask();
  track.give(await microphone());
  assert.ok(await asked);
});

test('nothing is sent any more when the other end lets go, and an older request is ignored', async () => {
  const source = await microphone();
  const asked = ask();
  track.give(source);
  await asked;
  assert.equal(await letGo(), undefined);
  assert.equal(track.holds, 0);
  assert.equal(await consumers(source), 0);
  version -= 2;
  await assert.rejects(ask(), (error) => codeOf(error) === 'StaleRequest');
  version += 1;
});
