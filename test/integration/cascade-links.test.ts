import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { LinkState } from '#proto/weir/control/v1/control.ts';
import { LinkAnswer, type LinkEnd, LinkOffer } from '#proto/weir/fleet/v1/fleet.ts';
import { systemClock as clock } from '#platform/clock.ts';
import { codeOf } from '#platform/errors.ts';
import { subjects } from '#platform/subjects.ts';
import { Link } from '#sfu-node/cascade/link.ts';
import { eventually } from '#tools/local/eventually.ts';
import { LocalNats } from '#tools/local/nats.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';
import { assignmentOf, CascadeNode, type CascadeRoom } from './cascade-node.ts';

/** Cascade links between real workers over a real NATS: how they come, what is refused, and how they go. */
let nats: LocalNats;
let a: CascadeNode;
let b: CascadeNode;
/** A node that a test plays by hand. */
let hand: NatsConnection;
let rooms = 0;
/** A room of its own for every test. */
let uid: string;
const opened: CascadeRoom[] = [];
const closers: (() => void)[] = [];

before(async () => {
  nats = await LocalNats.start({ dir: temporaryDirectory('cascade-links') });
  [a, b] = await Promise.all([CascadeNode.start('a', nats), CascadeNode.start('b', nats)]);
  const { user, password } = nats.users['sfu-node'];
  hand = await connect({ servers: nats.url, user, pass: password });
});

beforeEach(() => {
  uid = `room-${(rooms += 1)}`;
});

afterEach(() => {
  for (const room of opened.splice(0)) room.close();
  for (const close of closers.splice(0)) close();
});

after(async () => {
  await hand?.close();
  await Promise.all([a?.close(), b?.close()]);
  await nats?.stop();
});

async function serve(node: CascadeNode, links: string[], epoch = 1): Promise<CascadeRoom> {
  const room = await node.serve({ uid, epoch, links });
  opened.push(room);
  return room;
}

async function isUp(room: CascadeRoom, peer: string): Promise<void> {
  await eventually(() => room.status(peer)?.state === LinkState.UP, { what: `the link to ${peer}`, timeoutMs: 20_000 });
}

/** The room on both nodes, linked. */
async function linked(): Promise<[CascadeRoom, CascadeRoom]> {
  const [onA, onB] = [await serve(a, ['b']), await serve(b, ['a'])];
  await Promise.all([isUp(onA, 'b'), isUp(onB, 'a')]);
  return [onA, onB];
}

/** Plays a node that is asked for links: says what it was offered, and answers as it is told to. */
function playPeer(name: string, answer: (offer: LinkOffer) => LinkAnswer['result'] | 'silence'): LinkOffer[] {
  const offers: LinkOffer[] = [];
  const subscription = hand.subscribe(subjects.linkOffer(name), {
    callback: (_error, message) => {
      const offer = LinkOffer.decode(message.data);
      offers.push(offer);
      const result = answer(offer);
      if (result !== 'silence') message.respond(LinkAnswer.encode({ result, instance: 'by hand' }).finish());
    },
  });
  closers.push(() => subscription.unsubscribe());
  return offers;
}

async function udpSocket(): Promise<Socket> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  closers.push(() => socket.close());
  return socket;
}

/** Half a link that no room has, with its end as another node would offer it. */
async function looseHalf(room: CascadeRoom): Promise<Link> {
  const link = await Link.create({
    ...{ id: 'LK_loose', peer: 'b', site: room.site, clock },
    listen: { ip: '127.0.0.1', capacityMbps: 1000 },
    onUp: () => undefined,
    onChange: () => undefined,
  });
  closers.push(() => link.close());
  return link;
}

async function offer(end: LinkEnd | undefined, more: Partial<LinkOffer> = {}): Promise<LinkEnd> {
  const from = { roomUid: uid, epoch: 1, from: 'a', instance: 'by hand', link: 'LK_hand' };
  return a.cascade.offerLink('b', { ...from, end, ...more });
}

