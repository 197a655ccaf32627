import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TrackInfo, TrackType, VideoQuality } from '@livekit/protocol';
import type { Producer } from 'mediasoup/types';
import type { LayerDemand } from './demand.ts';
import type { Site } from './site.ts';
import { PublishedTrack, qualityFor, type TrackOrigin } from './track.ts';

const low: LayerDemand = { paused: false, layers: 0b001 };
const high: LayerDemand = { paused: false, layers: 0b101 };
const paused: LayerDemand = { paused: true, layers: 0 };

/** Where a track comes in, by hand. */
class FakeOrigin implements TrackOrigin {
  readonly site = {} as Site;
  producer: Producer | undefined;
  readonly demands: (LayerDemand | undefined)[] = [];

  setDemand(demand: LayerDemand | undefined): void {
    this.demands.push(demand);
  }
}

function trackOf(origin: TrackOrigin): PublishedTrack {
  const info = new TrackInfo({ sid: 'TR_1', type: TrackType.VIDEO });
  return new PublishedTrack({ sid: 'PA_1', identity: 'ada' }, info, origin, (error) => assert.fail(String(error)));
}

function producer(id: string, closed = false): Producer {
  return { id, closed } as Producer;
}

/** Somebody who notes which producers it is told of. */
function listener() {
  const told: string[] = [];
  return { told, onProducer: ({ id }: Producer) => void told.push(id) };
}

test('who holds a track is told of its producer at once, or when it is there, and of each that takes its place', () => {
  const origin = new FakeOrigin();
  const track = trackOf(origin);
  const [early, late] = [listener(), listener()];
  track.hold(origin.site, low, early.onProducer);
  assert.deepEqual(early.told, []);
  origin.producer = producer('first');
  track.refresh();
  track.hold(origin.site, low, late.onProducer);
  track.refresh();
  origin.producer = producer('second');
  track.refresh();
  for (const { told } of [early, late]) assert.deepEqual(told, ['first', 'second']);
});

test('nobody is told of a producer that is closed', () => {
  const origin = new FakeOrigin();
  origin.producer = producer('gone', true);
  const { told, onProducer } = listener();
  const track = trackOf(origin);
  track.hold(origin.site, low, onProducer);
  assert.deepEqual(told, []);
});

test('the origin is told what all who hold the track want together, and only when that changes', () => {
  const origin = new FakeOrigin();
  const track = trackOf(origin);
  const ignore = () => undefined;
  const first = track.hold(origin.site, low, ignore);
  const second = track.hold(origin.site, low, ignore);
  second.update(high);
  first.update(paused);
  first.update(low);
  second.update(paused);
  first.update(paused);
  assert.deepEqual(origin.demands, [low, high, low, paused]);
});

test('the origin is told when nobody holds the track any more; letting go twice is letting go once', () => {
  const origin = new FakeOrigin();
  const track = trackOf(origin);
  const ignore = () => undefined;
  const first = track.hold(origin.site, low, ignore);
  const second = track.hold(origin.site, low, ignore);
  first.release();
  first.release();
  assert.deepEqual(origin.demands, [low]);
  second.release();
  assert.deepEqual(origin.demands, [low, undefined]);
});

test('a track that has ended wants nothing and tells nobody', () => {
  const origin = new FakeOrigin();
  const track = trackOf(origin);
  const { told, onProducer } = listener();
  const hold = track.hold(origin.site, low, onProducer);
  track.close();
  origin.producer = producer('late');
  track.refresh();
  hold.update(high);
  hold.release();
  assert.deepEqual(told, []);
  assert.deepEqual(origin.demands, [low, undefined]);
});

test('who lets go while it is told of a producer is told of no other', () => {
  const origin = new FakeOrigin();
  const track = trackOf(origin);
  const told: string[] = [];
  const hold = track.hold(origin.site, low, ({ id }) => {
    told.push(id);
    hold.release();
  });
  for (const id of ['first', 'second']) {
    origin.producer = producer(id);
    track.refresh();
  }
  assert.deepEqual(told, ['first']);
});

test('the quality of a track is the lowest whose layer is as large as what is shown', () => {
  const info = new TrackInfo({
    layers: [
      { quality: VideoQuality.LOW, width: 320, height: 180 },
      { quality: VideoQuality.MEDIUM, width: 640, height: 360 },
      { quality: VideoQuality.HIGH, width: 1280, height: 720 },
    ],
  });
  assert.equal(qualityFor(info, 200, 100), VideoQuality.LOW);
  assert.equal(qualityFor(info, 321, 181), VideoQuality.MEDIUM);
  assert.equal(qualityFor(info, 4000, 3000), VideoQuality.HIGH);
  assert.equal(qualityFor(info, 0, 0), VideoQuality.HIGH);
});
