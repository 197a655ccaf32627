import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type { Producer } from 'mediasoup/types';
import { LinkState } from '#proto/weir/control/v1/control.ts';
import { codeOf } from '#platform/errors.ts';
import type { Link } from '#sfu-node/cascade/link.ts';
import { codecsOf } from '#sfu-node/media/codecs.ts';
import type { LayerDemand } from '#sfu-node/media/demand.ts';
import { Site } from '#sfu-node/media/site.ts';
import { SyntheticCamera } from '#tools/bench/synthetic-camera.ts';
import { SyntheticMicrophone } from '#tools/bench/synthetic-microphone.ts';
import { eventually } from '#tools/local/eventually.ts';
import { LocalNats } from '#tools/local/nats.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';
import { assignmentOf, CascadeNode, type CascadeRoom, type Holder, type RoomPlan } from './cascade-node.ts';

/** Tracks over cascade links between real workers: asked for, sent in the layers that are wanted, and let go. */
const low: LayerDemand = { paused: false, layers: 0b001 };
const lowAndHigh: LayerDemand = { paused: false, layers: 0b101 };
const paused: LayerDemand = { paused: true, layers: 0 };
const audio = low;

let nats: LocalNats;
let a: CascadeNode;
let b: CascadeNode;
let c: CascadeNode;
let rooms = 0;
/** A room of its own for every test. */
let uid: string;
const opened: { close: () => void }[] = [];

before(async () => {
  nats = await LocalNats.start({ dir: temporaryDirectory('cascade-tracks') });
  [a, b, c] = (await Promise.all(['a', 'b', 'c'].map((name) => CascadeNode.start(name, nats)))) as [
    CascadeNode,
    CascadeNode,
    CascadeNode,
  ];
});

beforeEach(() => {
  uid = `room-${(rooms += 1)}`;
});

afterEach(() => {
  for (const each of opened.splice(0).reverse()) each.close();
});

after(async () => {
  await Promise.all([a?.close(), b?.close(), c?.close()]);
  await nats?.stop();
});

async function serve(node: CascadeNode, plan: Omit<RoomPlan, 'uid'>): Promise<CascadeRoom> {
  const room = await node.serve({ uid, ...plan });
  opened.push(room);
  return room;
}

async function isUp(room: CascadeRoom, peer: string): Promise<Link> {
  return eventually(() => (room.status(peer)?.state === LinkState.UP ? room.links.linkTowards(peer) : undefined), {
    what: `the link to ${peer}`,
    timeoutMs: 20_000,
  });
}

async function pair(): Promise<[CascadeRoom, CascadeRoom]> {
  const rooms = await Promise.all([serve(a, { links: ['b'] }), serve(b, { links: ['a'] })]);
  await Promise.all([isUp(rooms[0], 'b'), isUp(rooms[1], 'a')]);
  return rooms;
}

/** Three nodes, each linked with the others. */
async function mesh(): Promise<[CascadeRoom, CascadeRoom, CascadeRoom]> {
  const rooms = await Promise.all([
    serve(a, { links: ['b', 'c'] }),
    serve(b, { links: ['a', 'c'] }),
    serve(c, { links: ['a', 'b'] }),
  ]);
  await Promise.all([isUp(rooms[0], 'b'), isUp(rooms[0], 'c'), isUp(rooms[1], 'c')]);
  await Promise.all([isUp(rooms[1], 'a'), isUp(rooms[2], 'a'), isUp(rooms[2], 'b')]);
  return rooms;
}

async function microphone(room: CascadeRoom): Promise<Producer> {
  const source = await SyntheticMicrophone.start(await room.site.router.createDirectTransport(), -30);
  opened.push(source);
  return source.producer;
}

async function camera(room: CascadeRoom): Promise<SyntheticCamera> {
  const source = await SyntheticCamera.start(await room.site.router.createDirectTransport());
  opened.push(source);
  return source;
}

async function packets(producer: Producer | undefined): Promise<number> {
  const stats = (await producer?.getStats()) ?? [];
  return stats.reduce((sum, { packetCount }) => sum + packetCount, 0);
}

/** The newest producer that a holder was told of gets packets, more than before. */
async function flows({ told }: Holder): Promise<void> {
  const producer = await eventually(() => told.at(-1), { what: 'the track' });
  const seen = await packets(producer);
  await eventually(async () => (await packets(told.at(-1))) > seen + 5, { what: 'packets', timeoutMs: 20_000 });
}

/** Layers that come in, as bits. */
function layersOf({ told }: Holder): number {
  const scores = told.at(-1)?.score ?? [];
  return scores.reduce((bits, { encodingIdx, score }) => (score > 0 ? bits | (1 << encodingIdx) : bits), 0);
}

