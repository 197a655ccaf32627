import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ParticipantInfo } from '@livekit/protocol';
import { FeedReply, FeedRequest } from '#proto/weir/fleet/v1/fleet.ts';
import { WeirError } from '#platform/errors.ts';
import { FakeClock } from '#platform/fake-clock.ts';
import { createLogger } from '#platform/log.ts';
import type { FeedChange } from './feed-follower.ts';
import { FeedLog } from './feed-log.ts';
import { FeedPeer } from './feed-peer.ts';

const silent = createLogger({ name: 'test', level: 'silent' });

/** A peer that is followed, and NATS in between as a test wants it. */
class World {
  readonly clock = new FakeClock();
  readonly log = new FeedLog({ node: 'a', incarnation: 1, clock: this.clock });
  readonly requests: FeedRequest[] = [];
  readonly changes: FeedChange[] = [];
  connected = true;
  /** What is answered; undefined: nobody is there. */
  answer: ((request: FeedRequest) => FeedReply) | undefined = (request) => this.log.answer(request);
  /** Answers are out only when this resolves. */
  gate: Promise<void> = Promise.resolve();
  readonly peer: FeedPeer;

  constructor() {
    const nats = {
      isConnected: () => this.connected,
      get connected() {
        return this.isConnected();
      },
      request: (subject: string, message: Uint8Array) => this.#answer(subject, message),
    };
    const onChanges = (changes: FeedChange[]) => void this.changes.push(...changes);
    this.peer = new FeedPeer({ roomUid: 'room', node: 'a', nats, clock: this.clock, log: silent, onChanges });
  }

  async #answer(subject: string, message: Uint8Array): Promise<Uint8Array> {
    assert.equal(subject, 'weir.feed.a');
    const request = FeedRequest.decode(message);
    this.requests.push(request);
    await this.gate;
    if (!this.answer) throw new WeirError('NoResponders', 'nobody answers');
    return FeedReply.encode(this.answer(request)).finish();
  }

  /** Kinds of the changes so far. */
  get kinds(): string[] {
    return this.changes.map(({ kind }) => kind);
  }
}

const ann = new ParticipantInfo({ sid: 'ann' });

describe('a peer of a room', () => {
  it('is asked for its state, once', async () => {
    const world = new World();
    world.log.participant(ann);
    world.peer.askIfMissing();
    await world.clock.run(10_000);
    assert.deepEqual(world.kinds, ['participant']);
    assert.equal(world.requests.length, 1);
  });

  it('gets one request at a time', async () => {
    const world = new World();
    const { promise, resolve } = Promise.withResolvers<void>();
    world.gate = promise;
    world.peer.askIfMissing();
    world.log.participant(ann);
    world.log.reliable({ sid: 'ann', packet: Buffer.from('one') });
    world.peer.entries(world.log.digest());
    world.peer.askIfMissing();
    await world.clock.run(0);
    assert.equal(world.requests.length, 1);
    resolve();
    await world.clock.run(0);
    assert.deepEqual(world.kinds, ['participant']);
  });

  it('is asked again with growing pauses while it does not answer, and no further once it did', async () => {
    const world = new World();
    world.answer = undefined;
    world.peer.askIfMissing();
    const at: number[] = [];
    for (let ms = 0; ms < 1500; ms += 50) {
      await world.clock.run(50);
      at.push(world.requests.length);
    }
    assert.deepEqual(
      [0, 50, 150, 350, 750, 1250].map((ms) => at[ms / 50]),
      [2, 2, 3, 4, 5, 6],
    );
    world.answer = (request) => world.log.answer(request);
    await world.clock.run(5_000);
    assert.equal(world.requests.length, 7);
  });

  it('is asked again when it does not serve the room yet', async () => {
    const world = new World();
    world.answer = () => ({ result: { $case: 'error', value: { code: 'RoomNotServed', message: 'not here' } } });
    world.peer.askIfMissing();
    await world.clock.run(1_000);
    world.answer = (request) => world.log.answer(request);
    world.log.participant(ann);
    await world.clock.run(1_000);
    assert.deepEqual(world.kinds, ['participant']);
  });

  it('is asked at once when NATS is there again, also when nothing is known to be missing', async () => {
    const world = new World();
    world.peer.askIfMissing();
    await world.clock.run(0);
    world.connected = false;
    world.log.participant(ann);
    await world.clock.run(10_000);
    world.connected = true;
    world.peer.connected();
    await world.clock.run(0);
    assert.deepEqual(world.kinds, ['participant']);
    assert.deepEqual([world.requests[1]?.from, world.requests[1]?.state], [1, false]);
  });

  it('is not asked while NATS is away, and keeps what is known of it', async () => {
    const world = new World();
    world.log.participant(ann);
    world.peer.askIfMissing();
    await world.clock.run(0);
    world.connected = false;
    world.answer = undefined;
    world.peer.entries({ node: 'a', incarnation: 1, first: 9, entries: [] });
    await world.clock.run(60_000);
    assert.equal(world.requests.length, 1);
    assert.deepEqual([...world.peer.follower.participants.keys()], ['ann']);
  });

  it('is not asked without end for what it does not have', async () => {
    const world = new World();
    world.peer.askIfMissing();
    await world.clock.run(0);
    world.peer.entries({ node: 'a', incarnation: 1, first: 1_000_000, entries: [] });
    await world.clock.run(10_000);
    assert.ok(world.requests.length < 30, `${world.requests.length} requests`);
    world.log.participant(ann);
    await world.clock.run(1_000);
    assert.deepEqual(world.kinds, ['gap', 'participant']);
  });

  it('may answer in words that nobody reads, or for another node: that changes nothing', async () => {
    const world = new World();
    world.log.participant(ann);
    world.answer = () => ({ result: undefined });
    world.peer.askIfMissing();
    await world.clock.run(0);
    const other = new FeedLog({ node: 'b', incarnation: 1, clock: world.clock });
    world.answer = (request) => other.answer(request);
    await world.clock.run(50);
    assert.deepEqual(world.kinds, ['malformed', 'malformed']);
    assert.equal(world.peer.follower.participants.size, 0);
  });

  it('is not heard after its end', async () => {
    const world = new World();
    const { promise, resolve } = Promise.withResolvers<void>();
    world.gate = promise;
    world.log.participant(ann);
    world.peer.askIfMissing();
    world.peer.close();
    resolve();
    await world.clock.run(10_000);
    assert.deepEqual(world.changes, []);
    assert.equal(world.clock.pending, 0);
    assert.equal(world.requests.length, 1);
  });
});
