import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { DisconnectReason, ParticipantInfo } from '@livekit/protocol';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { Registry } from 'prom-client';
import { FeedEntries, FeedReply, FeedRequest, RoomNow, type RoomData } from '#proto/weir/fleet/v1/fleet.ts';
import { systemClock } from '#platform/clock.ts';
import { createLogger } from '#platform/log.ts';
import { subjects } from '#platform/subjects.ts';
import { Feeds } from '#sfu-node/cascade/feed/feeds.ts';
import { RoomFeed } from '#sfu-node/cascade/feed/room-feed.ts';
import { NatsLink } from '#sfu-node/coordination/nats-link.ts';
import { createNodeMetrics } from '#sfu-node/metrics.ts';
import { eventually } from '#tools/local/eventually.ts';
import { LocalNats } from '#tools/local/nats.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';
import { TcpProxy } from './tcp-proxy.ts';

const log = createLogger({ name: 'test', level: process.env['TEST_LOG'] ?? 'silent' });
const clock = systemClock;

/** One node with its own way to NATS, which can be cut, and what it is told of a room's other nodes. */
class FeedNode {
  readonly name: string;
  readonly proxy: TcpProxy;
  readonly nats: NatsLink;
  readonly feeds: Feeds;
  readonly metrics = createNodeMetrics(new Registry());
  feed: RoomFeed | undefined;
  /** Participants of others by `node/sid`, with their metadata. */
  readonly others = new Map<string, string>();
  readonly lefts: string[] = [];
  readonly data: string[] = [];
  readonly nows: RoomNow[] = [];

  private constructor(name: string, proxy: TcpProxy, user: { user: string; password: string }) {
    this.name = name;
    this.proxy = proxy;
    this.nats = NatsLink.create({ url: `nats://127.0.0.1:${proxy.port}`, ...user, name, clock, log });
    this.feeds = Feeds.create({ node: name, nats: this.nats, metrics: this.metrics, clock, log });
  }

  static async start(name: string, nats: LocalNats): Promise<FeedNode> {
    const node = new FeedNode(name, await TcpProxy.start(nats.url), nats.users['sfu-node']);
    await eventually(() => node.nats.connected);
    return node;
  }

  open(roomUid: string, peers: string[], incarnation = 1): RoomFeed {
    this.feed?.close();
    const feed = RoomFeed.create({
      ...{ roomUid, node: this.name, incarnation, feeds: this.feeds, clock, log },
      events: {
        participant: (node, { sid, metadata }) => void this.others.set(`${node}/${sid}`, metadata),
        left: (node, sid, reason) => {
          assert.ok(this.others.delete(`${node}/${sid}`));
          this.lefts.push(`${node}/${sid} ${DisconnectReason[reason]}`);
        },
        reliable: (node, { packet }) => void this.data.push(`${node}/${packet.toString()}`),
        now: (_node, now) => void this.nows.push(now),
      },
    });
    this.feed = feed;
    feed.setPeers(peers);
    return feed;
  }

  async cut(): Promise<void> {
    this.proxy.refuse();
    await eventually(() => !this.nats.connected);
  }

  async dropped(reason: string): Promise<number> {
    const { values } = await this.metrics.feedMessagesDropped.get();
    return values.find(({ labels }) => labels.reason === reason)?.value ?? 0;
  }

  async close(): Promise<void> {
    this.feed?.close();
    await this.nats.close();
    await this.proxy.close();
  }
}

function person(sid: string, metadata = ''): ParticipantInfo {
  return new ParticipantInfo({ sid, identity: sid, metadata, version: 1 });
}

function packet(sid: string, text: string): RoomData {
  return { sid, packet: Buffer.from(text) };
}

let nats: LocalNats;
let spy: NatsConnection;
const nodes: FeedNode[] = [];
let rooms = 0;
let room: string;

/** Nodes of these names, and a room that no other test has. */
async function start(...names: string[]): Promise<FeedNode[]> {
  room = `room-${++rooms}`;
  const started = await Promise.all(names.map((name) => FeedNode.start(name, nats)));
  nodes.push(...started);
  return started;
}

async function two(): Promise<[FeedNode, FeedNode]> {
  const [a, b] = await start('a', 'b');
  return a && b ? [a, b] : assert.fail();
}

/** Waits until `node` knows these participants and no others. */
async function knows(node: FeedNode, ...participants: string[]): Promise<void> {
  await eventually(() => [...node.others.keys()].sort().join() === [...participants].sort().join(), {
    what: `that ${node.name} knows ${participants.join()}`,
    intervalMs: 5,
  });
}