describe('a track', () => {
  test('crosses a link only while somebody holds it, and once however many hold it', async () => {
    const [onA, onB] = await pair();
    const source = await microphone(onA);
    onA.publish('TR_1', source);
    onB.learn('TR_1', 'audio', 'a');
    assert.equal(await onA.consumers(source), 0);
    const holders = [onB.hold('TR_1', audio), onB.hold('TR_1', audio), onB.hold('TR_1', audio)];
    for (const holder of holders) await flows(holder);
    assert.equal(new Set(holders.flatMap(({ told }) => told)).size, 1);
    assert.equal(await onA.consumers(source), 1);
    assert.deepEqual(
      [a.cascade.links.tracks, b.cascade.links.tracks],
      [
        { in: 0, out: 1 },
        { in: 1, out: 0 },
      ],
    );
    for (const { hold } of holders.slice(1)) hold.release();
    await flows(holders[0]!);
    holders[0]!.hold.release();
    await eventually(async () => (await onA.consumers(source)) === 0, { what: 'it to be sent no more' });
    assert.equal(holders[0]?.told[0]?.closed, true);
    assert.deepEqual(onA.asked.get('TR_1'), [audio, undefined]);
    await flows(onB.hold('TR_1', audio));
  });

  test('comes when it is known at the other end only after it was asked for', async () => {
    const [onA, onB] = await pair();
    onB.learn('TR_1', 'audio', 'a');
    const holder = onB.hold('TR_1', audio);
    await eventually(async () => (await a.refusals('TrackPending')) > 0, { what: 'a refusal' });
    onA.publish('TR_1', await microphone(onA));
    await flows(holder);
  });

  test('ends on every node when it ends where it is published, and may be followed by another of the same id', async () => {
    const [onA, onB] = await pair();
    const source = await microphone(onA);
    onA.publish('TR_1', source);
    onB.learn('TR_1', 'audio', 'a');
    const holder = onB.hold('TR_1', audio);
    await flows(holder);
    onA.end('TR_1');
    onB.end('TR_1');
    await eventually(async () => (await onA.consumers(source)) === 0, { what: 'it to be sent no more' });
    await eventually(() => holder.told[0]?.closed, { what: 'its producer to be closed' });
    onA.publish('TR_1', source);
    onB.learn('TR_1', 'audio', 'a');
    await flows(onB.hold('TR_1', audio));
  });

  test('crosses in the layers that are wanted and no others, and its publisher is told which', async () => {
    const [onA, onB] = await pair();
    const source = await camera(onA);
    onA.publish('TR_1', source.producer);
    onB.learn('TR_1', 'video', 'a');
    const first = onB.hold('TR_1', low);
    await flows(first);
    await eventually(() => layersOf(first) === 0b001, { what: 'the low layer' });
    const second = onB.hold('TR_1', lowAndHigh);
    await eventually(() => layersOf(first) === 0b101, { what: 'the top layer as well' });
    assert.deepEqual(first.told, second.told, 'one producer for both');
    second.hold.release();
    await eventually(() => layersOf(first) === 0b001, { what: 'the low layer alone' });
    first.hold.update(paused);
    await eventually(() => layersOf(first) === 0, { what: 'nothing' });
    first.hold.update(lowAndHigh);
    await eventually(() => layersOf(first) === 0b101, { what: 'both again' });
    assert.deepEqual(onA.asked.get('TR_1'), [low, lowAndHigh, low, paused, lowAndHigh]);
  });

  test('that is asked for the wrong way round is refused: no stream goes in a circle', async () => {
    const [onA, onB] = await pair();
    onA.publish('TR_1', await microphone(onA));
    onB.learn('TR_1', 'audio', 'a');
    const link = (await isUp(onA, 'b')).id;
    const request = { roomUid: uid, epoch: 1, link, trackSid: 'TR_1', version: 1, demand: low };
    await assert.rejects(a.cascade.requestTrack('b', request), (error) => codeOf(error) === 'WrongWay');
    assert.equal(await b.refusals('WrongWay'), 1);
  });

  test('is refused over a link that is not there, at another epoch, and when a newer request was seen', async () => {
    const [onA, onB] = await pair();
    onA.publish('TR_1', await microphone(onA));
    onB.learn('TR_1', 'audio', 'a');
    await flows(onB.hold('TR_1', audio));
    const link = (await isUp(onB, 'a')).id;
    const request = { roomUid: uid, epoch: 1, link, trackSid: 'TR_1', version: Number.MAX_SAFE_INTEGER, demand: audio };
    const refused = async (code: string, more: Partial<typeof request>) => {
      const counted = await a.refusals(code);
      await assert.rejects(b.cascade.requestTrack('a', { ...request, ...more }), (error) => codeOf(error) === code);
      assert.equal(await a.refusals(code), counted + 1);
    };
    await refused('UnknownLink', { link: 'LK_none' });
    await refused('EpochNotSeen', { epoch: 2 });
    await refused('StaleEpoch', { epoch: 0 });
    await refused('RoomNotServed', { roomUid: 'nowhere' });
    await refused('StaleRequest', { version: 1 });
  });

  test('reaches another worker of the node in the layers that are wanted there', async () => {
    const [onA, onB] = await pair();
    const other = await Site.create(b.workers, codecsOf({ codecs: [], audioOnly: false }), [onB.site]);
    opened.push(other);
    assert.notEqual(other.worker, onB.site.worker);
    onA.publish('TR_1', (await camera(onA)).producer);
    onB.learn('TR_1', 'video', 'a');
    const here = onB.hold('TR_1', low);
    const there = onB.hold('TR_1', lowAndHigh, other);
    await eventually(() => layersOf(here) === 0b101 && layersOf(there) === 0b101, { what: 'two layers on both' });
    there.hold.release();
    await eventually(() => there.told[0]?.closed, { what: 'the branch to end' });
    await eventually(() => layersOf(here) === 0b001, { what: 'the top layer to go' });
  });
});

