import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { systemClock, type Clock } from '#platform/clock.ts';
import { WeirError } from '#platform/errors.ts';
import { ImpairedDirection, type DropReason, type Impairment } from './impairment.ts';

/** One node as the links know it. */
export interface LinkedNode {
  /** By which tests speak of it. */
  name: string;
  /** Address that the node binds. */
  real: string;
  /** Address that the node announces to others; the relay binds it. */
  announced: string;
  /** UDP ports of the node's links, the same on both addresses. The relay opens a socket for each: keep it small. */
  ports: { min: number; max: number };
}

/** Which ways between two nodes are meant: only from the first to the second, or both. */
export type Ways = 'one' | 'both';

/** What happened to the packets of one direction. */
export interface DirectionStats {
  /** Packets that arrived. */
  delivered: number;
  /** Payload bytes that arrived. */
  bytes: number;
  dropped: Record<DropReason, number>;
}

export interface ImpairedLinksOptions {
  /** Two runs of the same packets under the same seed drop the same ones, direction by direction. */
  seed: number;
  nodes: readonly LinkedNode[];
  clock?: Clock;
}

const noStats = (): DirectionStats => ({ delivered: 0, bytes: 0, dropped: { loss: 0, queue: 0, cut: 0 } });

/** Packets of one direction between two nodes, on their way. */
class Direction {
  readonly network: ImpairedDirection;
  readonly #clock: Clock;
  #stats = noStats();
  /** In the order of delivery, which is that of sending. */
  #onTheWay: { deliverAt: number; bytes: number; deliver: () => void }[] = [];
  #cancelTimer: (() => void) | undefined;

  constructor(seed: number, clock: Clock) {
    this.network = new ImpairedDirection(seed);
    this.#clock = clock;
  }