before(async () => {
  nats = await LocalNats.start({ dir: temporaryDirectory('room-feed') });
});

beforeEach(async () => {
  const { user, password } = nats.users.operator;
  spy = await connect({ servers: nats.url, user, pass: password });
});

afterEach(async () => {
  await spy.close();
  await Promise.all(nodes.splice(0).map((node) => node.close()));
});

after(async () => {
  await nats?.stop();
});

describe('the nodes of a room', () => {
  test('tell one another who joins, changes and leaves', async () => {
    const [a, b] = await two();
    const feed = a.open(room, ['b']);
    b.open(room, ['a']).participant(person('bob'));
    feed.participant(person('ann'));
    await Promise.all([knows(a, 'b/bob'), knows(b, 'a/ann')]);
    feed.participant(person('ann', 'waves'));
    await eventually(() => b.others.get('a/ann') === 'waves');
    feed.left('ann', DisconnectReason.CLIENT_INITIATED);
    await knows(b);
    assert.deepEqual(b.lefts, ['a/ann CLIENT_INITIATED']);
  });

  test('learn who was there before them, however large the room is', async () => {
    const [a, b] = await two();
    const feed = a.open(room, ['b']);
    const sids = Array.from({ length: 500 }, (_, i) => `PA_${i}`);
    for (const sid of sids) feed.participant(person(sid, 'm'.repeat(8 * 1024)));
    const at = Date.now();
    b.open(room, ['a']);
    await knows(b, ...sids.map((sid) => `a/${sid}`));
    console.log(`500 participants with 8 KiB each were known after ${Date.now() - at} ms`);
  });

  test('may begin in any order', async () => {
    const [a, b] = await two();
    let digests = 0;
    spy.subscribe(subjects.roomFeed(room), { callback: () => void digests++ });
    await spy.flush();
    a.open(room, ['b']).participant(person('ann'));
    await eventually(() => digests > 2, { what: 'that the first is some digests ahead' });
    b.open(room, ['a']).participant(person('bob'));
    await Promise.all([knows(a, 'b/bob'), knows(b, 'a/ann')]);
  });

  test('send reliable data in order, each message once, to every other node', async () => {
    const [a, b, c] = await start('a', 'b', 'c');
    assert.ok(a && b && c);
    const feed = a.open(room, ['b', 'c']);
    b.open(room, ['a', 'c']);
    c.open(room, ['a', 'b']);
    feed.participant(person('ann'));
    await Promise.all([knows(b, 'a/ann'), knows(c, 'a/ann')]);
    const sent = Array.from({ length: 300 }, (_, i) => String(i));
    for (const text of sent) feed.reliable(packet('ann', text));
    const expected = sent.map((text) => `a/${text}`);
    await eventually(() => b.data.length >= 300 && c.data.length >= 300);
    assert.deepEqual(b.data, expected);
    assert.deepEqual(c.data, expected);
  });

  test('send what passes as it is now', async () => {
    const [a, b] = await two();
    const feed = a.open(room, ['b']);
    b.open(room, ['a']);
    feed.participant(person('ann'));
    await knows(b, 'a/ann');
    feed.now({ speakers: [{ sid: 'ann', level: 0.5 }], qualities: [], data: [packet('ann', 'lossy')] });
    await eventually(() => b.nows.length === 1);
    assert.deepEqual(b.nows[0]?.speakers, [{ sid: 'ann', level: 0.5 }]);
    assert.equal(b.nows[0]?.data[0]?.packet.toString(), 'lossy');
  });

  test('drop all of a node that is in the room no more, and hear it again when it comes back', async () => {
    const [a, b] = await two();
    const feed = a.open(room, ['b']);
    const other = b.open(room, ['a']);
    feed.participant(person('ann'));
    await knows(b, 'a/ann');
    other.setPeers([]);
    assert.deepEqual(b.lefts, ['a/ann MIGRATION']);
    feed.participant(person('eve'));
    other.setPeers(['a']);
    await knows(b, 'a/ann', 'a/eve');
  });

  test('replace all that a node said when the room begins anew there', async () => {
    const [a, b] = await two();
    a.open(room, ['b'], 1).participant(person('ann'));
    b.open(room, ['a']);
    await knows(b, 'a/ann');
    a.open(room, ['b'], 2).participant(person('eve'));
    await knows(b, 'a/eve');
    assert.deepEqual(b.lefts, ['a/ann SERVER_SHUTDOWN']);
  });

  test('neither publish nor subscribe while the room is on one node', async () => {
    const [a] = await start('a');
    assert.ok(a);
    const heard: string[] = [];
    const listening = spy.subscribe(`weir.room.${room}.>`, { callback: (_, { subject }) => void heard.push(subject) });
    await spy.flush();
    const feed = a.open(room, ['a']);
    feed.participant(person('ann'));
    feed.now({ speakers: [], qualities: [], data: [] });
    await a.nats.connection?.flush();
    await spy.flush();
    assert.deepEqual(heard, []);
    listening.unsubscribe();
    for (const subject of [subjects.roomFeed(room), subjects.roomNow(room)]) {
      await assert.rejects(spy.request(subject), /no responders/);
    }
  });
});

