import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DisconnectReason, ParticipantInfo } from '@livekit/protocol';
import fc from 'fast-check';
import { FeedEntries, FeedReply, FeedRequest, RoomNow } from '#proto/weir/fleet/v1/fleet.ts';
import { FakeClock } from '#platform/fake-clock.ts';
import { FeedFollower, type FeedChange } from './feed-follower.ts';
import { FeedLog, feedLimits, type FeedLimits } from './feed-log.ts';

/** What happens on the peer, to the network, or on the node that follows. */
type Step =
  | { readonly do: 'join' | 'change' | 'leave'; readonly who: number }
  | { readonly do: 'data' | 'now' | 'digest' | 'ask' | 'restart' | 'cut' | 'mend' }
  | { readonly do: 'wait'; readonly ms: number };

/** What the network does with a message: loses it, brings it at once, brings it twice, or keeps it for later. */
type Fate = 'lost' | 'now' | 'twice' | 'later';

interface Run {
  readonly steps: readonly Step[];
  /** One a message, from the start again when they run out. */
  readonly fates: readonly Fate[];
  /** Which of the messages kept for later comes next, as a share of them. */
  readonly order: readonly number[];
}

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom('join', 'change', 'leave'), who: fc.nat(5) }) },
  { weight: 6, arbitrary: fc.constant({ do: 'data' as const }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constantFrom('digest', 'ask', 'now') }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('restart', 'cut', 'mend') }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.nat(20_000) }) },
);
const runs: fc.Arbitrary<Run> = fc.record({
  steps: fc.array(step, { maxLength: 120, size: 'max' }),
  fates: fc.array(fc.constantFrom<Fate[]>('lost', 'now', 'now', 'now', 'twice', 'later'), {
    minLength: 1,
    maxLength: 60,
    size: 'max',
  }),
  order: fc.array(fc.double({ min: 0, max: 0.999, noNaN: true }), { minLength: 1, maxLength: 20 }),
});

/** A peer, a node that follows it, and a bad network between. Everything said of the feed is checked as it comes. */
class World {
  readonly limits: FeedLimits;
  readonly #run: Run;
  readonly #clock = new FakeClock();
  readonly #follower: FeedFollower;
  #log: FeedLog;
  #incarnation = 1;
  #version = 0;
  #packets = 0;
  #nows = 0;
  #cut = false;
  #fate = 0;
  #order = 0;
  #late: (() => void)[] = [];
  /** The room as the changes told of it: version by sid. */
  readonly seen = new Map<string, number>();
  readonly #gone = new Set<string>();
  /** Participants that left on the peer. */
  readonly #departed = new Set<string>();
  #lastData: { incarnation: number; packet: number } | undefined;
  #lastNow = { incarnation: 0, sequence: 0 };
  lost = 0;

  constructor(run: Run, limits: FeedLimits) {
    this.#run = run;
    this.limits = limits;
    this.#follower = new FeedFollower(limits);
    this.#log = this.#begin();
  }

  take(step: Step): void {
    switch (step.do) {
      case 'join':
      case 'change':
        return this.#publish(this.#log.participant(this.#info(step.who)));
      case 'leave':
        return this.#publish(this.#log.left(this.#sid(step.who), DisconnectReason.CLIENT_INITIATED));
      case 'data':
        return this.#publish(this.#log.reliable({ sid: String(this.#incarnation), packet: this.#nextPacket() }));
      case 'now':
        return this.#publishNow();
      case 'digest':
        return this.#publish(this.#log.digest());
      case 'ask':
        return this.#ask();
      case 'restart':
        this.#incarnation++;
        this.#packets = 0;
        this.#nows = 0;
        this.#log = this.#begin();
        return;
      case 'cut':
      case 'mend':
        this.#cut = step.do === 'cut';
        return;
      case 'wait':
        return this.#clock.advance(step.ms);
    }
  }

