import { createToken, type Fleet } from '#test/fleet/mod.ts';
import { BenchBrowser } from './bench-browser.ts';
import { single, type Benchmark, type BenchContext, type Figure } from './figures.ts';
import { SignalConnection } from './load/signal-connection.ts';
import { childrenOf, settledMiB } from './processes.ts';
import { inParallel, roomBody, RoomWatch, startBenchFleet, type BenchClient } from './rooms.ts';

/** Resident MiB of the operator, of the sfu-node process and of its media worker. */
interface Reading {
  rooms: number;
  participants: number;
  operator: number;
  node: number;
  worker: number;
}

class MemoryBench {
  readonly #fleet: Fleet;
  readonly #client: BenchClient;
  readonly #context: BenchContext;
  readonly readings: Reading[] = [];

  constructor(fleet: Fleet, client: BenchClient, context: BenchContext) {
    this.#fleet = fleet;
    this.#client = client;
    this.#context = context;
  }

  async read(rooms: number, participants: number): Promise<Reading> {
    const [operator, node] = [this.#fleet.operators[0]?.pid ?? 0, this.#fleet.nodes[0]?.pid ?? 0];
    const seconds = this.#context.quick ? 1 : 6;
    const [operatorMiB, nodeMiB, workerMiB] = await Promise.all([
      settledMiB([operator], seconds),
      settledMiB([node], seconds),
      settledMiB(childrenOf(node), seconds),
    ]);
    const reading = { rooms, participants, operator: operatorMiB, node: nodeMiB, worker: workerMiB };
    const words = `operator ${operatorMiB.toFixed(0)}, sfu-node ${nodeMiB.toFixed(0)}, worker ${workerMiB.toFixed(0)} MiB`;
    this.#context.progress(`${rooms} rooms, ${participants} participants: ${words}`);
    this.readings.push(reading);
    return reading;
  }

  /** Brings the fleet to each number of empty rooms in turn. */
  async byRooms(counts: readonly number[]): Promise<Reading[]> {
    const readings: Reading[] = [];
    let made = 0;
    for (const count of counts) {
      const more = count - made;
      if (more > 0) {
        const [watch, first] = [await RoomWatch.open(this.#client), made];
        try {
          await inParallel(more, 16, async (index) => {
            await this.#client.rooms.create(roomBody(`memory-${first + index}`));
          });
          await watch.waitForReady(more, 120_000);
        } finally {
          watch.close();
        }
        made = count;
      }
      readings.push(await this.read(count, 0));
    }
    return readings;
  }

  token(room: string, identity: string): Promise<string> {
    return createToken({ apiKey: this.#fleet.apiKey, apiSecret: this.#fleet.apiSecret, room, identity });
  }

  /** Participants without media, ten a room. */
  async byLightParticipants(counts: readonly number[]): Promise<Reading[]> {
    const clients: SignalConnection[] = [];
    const url = this.#fleet.nodes[0]?.url ?? '';
    const readings: Reading[] = [];
    try {
      for (const count of counts) {
        const first = clients.length;
        await inParallel(count - first, 8, async (index) => {
          const number = first + index;
          const room = `memory-${Math.floor(number / 10)}`;
          const token = await this.token(room, `light-${number}`);
          clients.push(await SignalConnection.open({ url, token }));
        });
        const open = clients.filter((client) => client.open).length;
        if (open < count) throw new Error(`${open} of ${count} participants are still joined`);
        readings.push(await this.read(Math.ceil(count / 10), count));
      }
      return readings;
    } finally {
      for (const client of clients) client.close();
    }
  }

  /** One camera and many who see it, in Chromium: what a participant with media costs. */
  async byBrowserParticipants(subscribers: number): Promise<Reading[]> {
    const browser = await BenchBrowser.launch();
    const url = this.#fleet.nodes[0]?.url ?? '';
    try {
      await (await browser.window()).publish(url, await this.token('memory-media', 'publisher'));
      const before = await this.read(1, 1);
      const tokens = Array.from({ length: subscribers }, (_, index) => this.token('memory-media', `viewer-${index}`));
      await (await browser.window()).joinMany(url, await Promise.all(tokens));
      return [before, await this.read(1, 1 + subscribers)];
    } finally {
      await browser.close();
    }
  }
}

/** What one more costs, from the first and the last reading, KiB. */
function slopeKiB(
  readings: readonly Reading[],
  of: (reading: Reading) => number,
  by: 'rooms' | 'participants',
): number {
  const [first, last] = [readings[0], readings.at(-1)];
  if (!first || !last || last[by] === first[by]) return Number.NaN;
  return ((of(last) - of(first)) * 1024) / (last[by] - first[by]);
}

function roomFigures(readings: readonly Reading[], upTo: number): Figure[] {
  const ofNode = readings.filter(({ rooms }) => rooms <= upTo);
  const whole = ({ node, worker }: Reading) => node + worker;
  return [
    ...readings.map((one) => single(`operator, ${one.rooms} rooms`, 'MiB', [one.operator])),
    single('operator, one more room', 'KiB', [slopeKiB(readings, ({ operator }) => operator, 'rooms')]),
    ...ofNode.map((one) => single(`sfu-node with worker, ${one.rooms} empty rooms`, 'MiB', [whole(one)])),
    single('sfu-node with worker, one more empty room', 'KiB', [slopeKiB(ofNode, whole, 'rooms')]),
  ];
}

async function run(context: BenchContext) {
  const { quick, progress } = context;
  progress('starting a fleet of one operator and one node with one worker');
  const { fleet, client } = await startBenchFleet({ nodes: [{ name: 'sfu-1', region: 'eu-west' }] });
  try {
    const bench = new MemoryBench(fleet, client, context);
    const nodeRooms = quick ? 20 : 500;
    const byRooms = await bench.byRooms(quick ? [0, 10, 20] : [0, 100, 500, 1000, 3000]);
    await client.deleteRooms();
    // A node afresh: what was on it before has left marks on its heap.
    const node = fleet.nodes[0];
    if (node) await fleet.restart(node);
    const light = await bench.byLightParticipants(quick ? [0, 10] : [0, 50, 200]);
    if (node) await fleet.restart(node);
    const media = await bench.byBrowserParticipants(quick ? 2 : 10);
    const whole = ({ node, worker }: Reading) => node + worker;
    return {
      figures: [
        ...roomFigures(byRooms, nodeRooms),
        ...light.map((one) =>
          single(`sfu-node with worker, ${one.participants} participants without media`, 'MiB', [whole(one)]),
        ),
        single('sfu-node with worker, one more participant without media', 'KiB', [
          slopeKiB(light, whole, 'participants'),
        ]),
        ...media.map((one) =>
          single(`sfu-node with worker, ${one.participants} in one call, 1 camera`, 'MiB', [whole(one)]),
        ),
        single('sfu-node with worker, one more subscriber of a camera', 'KiB', [
          slopeKiB(media, whole, 'participants'),
        ]),
      ],
      notes: [
        'Memory is resident memory (RSS) at rest; Node gives memory back late, so it is an upper bound of what is in use.',
        'Participants without media join over the WebSocket and are offered media, but never connect it.',
      ],
      detail: { readings: bench.readings },
    };
  } finally {
    client.close();
    await fleet.stop();
  }
}

/** Memory of operator and sfu-node by rooms and by participants. No targets: figures to plan capacity with. */
export const benchmark: Benchmark = { run };
