import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TrackSource } from '@livekit/protocol';
import type { PublishedTrack } from '../media/track.ts';
import type { TrackSender } from '../media/track-sender.ts';
import { restore, settleMs } from './congestion.ts';
import { LinkGovernor, type GovernedFigures } from './link-governor.ts';

const calm: GovernedFigures = { rttMs: 20, loss: 0, sentKbps: 1000 };
const lossy: GovernedFigures = { ...calm, loss: 0.2 };

/** One track on a link, and the cap that its sender was given last. */
class Track {
  readonly sid: string;
  readonly #kind: 'audio' | 'video';
  readonly #source: TrackSource;
  readonly #top: number;
  wantedTop: number;
  cap: number | undefined;

  constructor(sid: string, kind: 'audio' | 'video', source = TrackSource.CAMERA) {
    this.sid = sid;
    this.#kind = kind;
    this.#source = source;
    this.#top = kind === 'audio' ? 0 : 2;
    this.wantedTop = this.#top;
  }

  get onLink(): { track: PublishedTrack; sender: TrackSender } {
    const track = { sid: this.sid, kind: this.#kind, publisherSid: `PA_${this.sid}`, info: { source: this.#source } };
    const sender = { top: this.#top, wantedTop: this.wantedTop, setCap: (layer: number) => (this.cap = layer) };
    return { track: track as PublishedTrack, sender: sender as unknown as TrackSender };
  }
}

/** A governor that looks once a settling time. */
function looking(tracks: readonly Track[], isSpeaking: (participantSid: string) => boolean = () => false) {
  const governor = new LinkGovernor(100, isSpeaking);
  let now = 1_000_000;
  const look = (figures: GovernedFigures, times = 1) => {
    for (let each = 0; each < times; each += 1) {
      now += settleMs;
      governor.govern(
        figures,
        tracks.map(({ onLink }) => onLink),
        now,
      );
    }
    return tracks.map(({ cap }) => cap);
  };
  return { governor, look };
}

test('on a link without trouble no track has a cap, not even one of which little is wanted now', () => {
  const [shown, hidden] = [new Track('a', 'video'), new Track('b', 'video')];
  hidden.wantedTop = -1;
  const { governor, look } = looking([shown, hidden, new Track('c', 'audio')]);
  assert.deepEqual(look(calm), [2, 2, 0]);
  assert.equal(governor.degradation, undefined);
});

test('a congested link loses layers, more at each look, of video that nobody speaks in first, and of audio none', () => {
  const tracks = [
    new Track('a', 'audio'),
    new Track('b', 'video'),
    new Track('c', 'video'),
    new Track('d', 'video', TrackSource.SCREEN_SHARE),
  ];
  const { governor, look } = looking(tracks, (sid) => sid === 'PA_b');
  assert.deepEqual(look(lossy), [0, 2, 1, 2]);
  assert.equal(governor.degradation, 'Loss');
  assert.equal(governor.steps, 1);
  assert.deepEqual(look(lossy), [0, 2, -1, 2]);
  assert.deepEqual(look(lossy), [0, 0, -1, 2]);
  assert.deepEqual(look(lossy), [0, -1, -1, 1]);
  assert.deepEqual(look(lossy, 20), [0, -1, -1, -1]);
  assert.equal(governor.steps, 9);
});

test('layers come back one after the other when the link was good for a while, and until then it is told as degraded', () => {
  const { governor, look } = looking([new Track('a', 'video')]);
  assert.deepEqual(look(lossy, 2), [0]);
  assert.deepEqual(look(calm), [0]);
  assert.equal(governor.degradation, 'Recovering');
  assert.deepEqual(look(calm, restore.firstMs / settleMs), [1]);
  assert.deepEqual(look(calm, restore.firstMs / settleMs), [2]);
  assert.equal(governor.degradation, undefined);
});

test('a layer that is not wanted any more is none that is left out', () => {
  const track = new Track('a', 'video');
  const { governor, look } = looking([track]);
  look(lossy, 3);
  assert.equal(governor.steps, 3);
  track.wantedTop = 0;
  look(lossy);
  assert.equal(governor.steps, 1);
});
