import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Producer } from 'mediasoup/types';
import type { TrackSupply } from '#proto/weir/fleet/v1/fleet.ts';
import { WeirError } from '#platform/errors.ts';
import { FakeClock } from '#platform/fake-clock.ts';
import { createLogger } from '#platform/log.ts';
import type { LayerDemand } from '../media/demand.ts';
import type { Site } from '../media/site.ts';
import type { Link } from './link.ts';
import { retireMs } from './link-outputs.ts';
import { RemoteOrigin, type Upstream } from './remote-origin.ts';

const log = createLogger({ name: 'test', level: 'silent' });
const low: LayerDemand = { paused: false, layers: 0b001 };
const middle: LayerDemand = { paused: false, layers: 0b011 };
const high: LayerDemand = { paused: false, layers: 0b101 };
const paused: LayerDemand = { paused: true, layers: 0 };
/** Longer than any pause before the same is asked again. */
const aWhile = 10_000;

/** What happens to a request: it and its answer arrive, it is lost, its answer is lost, or NATS is away. */
type Fate = 'answered' | 'lost' | 'unanswered' | 'noNats';

/** A producer of which only its life matters. Two with one stream on one link are refused, as mediasoup refuses them. */
class FakeProducer {
  closed = false;
  readonly stream: string;

  constructor(stream: string) {
    this.stream = stream;
  }

  close(): void {
    this.closed = true;
  }
}

/** A link with both its ends: what the other one was asked for and sends. */
class FakeLink {
  readonly peer: string;
  readonly produced: FakeProducer[] = [];
  closed = false;
  /** What the other end sends; undefined when the track is not asked for there. */
  sent: { stream: string; demand: LayerDemand } | undefined;
  /** The other end has closed its half. */
  unknown = false;
  #streams = 0;
  #version = 0;

  constructor(peer: string) {
    this.peer = peer;
  }

  get transport() {
    const produce = ({ rtpParameters }: { readonly rtpParameters: { readonly cname: string } }) => {
      const stream = rtpParameters.cname;
      if (this.closed) return Promise.reject(new Error('the transport is closed'));
      if (this.open.some((producer) => producer.stream === stream)) return Promise.reject(new Error('ssrc is used'));
      const producer = new FakeProducer(stream);
      this.produced.push(producer);
      return Promise.resolve(producer);
    };
    return { produce };
  }

  get open(): FakeProducer[] {
    return this.produced.filter(({ closed }) => !closed);
  }

  take(version: number, demand: LayerDemand | undefined): TrackSupply | undefined {
    if (this.unknown) throw new WeirError('UnknownLink', 'no such link');
    assert.ok(version > this.#version, 'versions grow');
    this.#version = version;
    if (!demand) this.sent = undefined;
    else this.sent = { stream: this.sent?.stream ?? this.#nextStream(), demand };
    return (
      this.sent && { kind: 'video', rtpParametersJson: `{"cname":"${this.sent.stream}"}`, stream: this.sent.stream }
    );
  }

  /** The other end sends the track as another stream from now on. */
  changeStream(): boolean {
    if (this.sent) this.sent.stream = this.#nextStream();
    return this.sent !== undefined;
  }

  close(): void {
    this.closed = true;
    this.sent = undefined;
    for (const producer of this.produced) producer.close();
  }

  #nextStream(): string {
    return `${this.peer}${(this.#streams += 1)}`;
  }
}

/** A track of another node, its links, and a network that treats requests as the test says. */
class World {
  readonly clock = new FakeClock();
  readonly requests: string[] = [];
  readonly told: string[] = [];
  readonly links: FakeLink[] = [];
  readonly gone: FakeLink[] = [];
  /** What happens to the next requests; all are answered when there are no more. */
  fates: Fate[] = [];
  fate: Fate = 'answered';
  way: FakeLink | undefined;
  readonly origin: RemoteOrigin;

  constructor() {
    const upstream: Upstream = {
      site: {} as Site,
      linkTowards: () => asLink(this.way),
      linkIsGone: (link) => {
        const lost = this.links.find((known) => asLink(known) === link);
        if (lost) this.lose(lost);
      },
      request: (link, _trackSid, version, demand) =>
        this.#request(
          this.links.find((known) => asLink(known) === link),
          version,
          demand,
        ),
    };
    this.origin = new RemoteOrigin({
      ...{ trackSid: 'TR_1', source: 'far', upstream, clock: this.clock, log },
      onProducer: () => this.told.push(this.producer?.stream ?? 'none'),
    });
    this.way = this.link('a');
  }

  get producer(): FakeProducer | undefined {
    return this.origin.producer as unknown as FakeProducer | undefined;
  }

  get open(): string[] {
    return this.links.flatMap(({ open }) => open.map(({ stream }) => stream));
  }