  get stats(): DirectionStats {
    return { ...this.#stats, dropped: { ...this.#stats.dropped } };
  }

  send(bytes: number, deliver: () => void): void {
    const verdict = this.network.decide(bytes, this.#clock.now());
    if ('dropped' in verdict) {
      this.#stats.dropped[verdict.dropped] += 1;
      return;
    }
    this.#onTheWay.push({ deliverAt: verdict.deliverAt, bytes, deliver });
    if (!this.#cancelTimer) this.#deliverDue();
  }

  /** Drops what is on its way, and everything that follows. */
  cut(): void {
    this.network.cut();
    this.#stats.dropped.cut += this.#onTheWay.length;
    this.clear();
  }

  clear(): void {
    this.#onTheWay = [];
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  #deliverDue(): void {
    this.#cancelTimer = undefined;
    const now = this.#clock.now();
    for (let head = this.#onTheWay[0]; head && head.deliverAt <= now; head = this.#onTheWay[0]) {
      this.#onTheWay.shift();
      this.#stats.delivered += 1;
      this.#stats.bytes += head.bytes;
      head.deliver();
    }
    const [next] = this.#onTheWay;
    if (next) this.#cancelTimer = this.#clock.after(Math.ceil(next.deliverAt - now), () => this.#deliverDue());
  }
}

/**
 * Bad networks between nodes on one machine, without anything in the nodes for it: a UDP relay that looks to them as a
 * 1:1 NAT does.
 *
 * ```
 *   node A                        relay                          node B
 *   binds A.real:p    ------>  B.announced:q      ------>    B.real:q
 *   announces                  A.announced:p   (sends)
 *   A.announced:p
 * ```
 *
 * What A sends to the address that B announced comes to B from the very address that A announced, and the other way
 * round. On its way it is delayed, lost, held by a rate or cut as the test says, each direction for itself.
 *
 * Drops are the same for the same packets; when a packet comes is up to the machine, and so is what its kernel drops when
 * the relay's process is too busy to read.
 */
export class ImpairedLinks {
  readonly #nodes: readonly LinkedNode[];
  readonly #directions = new Map<string, Direction>();
  readonly #sockets = new Map<string, Socket>();
  #strays = 0;

  private constructor({ seed, nodes, clock = systemClock }: ImpairedLinksOptions) {
    this.#nodes = nodes;
    for (const [index, { name }] of nodes.entries()) {
      for (const [peerIndex, peer] of nodes.entries()) {
        if (peerIndex === index) continue;
        // Seeds far apart for neighbours, by a multiplier of Knuth's (TAOCP 3.3.4).
        const own = Math.imul(seed + index * nodes.length + peerIndex, 1_566_083_941);
        this.#directions.set(keyOf(name, peer.name), new Direction(own, clock));
      }
    }
  }

  /**
   * Binds every port of every announced address.
   *
   * @throws WeirError PortInUse when one of them cannot be bound
   */
  static async start(options: ImpairedLinksOptions): Promise<ImpairedLinks> {
    const links = new ImpairedLinks(options);
    const all = options.nodes.flatMap((node) =>
      Array.from({ length: node.ports.max - node.ports.min + 1 }, (_, index) => ({
        node,
        port: node.ports.min + index,
      })),
    );
    const bound = await Promise.allSettled(all.map(({ node, port }) => links.#bind(node, port)));
    const failed = bound.find((result) => result.status === 'rejected');
    if (failed) {
      await links.close();
      throw failed.reason;
    }
    return links;
  }

  /** Packets that were sent to the relay by somebody who is none of the nodes, or from a port that is none of its ports. */
  get strays(): number {
    return this.#strays;
  }

  /** Changes how packets are treated; what is not given stays. @throws RangeError when a value makes no sense */
  impair(from: string, to: string, change: Partial<Impairment>, ways: Ways = 'both'): void {
    for (const direction of this.#between(from, to, ways)) direction.network.impair(change);
  }

  /** Drops everything, also what is on its way. */
  cut(from: string, to: string, ways: Ways = 'both'): void {
    for (const direction of this.#between(from, to, ways)) direction.cut();
  }

  /** Ends a cut, and every impairment. */
  heal(from: string, to: string, ways: Ways = 'both'): void {
    for (const direction of this.#between(from, to, ways)) direction.network.heal();
  }

  /** What happened so far to packets from one node to another. */
  stats(from: string, to: string): DirectionStats {
    return this.#direction(from, to).stats;
  }

  async close(): Promise<void> {
    for (const direction of this.#directions.values()) direction.clear();
    const sockets = [...this.#sockets.values()];
    this.#sockets.clear();
    await Promise.all(sockets.map((socket) => new Promise<void>((resolve) => socket.close(resolve))));
  }

  async #bind(node: LinkedNode, port: number): Promise<void> {
    const socket = createSocket({ type: 'udp4', recvBufferSize: 4 * 2 ** 20 });
    socket.bind({ address: node.announced, port });
    try {
      await once(socket, 'listening');
    } catch (error) {
      throw new WeirError(
        'PortInUse',
        `The relay of links cannot listen on ${node.announced}:${port}. Give the node another announced address or other ports.`,
        { cause: error, where: node.name },
      );
    }
    socket.on('message', (packet, sender) => this.#pass(packet, sender, node, port));
    this.#sockets.set(`${node.announced}:${port}`, socket);
  }

  #pass(packet: Buffer, sender: RemoteInfo, to: LinkedNode, port: number): void {
    const from = this.#nodes.find(({ real }) => real === sender.address);
    const exit = from && this.#sockets.get(`${from.announced}:${sender.port}`);
    if (!from || !exit || from === to) {
      this.#strays += 1;
      return;
    }
    this.#direction(from.name, to.name).send(packet.length, () => exit.send(packet, port, to.real));
  }

  #between(from: string, to: string, ways: Ways): Direction[] {
    const there = this.#direction(from, to);
    return ways === 'one' ? [there] : [there, this.#direction(to, from)];
  }

  #direction(from: string, to: string): Direction {
    const direction = this.#directions.get(keyOf(from, to));
    if (!direction) throw new RangeError(`no link from ${from} to ${to}: write names of two of the nodes`);
    return direction;
  }
}

function keyOf(from: string, to: string): string {
  return `${from} > ${to}`;
}

let addressesTaken = 0;

/**
 * Two addresses of loopback that nobody else has: one to bind, one to announce. Each process has a block of 127.64.0.0/10
 * by its id, so that tests run side by side. Linux only: elsewhere loopback is one address.
 *
 * @throws RangeError when a process asks for more than 127 pairs
 */
export function loopbackPair(pid = process.pid): Pick<LinkedNode, 'real' | 'announced'> {
  addressesTaken += 1;
  if (addressesTaken > 127) throw new RangeError('a process has 127 pairs of loopback addresses, and all are taken');
  const block = pid % 2 ** 14;
  const address = (host: number) => `127.${64 + (block >> 8)}.${block & 0xff}.${host}`;
  return { real: address(addressesTaken * 2 - 1), announced: address(addressesTaken * 2) };
}