describe('three nodes in a line', () => {
  async function line(): Promise<[CascadeRoom, CascadeRoom, CascadeRoom]> {
    const rooms = await Promise.all([
      serve(a, { links: ['b'], routes: { b: 'b', c: 'b' } }),
      serve(b, { links: ['a', 'c'] }),
      serve(c, { links: ['b'], routes: { b: 'b', a: 'b' } }),
    ]);
    await Promise.all([isUp(rooms[0], 'b'), isUp(rooms[1], 'a'), isUp(rooms[1], 'c'), isUp(rooms[2], 'b')]);
    return rooms;
  }

  test('carry a track from one end to the other, once over each link, for as long as it is held', async () => {
    const [onA, onB, onC] = await line();
    const source = await microphone(onA);
    onA.publish('TR_1', source);
    for (const room of [onB, onC]) room.learn('TR_1', 'audio', 'a');
    const atEnd = onC.hold('TR_1', audio);
    await flows(atEnd);
    const inMiddle = onB.hold('TR_1', audio);
    await flows(inMiddle);
    assert.equal(await onA.consumers(source), 1);
    assert.equal(await onB.consumers(inMiddle.told[0]!), 1);
    inMiddle.hold.release();
    await flows(atEnd);
    atEnd.hold.release();
    await eventually(async () => (await onA.consumers(source)) === 0, { what: 'it to be let go of along the line' });
  });

  test('gather what is wanted of layers on the way to the publisher', async () => {
    const [onA, onB, onC] = await line();
    onA.publish('TR_1', (await camera(onA)).producer);
    for (const room of [onB, onC]) room.learn('TR_1', 'video', 'a');
    const inMiddle = onB.hold('TR_1', low);
    const atEnd = onC.hold('TR_1', lowAndHigh);
    await eventually(() => layersOf(inMiddle) === 0b101 && layersOf(atEnd) === 0b101, {
      what: 'two layers over both links',
      timeoutMs: 20_000,
    });
    atEnd.hold.update(low);
    await eventually(() => layersOf(inMiddle) === 0b001 && layersOf(atEnd) === 0b001, { what: 'one layer over both' });
    assert.deepEqual(onA.asked.get('TR_1')?.at(-1), low);
  });
});