  /** Streams that other ends send. */
  get sending(): string[] {
    return this.links.flatMap(({ sent }) => (sent ? [sent.stream] : []));
  }

  link(peer: string): FakeLink {
    const link = new FakeLink(peer);
    this.links.push(link);
    return link;
  }

  lose(link: FakeLink): void {
    this.gone.push(link);
    link.close();
    if (this.way === link) this.way = undefined;
  }

  turn(way: FakeLink | undefined): void {
    this.way = way;
    this.origin.poke();
  }

  async wants(demand: LayerDemand | undefined, ms = aWhile): Promise<void> {
    this.origin.setDemand(demand);
    await this.clock.run(ms);
  }

  async #request(link: FakeLink | undefined, version: number, demand: LayerDemand | undefined) {
    assert.ok(link && !link.closed, 'nothing is asked over a closed link');
    const fate = this.fates.shift() ?? this.fate;
    this.requests.push(`${link.peer} ${demand ? (demand.paused ? 'paused' : demand.layers.toString(2)) : 'let go'}`);
    if (fate === 'noNats') throw new WeirError('NatsUnavailable', 'away');
    const supply = fate === 'lost' ? undefined : link.take(version, demand);
    const answered = fate === 'answered';
    await new Promise<void>((resolve) => this.clock.after(answered ? 20 : 2000, resolve));
    if (!answered) throw new WeirError('RequestTimeout', 'no answer');
    return supply;
  }
}

/** A fake knows of a link what an origin needs. */
function asLink(link: FakeLink | undefined): Link | undefined {
  return link as unknown as Link | undefined;
}

function asProducer(producer: FakeProducer | undefined): Producer | undefined {
  return producer as unknown as Producer | undefined;
}

/** A world in which a demand is met. */
async function streaming(demand: LayerDemand = high): Promise<World & { way: FakeLink }> {
  const world = new World();
  await world.wants(demand);
  assert.ok(world.way?.sent);
  assert.deepEqual(world.open, ['a1']);
  world.requests.length = 0;
  return world as World & { way: FakeLink };
}

describe('a track of another node', () => {
  it('is asked for when somebody wants it, once, and is there when the other end has answered', async () => {
    const world = new World();
    await world.clock.run(aWhile);
    assert.deepEqual(world.requests, []);
    await world.wants(low);
    assert.deepEqual(world.requests, ['a 1']);
    assert.deepEqual(world.told, ['a1']);
    assert.equal(world.origin.producer, asProducer(world.way?.open[0]));
    assert.equal(world.clock.pending, 0, 'nothing is asked again');
  });

  it('is asked for again with growing pauses while requests are lost, and not any more once one is confirmed', async () => {
    const world = new World();
    world.fates = ['noNats', 'noNats', 'noNats', 'lost'];
    await world.wants(low, 699);
    assert.equal(world.requests.length, 3, 'at 0, 100 and 300 ms');
    await world.clock.run(aWhile);
    assert.equal(world.requests.length, 5);
    assert.deepEqual(world.open, ['a1']);
  });

  it('is asked for when a link comes, if there was none', async () => {
    const world = new World();
    const way = world.way;
    world.turn(undefined);
    await world.wants(low);
    assert.deepEqual(world.requests, []);
    world.turn(way);
    await world.clock.run(aWhile);
    assert.deepEqual(world.open, ['a1']);
  });

  it('is there as soon as NATS is back: the room pokes it', async () => {
    const world = new World();
    world.fate = 'noNats';
    await world.wants(low, 60_000);
    world.fate = 'answered';
    world.origin.poke();
    await world.clock.run(50);
    assert.deepEqual(world.open, ['a1']);
  });
});