  /** The network is well again and brings what it kept: everything must come right. */
  settle(): void {
    while (this.#late.length > 0) this.#bringLate();
    this.#cut = false;
    this.#fate = -1;
    this.take({ do: 'digest' });
    let asked = 0;
    while (this.#follower.missing()) {
      this.take({ do: 'ask' });
      assert.ok(++asked < 200, `it goes on asking for ${JSON.stringify(this.#follower.missing())}`);
    }
    const state = [...this.#log.participants.values()].map((bytes) => ParticipantInfo.fromBinary(bytes));
    assert.deepEqual(sorted(this.seen), sorted(new Map(state.map(({ sid, version }) => [sid, version]))));
    assert.deepEqual(
      sorted(new Map([...this.#follower.participants.values()].map(({ sid, version }) => [sid, version]))),
      sorted(this.seen),
    );
    const { incarnation, packet } = this.#lastData ?? { incarnation: 0, packet: 0 };
    if (incarnation === this.#incarnation) assert.equal(packet, this.#packets, 'the last data came, or was counted');
  }

  #begin(): FeedLog {
    return new FeedLog({ node: 'a', incarnation: this.#incarnation, clock: this.#clock, limits: this.limits });
  }

  /** A participant that left comes back under another sid. */
  #sid(who: number): string {
    const sid = (join: number) => `${this.#incarnation}-${who}-${join}`;
    let join = 0;
    while (this.#departed.has(sid(join))) join++;
    return sid(join);
  }

  #info(who: number): ParticipantInfo {
    return new ParticipantInfo({ sid: this.#sid(who), version: ++this.#version, metadata: 'm'.repeat(who * 20) });
  }

  #nextPacket(): Buffer {
    return Buffer.from(String(++this.#packets));
  }

  #publish(run: FeedEntries | undefined): void {
    if (!run) return;
    for (const { entry } of run.entries) if (entry?.$case === 'left') this.#departed.add(entry.value.sid);
    const message = this.#fits(FeedEntries.encode(run).finish());
    this.#send(() => this.#check(this.#follower.entries(FeedEntries.decode(message))));
  }

  #publishNow(): void {
    const passing = { speakers: [], qualities: [], data: [] };
    const message = RoomNow.encode({
      ...passing,
      node: 'a',
      incarnation: this.#incarnation,
      sequence: ++this.#nows,
    }).finish();
    this.#send(() => {
      const { incarnation, sequence } = RoomNow.decode(message);
      if (!this.#follower.now(incarnation, sequence)) return;
      const last = this.#lastNow;
      assert.ok(incarnation > last.incarnation || (incarnation === last.incarnation && sequence > last.sequence));
      this.#lastNow = { incarnation, sequence };
    });
  }

  #ask(): void {
    const request = FeedRequest.encode({ roomUid: 'room', ...this.#follower.probe() }).finish();
    this.#send(() => {
      const answer = this.#fits(FeedReply.encode(this.#log.answer(FeedRequest.decode(request))).finish());
      this.#send(() => {
        const { result } = FeedReply.decode(answer);
        if (result?.$case === 'entries') this.#check(this.#follower.entries(result.value));
        else if (result?.$case === 'snapshot') this.#check(this.#follower.snapshot(result.value));
        else assert.fail('an answer without entries or snapshot');
      });
    });
  }

  #fits(message: Uint8Array): Uint8Array {
    assert.ok(message.length <= this.limits.messageBytes, `a message has ${message.length} bytes`);
    return message;
  }

  #send(bring: () => void): void {
    const fate = this.#fate < 0 ? 'now' : (this.#run.fates[this.#fate++ % this.#run.fates.length] ?? 'now');
    if (this.#cut || fate === 'lost') return;
    if (fate === 'later' || fate === 'twice') this.#late.push(bring);
    if (fate !== 'later') bring();
    if (this.#late.length > 5) this.#bringLate();
  }

  #bringLate(): void {
    const share = this.#run.order[this.#order++ % this.#run.order.length] ?? 0;
    const [bring] = this.#late.splice(Math.floor(share * this.#late.length), 1);
    bring?.();
  }

  #check(changes: readonly FeedChange[]): void {
    for (const change of changes) {
      switch (change.kind) {
        case 'participant':
          assert.ok(!this.#gone.has(change.info.sid), `${change.info.sid} came back`);
          assert.ok((this.seen.get(change.info.sid) ?? 0) < change.info.version, 'nothing becomes older');
          this.seen.set(change.info.sid, change.info.version);
          break;
        case 'left':
          assert.ok(this.seen.delete(change.sid), `${change.sid} left without having been there`);
          this.#gone.add(change.sid);
          break;
        case 'data':
          this.#checkData(Number(change.data.sid), Number(change.data.packet.toString()));
          break;
        case 'lost':
          this.lost += change.packets;
          if (this.#lastData) this.#lastData.packet += change.packets;
          break;
        case 'gap':
          break;
        case 'malformed':
          assert.fail('nothing was malformed');
      }
    }
  }

  #checkData(incarnation: number, packet: number): void {
    const last = this.#lastData;
    assert.ok(!last || incarnation >= last.incarnation, 'an earlier incarnation spoke');
    if (last?.incarnation === incarnation) assert.equal(packet, last.packet + 1, 'data came in order, none twice');
    this.#lastData = { incarnation, packet };
  }
}

function sorted(room: ReadonlyMap<string, number>): [string, number][] {
  return [...room].sort(([a], [b]) => a.localeCompare(b));
}

function play(run: Run, limits: FeedLimits): World {
  const world = new World(run, limits);
  for (const next of run.steps) world.take(next);
  world.settle();
  return world;
}

describe('a feed over a network that loses, repeats, delays and reorders, with restarts and partitions', () => {
  it('comes to the same room on both sides, with data in order and nobody who comes back', () => {
    const limits = { ...feedLimits, ageMs: Infinity };
    fc.assert(
      fc.property(runs, (run) => {
        assert.equal(play(run, limits).lost, 0, 'all is kept, so nothing may be lost');
      }),
      { numRuns: 1000 },
    );
  });

  it('does so when little is kept and a message holds little', () => {
    const limits = { entries: 6, bytes: 600, ageMs: 30_000, messageBytes: 1024 + 250 };
    fc.assert(
      fc.property(runs, (run) => {
        play(run, limits);
      }),
      { numRuns: 1000 },
    );
  });
});