describe('when the way of a track changes', () => {
  test('the other stream is there before the first one is closed, and then the first link carries nothing', async () => {
    const [onA, onB, onC] = await mesh();
    const source = await microphone(onA);
    onA.publish('TR_1', source);
    for (const room of [onB, onC]) room.learn('TR_1', 'audio', 'a');
    const holder = onC.hold('TR_1', audio);
    await flows(holder);
    onC.links.update(assignmentOf({ uid, links: ['a', 'b'], routes: { a: 'b', b: 'b' } }));
    await eventually(() => holder.told.length === 2, { what: 'the track by the other way' });
    assert.deepEqual(holder.overlaps, [true]);
    await flows(holder);
    await eventually(() => holder.told[0]?.closed, { what: 'the first way to end' });
    await eventually(async () => (await onA.consumers(source)) === 1, { what: 'one stream out of its node' });
    await flows(holder);
  });

  test('it overlaps on other workers of the node as well', async () => {
    const [onA, onB, onC] = await mesh();
    const other = await Site.create(c.workers, codecsOf({ codecs: [], audioOnly: false }), [onC.site]);
    opened.push(other);
    onA.publish('TR_1', await microphone(onA));
    for (const room of [onB, onC]) room.learn('TR_1', 'audio', 'a');
    const holder = onC.hold('TR_1', audio, other);
    await flows(holder);
    onC.links.update(assignmentOf({ uid, links: ['a', 'b'], routes: { a: 'b', b: 'b' } }));
    await eventually(() => holder.told.length === 2, { what: 'the track by the other way' });
    assert.equal(holder.told[0]?.closed, false, 'there is time to change over');
    await flows(holder);
    await eventually(() => holder.told[0]?.closed, { what: 'the first branch to end' });
    await flows(holder);
  });

  test('in the middle of a line, its end is told of the other stream', async () => {
    const [onA, onB, onC] = await mesh();
    onA.publish('TR_1', await microphone(onA));
    for (const room of [onB, onC]) room.learn('TR_1', 'audio', 'a');
    // b has the track by c, first; d would be behind b.
    const d = await CascadeNode.start('d', nats);
    opened.push({ close: () => void d.close() });
    onB.links.update(assignmentOf({ uid, links: ['a', 'c', 'd'], routes: { a: 'c', c: 'c', d: 'd' } }));
    const onD = await serve(d, { links: ['b'], routes: { a: 'b', b: 'b', c: 'b' } });
    await isUp(onD, 'b');
    onD.learn('TR_1', 'audio', 'a');
    const holder = onD.hold('TR_1', audio);
    await flows(holder);
    onB.links.update(assignmentOf({ uid, links: ['a', 'c', 'd'] }));
    await eventually(() => holder.told.length === 2, { what: 'the other stream', timeoutMs: 20_000 });
    assert.deepEqual(holder.overlaps, [true]);
    await flows(holder);
  });
});

describe('when a node', () => {
  for (const [which, words] of [
    ['a', 'that offers'],
    ['b', 'that is offered to'],
  ] as const) {
    test(
      `${words} starts again under its name, its neighbour links anew and tracks come back`,
      { timeout: 60_000 },
      async () => {
        const [name, peer] = [`${which}${rooms}`, which === 'a' ? 'b' : 'a'];
        const neighbour = peer === 'a' ? a : b;
        const first = await CascadeNode.start(name, nats);
        opened.push({ close: () => void first.close() });
        const stays = await serve(neighbour, { links: [name] });
        const goes = await first.serve({ uid, links: [peer] });
        const old = await isUp(stays, name);
        await isUp(goes, peer);
        stays.publish('TR_1', await microphone(stays));
        goes.learn('TR_1', 'audio', peer);
        await flows(goes.hold('TR_1', audio));
        await first.vanish();
        const second = await CascadeNode.start(name, nats);
        opened.push({ close: () => void second.close() });
        const again = await second.serve({ uid, links: [peer] });
        await isUp(again, peer);
        again.learn('TR_1', 'audio', peer);
        await flows(again.hold('TR_1', audio));
        await eventually(() => old.closed, { what: 'the half of before to be closed' });
        assert.equal((await isUp(stays, name)).closed, false);
        assert.equal(stays.links.links.length, 1);
      },
    );
  }
});

describe('while NATS is away', () => {
  test('links and tracks go on; what is wanted meanwhile comes when it is back', { timeout: 60_000 }, async () => {
    const [onA, onB] = await pair();
    onA.publish('TR_1', await microphone(onA));
    onA.publish('TR_2', (await camera(onA)).producer);
    onB.learn('TR_1', 'audio', 'a');
    onB.learn('TR_2', 'video', 'a');
    const holder = onB.hold('TR_1', audio);
    await flows(holder);
    const { ageSeconds = 0 } = onB.status('a') ?? {};
    await nats.stop();
    await eventually(() => !a.nats.connected && !b.nats.connected, { what: 'NATS to be away' });
    const late = onB.hold('TR_2', low);
    await flows(holder);
    await eventually(() => (onB.status('a')?.ageSeconds ?? 0) > ageSeconds + 2, { what: 'longer than a silence' });
    await flows(holder);
    assert.deepEqual(late.told, []);
    assert.ok(!onB.statesOf('a').includes(LinkState.DOWN), 'the link was up all the time');
    await nats.restart();
    await flows(late);
    assert.deepEqual(holder.told.length, 1, 'nobody was disturbed');
  });
});