describe('what is wanted of it', () => {
  it('reaches the other end at once when it is more, without another stream', async () => {
    const world = await streaming(low);
    await world.wants(high, 50);
    assert.deepEqual(world.requests, ['a 101']);
    assert.deepEqual(world.way.sent?.demand, high);
    assert.deepEqual(world.told, ['a1']);
  });

  it('goes with what was wanted before for a moment when it is other layers, so that nobody is left without', async () => {
    const world = await streaming(high);
    await world.wants(middle);
    assert.deepEqual(world.requests, ['a 111', 'a 11']);
  });

  it('is kept for a moment when it is less, and a quick come-back costs no request', async () => {
    const world = await streaming(high);
    for (const less of [low, paused, undefined]) {
      await world.wants(less, 400);
      await world.wants(high, 400);
    }
    await world.clock.run(aWhile);
    assert.deepEqual(world.requests, []);
    await world.wants(paused);
    assert.deepEqual(world.requests, ['a paused']);
  });

  it('is kept for that moment also while a request is under way or something else happens', async () => {
    const world = await streaming(low);
    await world.wants(high, 10);
    await world.wants(low, 100);
    world.origin.poke();
    await world.clock.run(100);
    await world.wants(high);
    assert.deepEqual(world.requests, ['a 101']);
  });

  it('is asked for again when an answer was lost and what was confirmed before is wanted again', async () => {
    const world = await streaming(high);
    world.fates = ['unanswered'];
    await world.wants(low, 1000);
    assert.deepEqual(world.way.sent?.demand, low);
    await world.wants(high);
    assert.deepEqual(world.way.sent?.demand, high);
  });

  it('is nothing when nobody wants it: the other end stops, then the producer is closed', async () => {
    const world = await streaming();
    await world.wants(undefined);
    assert.deepEqual(world.requests, ['a let go']);
    assert.equal(world.way.sent, undefined);
    assert.deepEqual(world.open, []);
    assert.equal(world.origin.producer, undefined);
    await world.wants(low);
    assert.deepEqual(world.open, ['a2'], 'another stream when somebody comes back');
  });

  it('is asked for again when the word to let go was heard, its answer lost, and somebody came back', async () => {
    const world = await streaming();
    world.fates = ['unanswered'];
    await world.wants(undefined, 1000);
    assert.deepEqual(world.sending, []);
    await world.wants(high);
    assert.deepEqual(world.sending, ['a2']);
    assert.deepEqual(world.open, ['a2']);
  });
});

describe('when the other end sends another stream', () => {
  it('it is taken, and the old one is closed after holders had time to change over', async () => {
    const world = await streaming();
    world.way.changeStream();
    world.origin.streamChanged();
    await world.clock.run(100);
    assert.deepEqual(world.told, ['a1', 'a2']);
    assert.deepEqual(world.open, ['a1', 'a2']);
    await world.clock.run(retireMs);
    assert.deepEqual(world.open, ['a2']);
    assert.deepEqual(world.requests, ['a 101'], 'the other end ends the old one itself');
  });

  it('it is asked for until an answer comes', async () => {
    const world = await streaming();
    world.way.changeStream();
    world.fates = ['lost', 'noNats'];
    world.origin.streamChanged();
    await world.clock.run(aWhile);
    assert.deepEqual(world.open, ['a2']);
  });

  it('and says so while a request is answered with the stream before, it is asked for once more', async () => {
    const world = await streaming(low);
    world.origin.setDemand(high);
    await world.clock.run(10);
    world.way.changeStream();
    world.origin.streamChanged();
    await world.clock.run(aWhile);
    assert.deepEqual(world.open, ['a2']);
  });
});

describe('when the way changes', () => {
  it('the stream over the new link is there before the old one is let go', async () => {
    const world = await streaming();
    const [old, next] = [world.way, world.link('b')];
    world.turn(next);
    await world.clock.run(100);
    assert.deepEqual(world.told, ['a1', 'b1']);
    assert.deepEqual(world.open, ['a1', 'b1']);
    assert.ok(old.sent);
    await world.clock.run(retireMs);
    assert.deepEqual(world.open, ['b1']);
    assert.deepEqual(world.requests, ['b 101', 'a let go']);
  });

  it('the old stream goes on for as long as the new way does not answer', async () => {
    const world = await streaming();
    world.fate = 'lost';
    world.turn(world.link('b'));
    await world.clock.run(60_000);
    assert.deepEqual(world.open, ['a1']);
    assert.equal(world.producer?.closed, false);
    world.fate = 'answered';
    await world.clock.run(aWhile);
    assert.deepEqual(world.open, ['b1']);
  });

  it('and changes back at once, the stream that is still there is used again', async () => {
    const world = await streaming();
    const old = world.way;
    world.turn(world.link('b'));
    await world.clock.run(1000);
    world.turn(old);
    await world.clock.run(1000);
    assert.deepEqual(world.told, ['a1', 'b1', 'a1']);
    await world.clock.run(aWhile);
    assert.deepEqual(world.open, ['a1']);
    assert.deepEqual(
      world.links.map(({ sent }) => sent !== undefined),
      [true, false],
    );
  });

  it('a link that never answered is let go as well', async () => {
    const world = await streaming();
    const [old, silent] = [world.way, world.link('b')];
    world.fates = ['unanswered'];
    world.turn(silent);
    await world.clock.run(500);
    assert.ok(silent.sent);
    world.turn(old);
    await world.clock.run(aWhile);
    assert.equal(silent.sent, undefined);
    assert.deepEqual(world.open, ['a1']);
  });

  it('for the link was replaced, nothing is said over the old one once it is closed', async () => {
    const world = await streaming();
    const old = world.way;
    world.turn(world.link('b'));
    await world.clock.run(1000);
    old.close();
    await world.clock.run(aWhile);
    assert.deepEqual(world.requests, ['b 101']);
  });

  it('for the other end does not know the link any more, the room is told, and the track waits for another', async () => {
    const world = await streaming(low);
    const old = world.way;
    const before = world.producer;
    old.unknown = true;
    await world.wants(high);
    assert.deepEqual(world.gone, [old]);
    assert.equal(before?.closed, true);
    world.turn(world.link('b'));
    await world.clock.run(100);
    assert.deepEqual(world.open, ['b1']);
  });
});