describe('a node that is cut off NATS', () => {
  test('drops nobody and is not dropped, and afterwards both sides know all that happened', async () => {
    const [a, b, c] = await start('a', 'b', 'c');
    assert.ok(a && b && c);
    const feeds = [a.open(room, ['b', 'c']), b.open(room, ['a', 'c']), c.open(room, ['a', 'b'])] as const;
    feeds[0].participant(person('ann'));
    feeds[0].participant(person('amy'));
    feeds[1].participant(person('bob'));
    feeds[2].participant(person('cat'));
    await Promise.all([
      knows(a, 'b/bob', 'c/cat'),
      knows(b, 'a/ann', 'a/amy', 'c/cat'),
      knows(c, 'a/ann', 'a/amy', 'b/bob'),
    ]);

    await a.cut();
    feeds[0].participant(person('abe'));
    feeds[0].left('amy', DisconnectReason.CLIENT_INITIATED);
    feeds[1].participant(person('ben'));
    feeds[1].left('bob', DisconnectReason.CLIENT_INITIATED);
    for (let i = 0; i < 100; i++) {
      feeds[0].reliable(packet('ann', String(i)));
      feeds[1].reliable(packet('ben', String(i)));
    }
    feeds[0].now({ speakers: [], qualities: [], data: [packet('ann', 'lost')] });
    await knows(c, 'a/ann', 'a/amy', 'b/ben');
    assert.deepEqual([a.lefts, b.lefts, c.lefts], [[], [], ['b/bob CLIENT_INITIATED']]);
    assert.deepEqual([a.data, b.data], [[], []]);

    const at = Date.now();
    const took: Record<string, number> = {};
    const mark = (what: string) => (took[what] = Date.now() - at);
    a.proxy.recover();
    await Promise.all([
      eventually(() => a.nats.connected, { intervalMs: 1 }).then(() => mark('connected')),
      knows(a, 'b/ben', 'c/cat').then(() => mark('a')),
      knows(b, 'a/ann', 'a/abe', 'c/cat').then(() => mark('b')),
      knows(c, 'a/ann', 'a/abe', 'b/ben').then(() => mark('c')),
      eventually(() => a.data.length >= 100 && b.data.length >= 100 && c.data.length >= 200, { intervalMs: 5 }).then(
        () => mark('data'),
      ),
    ]);
    console.log('after the way to NATS was open again, milliseconds:', took);
    const all = (name: string) => Array.from({ length: 100 }, (_, i) => `${name}/${i}`);
    assert.deepEqual(a.data, all('b'));
    assert.deepEqual(b.data, all('a'));
    assert.deepEqual(
      c.data.filter((text) => text.startsWith('a')),
      all('a'),
    );
    assert.deepEqual(a.lefts, ['b/bob CLIENT_INITIATED']);
    assert.deepEqual(b.lefts, ['a/amy CLIENT_INITIATED']);
    assert.deepEqual(b.nows, [], 'what was passing then has passed');
  });

  test('counts the data that was kept no more, and knows the room all the same', async () => {
    const [a, b] = await two();
    const feed = a.open(room, ['b']);
    b.open(room, ['a']);
    feed.participant(person('ann'));
    feed.participant(person('amy'));
    await knows(b, 'a/ann', 'a/amy');
    await b.cut();
    feed.left('amy', DisconnectReason.CLIENT_INITIATED);
    for (let i = 0; i < 1500; i++) feed.reliable(packet('ann', String(i)));
    b.proxy.recover();
    await eventually(() => b.data.length >= 1000);
    assert.deepEqual(
      b.data,
      Array.from({ length: 1000 }, (_, i) => `a/${i + 500}`),
    );
    assert.deepEqual(b.lefts, ['a/amy UNKNOWN_REASON']);
    assert.equal((await b.metrics.feedDataLost.get()).values[0]?.value, 500);
  });

  test('takes part in a room that it got meanwhile', async () => {
    const [a, b] = await two();
    await a.cut();
    a.open(room, ['b']).participant(person('ann'));
    b.open(room, ['a']).participant(person('bob'));
    a.proxy.recover();
    await Promise.all([knows(a, 'b/bob'), knows(b, 'a/ann')]);
  });
});

