import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { after, afterEach, describe, test } from 'node:test';
import { FakeClock } from '#platform/fake-clock.ts';
import { eventually } from '#tools/local/eventually.ts';
import { ImpairedLinks, loopbackPair, type ImpairedLinksOptions, type LinkedNode } from './impaired-link.ts';

const ports = { min: 20_400, max: 20_402 };

/** A node as the relay sees one: it has a socket on each port that it needs. */
class Peer implements LinkedNode {
  readonly name: string;
  readonly ports = ports;
  readonly real: string;
  readonly announced: string;
  readonly received: { text: string; from: string }[] = [];
  readonly #sockets: Socket[] = [];

  constructor(name: string) {
    this.name = name;
    ({ real: this.real, announced: this.announced } = loopbackPair());
  }

  async open(port: number): Promise<Socket> {
    const socket = createSocket('udp4');
    this.#sockets.push(socket);
    socket.on('message', (packet, { address, port: fromPort }) => {
      this.received.push({ text: packet.toString(), from: `${address}:${fromPort}` });
    });
    socket.bind({ address: this.real, port });
    await once(socket, 'listening');
    return socket;
  }

  get texts(): string[] {
    return this.received.map(({ text }) => text);
  }

  close(): void {
    for (const socket of this.#sockets.splice(0)) socket.close();
  }
}

const [a, b, c] = [new Peer('a'), new Peer('b'), new Peer('c')];
let links: ImpairedLinks | undefined;

async function startLinks(options: Partial<ImpairedLinksOptions> = {}): Promise<ImpairedLinks> {
  links = await ImpairedLinks.start({ seed: 1, nodes: [a, b, c], ...options });
  return links;
}

/** Sends numbered packets and waits until the relay has decided on all of them. */
async function sendNumbers(socket: Socket, from: Peer, to: Peer, count: number): Promise<void> {
  const decided = () => {
    const { delivered, dropped } = links?.stats(from.name, to.name) ?? { delivered: 0, dropped: {} };
    return Object.values(dropped).reduce((sum, number) => sum + number, delivered);
  };
  const before = decided();
  for (let number = 0; number < count; number += 1) {
    socket.send(String(number), ports.min, to.announced);
    // The relay keeps up: nothing is left to the kernel's buffers.
    if (number % 20 === 19) await eventually(() => decided() === before + number + 1, { intervalMs: 1 });
  }
  await eventually(() => decided() === before + count, { intervalMs: 1 });
}

afterEach(async () => {
  await links?.close();
  links = undefined;
  for (const peer of [a, b, c]) {
    peer.close();
    peer.received.length = 0;
  }
});

describe('an unimpaired link', () => {
  test('a packet comes from the very address that its sender announced', async () => {
    await startLinks();
    const [fromA, fromB] = [await a.open(ports.min), await b.open(ports.max)];
    fromA.send('ping', ports.max, b.announced);
    await eventually(() => b.received.length === 1);
    assert.deepEqual(b.received, [{ text: 'ping', from: `${a.announced}:${ports.min}` }]);
    // An answer goes where the packet came from, as a transport sends that knows the announced address.
    fromB.send('pong', ports.min, a.announced);
    await eventually(() => a.received.length === 1);
    assert.deepEqual(a.received, [{ text: 'pong', from: `${b.announced}:${ports.max}` }]);
    assert.deepEqual(links?.stats('a', 'b'), { delivered: 1, bytes: 4, dropped: { loss: 0, queue: 0, cut: 0 } });
  });

  test('who is none of the nodes, or sends from another port, is not passed on', async () => {
    const relay = await startLinks();
    await b.open(ports.min);
    const stranger = createSocket('udp4');
    stranger.send('who am I', ports.min, b.announced);
    const otherPort = await a.open(ports.max + 1);
    otherPort.send('not of a link', ports.min, b.announced);
    await eventually(() => relay.strays === 2);
    stranger.close();
    assert.deepEqual(b.received, []);
  });
});

describe('an impaired link', () => {
  test('a cut passes nothing and leaves other links alone; healed, packets pass again', async () => {
    const relay = await startLinks();
    const socket = await a.open(ports.min);
    await Promise.all([b.open(ports.min), c.open(ports.min)]);
    relay.cut('a', 'b');
    await sendNumbers(socket, a, b, 3);
    await sendNumbers(socket, a, c, 2);
    await eventually(() => c.received.length === 2);
    assert.deepEqual(b.received, []);
    assert.equal(relay.stats('a', 'b').dropped.cut, 3);
    relay.heal('a', 'b');
    socket.send('back', ports.min, b.announced);
    await eventually(() => b.received.length === 1);
    assert.deepEqual(b.texts, ['back']);
  });

  test('a cut of one way leaves the other way', async () => {
    const relay = await startLinks();
    const [fromA, fromB] = [await a.open(ports.min), await b.open(ports.min)];
    relay.cut('a', 'b', 'one');
    await sendNumbers(fromA, a, b, 1);
    await sendNumbers(fromB, b, a, 1);
    await eventually(() => a.received.length === 1);
    assert.deepEqual(b.received, []);
  });

  test('the same packets under the same seed lose the same ones, and another seed others', async () => {
    const arrivals = async (seed: number): Promise<string[]> => {
      const relay = await startLinks({ seed });
      const socket = await a.open(ports.min);
      await b.open(ports.min);
      relay.impair('a', 'b', { loss: 0.3 });
      await sendNumbers(socket, a, b, 200);
      const { delivered, dropped } = relay.stats('a', 'b');
      assert.equal(delivered + dropped.loss, 200);
      await eventually(() => b.received.length === delivered);
      const texts = b.texts;
      await relay.close();
      for (const peer of [a, b]) peer.close();
      b.received.length = 0;
      return texts;
    };
    const first = await arrivals(5);
    assert.deepEqual(await arrivals(5), first);
    assert.notDeepEqual(await arrivals(6), first);
  });

  test('packets arrive when their delay is over, and not when the link is cut before', async () => {
    const clock = new FakeClock();
    const relay = await startLinks({ clock });
    const socket = await a.open(ports.min);
    await b.open(ports.min);
    relay.impair('a', 'b', { delayMs: 80 });
    const isOnTheWay = () => eventually(() => clock.pending === 1);
    socket.send('late', ports.min, b.announced);
    await isOnTheWay();
    clock.advance(79);
    assert.equal(relay.stats('a', 'b').delivered, 0);
    clock.advance(1);
    assert.equal(relay.stats('a', 'b').delivered, 1);
    await eventually(() => b.received.length === 1);
    socket.send('never', ports.min, b.announced);
    await isOnTheWay();
    relay.cut('a', 'b');
    clock.advance(1000);
    assert.deepEqual([clock.pending, relay.stats('a', 'b').dropped.cut], [0, 1]);
    assert.deepEqual(b.texts, ['late']);
  });

  test('names of no nodes are refused', async () => {
    const relay = await startLinks();
    assert.throws(() => relay.cut('a', 'x'), /no link from a to x/);
    assert.throws(() => relay.impair('a', 'a', {}), /no link from a to a/);
  });
});

describe('addresses', () => {
  test('a port that is taken is told, and nothing stays bound', async () => {
    const taken = createSocket('udp4');
    taken.bind({ address: b.announced, port: ports.max });
    await once(taken, 'listening');
    await assert.rejects(startLinks(), {
      code: 'PortInUse',
      message: `The relay of links cannot listen on ${b.announced}:${ports.max}. Give the node another announced address or other ports.`,
    });
    await new Promise<void>((resolve) => taken.close(resolve));
    await startLinks();
  });

  test('processes side by side have addresses of their own', () => {
    const blocks = [1, 2, 300, 16_383].map((pid) => loopbackPair(pid).real.split('.').slice(0, 3).join('.'));
    assert.deepEqual(blocks, ['127.64.1', '127.64.2', '127.65.44', '127.127.255']);
    const { real, announced } = loopbackPair();
    assert.notEqual(real, announced);
  });
});

after(() => {
  for (const peer of [a, b, c]) peer.close();
});