describe('a pair of links', () => {
  for (const [first, second, peer, other] of [
    ['the node that offers', 'the other', 'b', 'a'],
    ['the node that is offered', 'the other', 'a', 'b'],
  ] as const) {
    test(`comes up both ways when ${first} learns of the room before ${second}`, async () => {
      const [early, late] = peer === 'b' ? [a, b] : [b, a];
      const onEarly = await serve(early, [peer]);
      assert.equal(onEarly.status(peer)?.state, LinkState.OPENING);
      const onLate = await serve(late, [other]);
      await Promise.all([isUp(onEarly, peer), isUp(onLate, other)]);
      assert.equal(onEarly.links.links.length, 1);
      assert.deepEqual(
        onEarly.links.links.map(({ id }) => id),
        onLate.links.links.map(({ id }) => id),
      );
    });
  }

  test('tells its round trip, jitter, rates and age, and no loss on a good path', async () => {
    for (const [room, peer] of (await linked()).map((room, index) => [room, index === 0 ? 'b' : 'a'] as const)) {
      const status = await eventually(
        () => {
          const now = room.status(peer);
          return now && now.rttMs > 0 && now.jitterMs > 0 && now.kbps > 0 ? now : undefined;
        },
        { what: 'figures of the link' },
      );
      assert.equal(status.loss, 0);
      assert.ok(status.ageSeconds > 0);
      assert.equal(status.errorCode, '');
    }
  });

  test("is in its node's figures by the region of the peer", async () => {
    await linked();
    const { states, regions } = await eventually(() => (a.cascade.links.states.Up === 1 ? a.cascade.links : undefined));
    assert.deepEqual(states, { Opening: 0, Up: 1, Degraded: 0, Down: 0 });
    assert.deepEqual([...regions.keys()], ['region-of-b']);
    await eventually(() => (a.cascade.links.regions.get('region-of-b')?.sent ?? 0) > 0, { what: 'a rate' });
  });

  test('ends on both nodes when one of them closes the room, and nothing is left open', async () => {
    const [onA, onB] = await linked();
    const [link] = onB.links.links;
    onA.close();
    await eventually(() => link?.closed, { what: 'the other half to close' });
    await eventually(async () => (await onB.transports()) === 1, { what: 'only the transport of data to be left' });
    assert.equal(onB.status('a')?.state, LinkState.OPENING);
  });

  test('comes anew when the room is served again', async () => {
    const [onA, onB] = await linked();
    onB.close();
    await eventually(() => onA.status('b')?.state === LinkState.OPENING);
    const again = await serve(b, ['a']);
    await Promise.all([isUp(onA, 'b'), isUp(again, 'a')]);
  });

  test('goes when the assignment names it no more, and comes back when it does again', async () => {
    const [onA, onB] = await linked();
    onA.links.update(assignmentOf({ uid, epoch: 2, links: [] }));
    onB.links.update(assignmentOf({ uid, epoch: 2, links: [] }));
    for (const room of [onA, onB]) {
      assert.deepEqual(room.links.statuses, []);
      await eventually(() => room.links.links.length === 0, { what: 'the link to be closed' });
    }
    onA.links.update(assignmentOf({ uid, epoch: 3, links: ['b'] }));
    onB.links.update(assignmentOf({ uid, epoch: 3, links: ['a'] }));
    await Promise.all([isUp(onA, 'b'), isUp(onB, 'a')]);
  });

  test('is kept over a newer epoch', async () => {
    const [onA, onB] = await linked();
    const before = onA.links.links;
    onA.links.update(assignmentOf({ uid, epoch: 2, links: ['b'] }));
    onB.links.update(assignmentOf({ uid, epoch: 2, links: ['a'] }));
    assert.deepEqual(onA.links.links, before);
    await isUp(onA, 'b');
  });

  test('waits while the other node has not seen the epoch yet', async () => {
    const seen = await b.refusals('EpochNotSeen');
    const onB = await serve(b, ['a'], 1);
    const onA = await serve(a, ['b'], 2);
    await eventually(async () => (await b.refusals('EpochNotSeen')) > seen, { what: 'a refusal' });
    onB.links.update(assignmentOf({ uid, epoch: 2, links: ['a'] }));
    await Promise.all([isUp(onA, 'b'), isUp(onB, 'a')]);
  });
});