describe('a NATS server that starts anew', () => {
  test('costs nobody their place in a room, nor data that is kept', async () => {
    const [a, b] = await two();
    const feeds = [a.open(room, ['b']), b.open(room, ['a'])] as const;
    feeds[0].participant(person('ann'));
    feeds[1].participant(person('bob'));
    await Promise.all([knows(a, 'b/bob'), knows(b, 'a/ann')]);
    await nats.stop();
    await eventually(() => !a.nats.connected && !b.nats.connected);
    feeds[0].reliable(packet('ann', 'meanwhile'));
    feeds[1].participant(person('ben'));
    await nats.restart();
    await eventually(() => a.nats.connected && b.nats.connected, { intervalMs: 1 });
    const at = Date.now();
    await Promise.all([knows(a, 'b/bob', 'b/ben'), eventually(() => b.data.length === 1, { intervalMs: 5 })]);
    console.log(`after both connections were back, it took ${Date.now() - at} ms`);
    assert.deepEqual([a.lefts, b.lefts, b.data], [[], [], ['a/meanwhile']]);
  });
});

describe('what nobody can read', () => {
  test('is dropped and counted, and the feed goes on', async () => {
    const [a, b] = await two();
    const feed = a.open(room, ['b']);
    b.open(room, ['a']);
    feed.participant(person('amy'));
    await knows(b, 'a/amy');
    const torn = new Uint8Array([255, 255, 255]);
    spy.publish(subjects.roomFeed(room), torn);
    spy.publish(subjects.roomNow(room), torn);
    const reply = await spy.request(subjects.feed('b'), torn);
    const { result } = FeedReply.decode(reply.data);
    assert.equal(result?.$case === 'error' && result.value.code, 'FeedMalformed');
    feed.participant(person('ann'));
    await knows(b, 'a/amy', 'a/ann');
    await eventually(async () => (await b.dropped('Malformed')) === 3);
  });

  test('is no different from a stranger, who is not heard', async () => {
    const [a, b] = await two();
    const feed = a.open(room, ['b']);
    b.open(room, ['a']);
    feed.participant(person('amy'));
    await knows(b, 'a/amy');
    const entry = { entry: { $case: 'participant' as const, value: Buffer.from(person('zoe').toBinary()) } };
    const stranger = { node: 'z', incarnation: 1 };
    spy.publish(subjects.roomFeed(room), FeedEntries.encode({ ...stranger, first: 1, entries: [entry] }).finish());
    const passing = { speakers: [], qualities: [], data: [], sequence: 1 };
    spy.publish(subjects.roomNow(room), RoomNow.encode({ ...stranger, ...passing }).finish());
    await spy.flush();
    feed.participant(person('ann'));
    await knows(b, 'a/amy', 'a/ann');
    assert.deepEqual(b.nows, []);
  });

  test('nor is what is too large for a message told to others, and the feed goes on', async () => {
    const [a, b] = await two();
    const feed = a.open(room, ['b']);
    b.open(room, ['a']);
    feed.reliable({ sid: 'ann', packet: Buffer.alloc(600 * 1024) });
    feed.participant(person('eve', 'm'.repeat(600 * 1024)));
    feed.now({ speakers: [], qualities: [], data: [{ sid: 'ann', packet: Buffer.alloc(600 * 1024) }] });
    feed.participant(person('ann'));
    await knows(b, 'a/ann');
    assert.equal(await a.dropped('TooLarge'), 3);
    assert.deepEqual(b.data, []);
  });

  test('and a room that is not there is refused', async () => {
    await start('a');
    const request = { roomUid: 'no-room', incarnation: 0, from: 0, state: true, snapshot: 0, have: 0 };
    const reply = await spy.request(subjects.feed('a'), FeedRequest.encode(request).finish());
    const { result } = FeedReply.decode(reply.data);
    assert.equal(result?.$case === 'error' && result.value.code, 'RoomNotServed');
  });
});