describe('when the track ends', () => {
  it('it is let go of everywhere at once, and wants nothing any more', async () => {
    const world = await streaming();
    world.turn(world.link('b'));
    await world.clock.run(100);
    world.origin.close();
    await world.clock.run(100);
    assert.deepEqual(world.open, []);
    assert.deepEqual(
      world.links.map(({ sent }) => sent),
      [undefined, undefined],
    );
    await world.wants(high);
    assert.deepEqual(world.open, []);
    assert.equal(world.clock.pending, 0);
  });

  it('while NATS is away, the other end is told when it is back', async () => {
    const world = await streaming();
    world.fate = 'noNats';
    world.origin.close();
    await world.clock.run(120_000);
    world.fate = 'answered';
    await world.clock.run(aWhile);
    assert.equal(world.way.sent, undefined);
    assert.deepEqual(world.open, []);
    assert.equal(world.clock.pending, 0);
  });

  it('and its link does as well, nothing goes on', async () => {
    const world = await streaming();
    world.fate = 'noNats';
    world.origin.close();
    await world.clock.run(1000);
    world.way.close();
    await world.clock.run(aWhile);
    assert.equal(world.clock.pending, 0);
  });
});

type Step =
  | { readonly do: 'want'; readonly demand: LayerDemand | undefined }
  | { readonly do: 'turn' | 'lose' | 'forget' | 'change'; readonly link: number }
  | { readonly do: 'wait'; readonly ms: number };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('want' as const),
        demand: fc.constantFrom(undefined, low, middle, high, paused),
      }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('turn' as const), link: fc.nat(2) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('lose', 'forget', 'change'), link: fc.nat(2) }) },
    { weight: 5, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(5, 30, 300, 2500) }) },
  ),
  { maxLength: 40, size: 'max' },
);
const fates = fc.array(fc.constantFrom<Fate[]>('answered', 'answered', 'answered', 'lost', 'unanswered', 'noNats'), {
  maxLength: 40,
  size: 'max',
});

/** Three links; one that is lost or forgotten is replaced by another to the same node. */
async function play(world: World, list: readonly Step[]): Promise<LayerDemand | undefined> {
  const ways = [world.way!, world.link('b'), world.link('c')];
  let wanted: LayerDemand | undefined;
  const replace = (index: number) => {
    const old = ways[index]!;
    const next = (ways[index] = world.link(old.peer + "'"));
    if (world.way === old || world.way === undefined) world.turn(next);
  };
  for (const step of list) {
    if (step.do === 'wait') await world.clock.run(step.ms);
    else if (step.do === 'want') world.origin.setDemand((wanted = step.demand));
    else if (step.do === 'turn') world.turn(ways[step.link]);
    else if (step.do === 'forget') ways[step.link]!.unknown = true;
    else if (step.do === 'change') {
      if (ways[step.link]!.changeStream()) world.origin.streamChanged();
    } else {
      ways[step.link]!.close();
      replace(step.link);
    }
    for (const [index, { closed }] of ways.entries()) if (closed) replace(index);
  }
  return wanted;
}

describe('whatever is wanted, lost and changed', () => {
  it('in the end exactly what is wanted comes over the way that there is, and nothing over any other', async () => {
    await fc.assert(
      fc.asyncProperty(steps, fates, async (list, drawn) => {
        const world = new World();
        world.fates = [...drawn];
        const wanted = await play(world, list);
        world.fates = [];
        await world.clock.run(60_000);
        // A link that the other end has closed goes silent, and the room puts another in its place.
        for (const link of world.links) if (link.unknown && !link.closed) world.lose(link);
        if (!world.way) world.turn(world.link('d'));
        await world.clock.run(60_000);
        const sending = world.links.filter(({ sent }) => sent);
        assert.deepEqual(
          sending.map(({ sent }) => sent?.demand),
          wanted ? [wanted] : [],
        );
        assert.deepEqual(world.open, wanted ? [world.way?.sent?.stream] : []);
        assert.equal(world.producer?.closed ?? true, !wanted);
        assert.equal(world.clock.pending, 0, 'nothing is asked for ever');
      }),
      { numRuns: 200 },
    );
  });
});