describe('an offer', () => {
  const cases: [string, string, Partial<LinkOffer>][] = [
    ['for a room that the node does not serve', 'RoomNotServed', { roomUid: 'nowhere' }],
    ['of an epoch that is over', 'StaleEpoch', { epoch: 4 }],
    ['of an epoch that the node has not seen yet', 'EpochNotSeen', { epoch: 6 }],
    ['from a node that is no neighbour', 'NotALink', { epoch: 5, from: 'aa' }],
    ['from the node that is to be offered to', 'NotALink', { epoch: 5, from: 'c' }],
    ['without an end', 'NotALink', { epoch: 5, end: undefined }],
  ];
  for (const [words, code, more] of cases) {
    test(`${words} is refused with ${code}, and counted`, async () => {
      const room = await serve(b, ['a', 'c'], 5);
      const half = await looseHalf(await serve(a, []));
      const counted = await b.refusals(code);
      await assert.rejects(offer(half.end, more), (error) => codeOf(error) === code);
      assert.equal(await b.refusals(code), counted + 1);
      assert.ok(!room.links.links.some(({ id }) => id === 'LK_hand'), 'nothing was opened');
    });
  }

  test('whose end cannot be used is refused with InvalidLinkEnd, and nothing is left open', async () => {
    const room = await serve(b, ['a']);
    const transports = await room.transports();
    const { end } = await looseHalf(await serve(a, []));
    for (const wrong of [{ cryptoSuite: 'AES_CM_128_HMAC_SHA1_80' }, { ip: 'sfu.example' }, { key: 'short' }]) {
      await assert.rejects(offer({ ...end, ...wrong }), (error) => codeOf(error) === 'InvalidLinkEnd');
    }
    assert.equal(await room.transports(), transports);
  });

  test('over which nothing comes is torn down again', async () => {
    const room = await serve(b, ['a']);
    const transports = await room.transports();
    const half = await looseHalf(await serve(a, []));
    await offer(half.end);
    assert.ok((await room.transports()) > transports);
    await eventually(async () => (await room.transports()) === transports, { what: 'the half to be closed' });
    assert.ok(!room.statesOf('a').includes(LinkState.UP));
  });

  test('is taken up by what comes from the address that it names', async () => {
    const room = await serve(b, ['a']);
    const half = await looseHalf(await serve(a, []));
    await half.connect(await offer(half.end));
    await isUp(room, 'a');
  });

  test('is not taken up by packets from another address, though their key is right', async () => {
    const room = await serve(b, ['a']);
    const transports = await room.transports();
    const half = await looseHalf(await serve(a, []));
    const { port } = (await udpSocket()).address();
    await half.connect(await offer({ ...half.end, port }));
    await eventually(async () => (await room.transports()) === transports, { what: 'the half to be closed' });
    assert.ok(!room.statesOf('a').includes(LinkState.UP), 'it was never up');
  });
});

describe('a link that is up', () => {
  test('is not disturbed by packets that others send to its port', async () => {
    const [onA] = await linked();
    const { transport } = onA.links.links[0]!;
    const socket = await udpSocket();
    const bytes = async () => (await transport.getStats())[0]?.bytesReceived ?? 0;
    const before = await bytes();
    const packet = Buffer.alloc(1200, 0x80);
    const send = () => {
      for (let each = 0; each < 50; each += 1) socket.send(packet, transport.tuple.localPort, '127.0.0.1');
    };
    await eventually(async () => {
      send();
      return (await bytes()) > before + 50 * packet.length;
    });
    const heard = onA.status('b')?.ageSeconds ?? 0;
    await eventually(() => (onA.status('b')?.ageSeconds ?? 0) > heard + 1.5, { what: 'longer than a silence' });
    assert.equal(onA.status('b')?.state, LinkState.UP);
    assert.ok(!onA.statesOf('b').includes(LinkState.DOWN));
  });
});

describe('a peer', () => {
  test('that is not there is offered again and again, told of in the status and counted; nothing is left open', async () => {
    const room = await serve(a, ['nobody']);
    const code = 'NoResponders';
    const counted = await a.failedOffers(code);
    await eventually(async () => (await a.failedOffers(code)) >= counted + 2, { what: 'two offers' });
    const status = room.status('nobody');
    assert.equal(status?.state, LinkState.OPENING);
    assert.equal(status?.errorCode, code);
    assert.match(status?.error ?? '', /nobody/);
    await eventually(async () => (await room.transports()) === 1, { what: 'the offered halves to be closed' });
  });

  test('that does not answer is offered another link, and the offered half is closed', async () => {
    const offers = playPeer('mute', () => 'silence');
    const room = await serve(a, ['mute']);
    await eventually(() => offers.length >= 2, { what: 'another offer' });
    assert.notEqual(offers[0]?.link, offers[1]?.link);
    assert.equal(room.status('mute')?.errorCode, 'RequestTimeout');
    assert.ok(room.links.links.length <= 1, 'only the newest half is open');
    room.close();
    assert.equal(room.links.links.length, 0);
  });

  test('that refuses is told of with its own code', async () => {
    playPeer('no', () => ({ $case: 'error', value: { code: 'CascadePortsInUse', message: 'all ports are taken' } }));
    const room = await serve(a, ['no']);
    await eventually(() => room.status('no')?.errorCode === 'CascadePortsInUse');
    assert.equal(room.status('no')?.error, 'all ports are taken');
  });

  test('that answers with nothing is of another version, perhaps', async () => {
    playPeer('empty', () => undefined);
    const room = await serve(a, ['empty']);
    await eventually(() => room.status('empty')?.errorCode === 'EmptyAnswer');
  });

  test('that takes the link and sends nothing over it is told as LinkSilent, and offered another', async () => {
    const { end } = await looseHalf(await serve(b, []));
    const offers = playPeer('silent', () => ({ $case: 'end', value: end }));
    const room = await serve(a, ['silent']);
    await eventually(() => room.status('silent')?.errorCode === 'LinkSilent', { what: 'the silence to be seen' });
    await eventually(() => offers.length >= 2, { what: 'another offer' });
    assert.ok(room.links.links.length <= 1);
  });

  test('that has the room only after a while gets its link then', async () => {
    let refuse = true;
    const onB = await serve(b, ['a']);
    const half = await looseHalf(onB);
    const offers = playPeer('late', (offered) => {
      if (refuse) return { $case: 'error', value: { code: 'RoomNotServed', message: 'not yet' } };
      void half.connect(offered.end!);
      return { $case: 'end', value: half.end };
    });
    const room = await serve(a, ['late']);
    await eventually(() => offers.length >= 5, { what: 'offers' });
    refuse = false;
    await isUp(room, 'late');
    assert.equal(room.status('late')?.errorCode, '');
  });

  test('with no port left for links refuses with CascadePortsInUse', async () => {
    const socket = await udpSocket();
    const { port } = socket.address();
    const { site } = await serve(a, []);
    const listen = { ip: '127.0.0.1', ports: { min: port, max: port }, capacityMbps: 1000 };
    const ignore = () => undefined;
    await assert.rejects(
      Link.create({ id: 'LK_1', peer: 'b', site, listen, clock, onUp: ignore, onChange: ignore }),
      (error) => codeOf(error) === 'CascadePortsInUse',
    );
  });
});
