import type { NodeView, RoomView } from '#core/model.ts';
import { FleetIndex, place } from '#core/placement/mod.ts';
import { seededRandom } from '#tools/local/seeded-random.ts';
import { distribution, single, type Benchmark, type BenchContext } from './figures.ts';

const NODES = 1000;
const REGIONS = ['ap-south', 'eu-central', 'eu-west', 'us-east', 'us-west'];
/** Streams that a room reserves when its Room says nothing. */
const STREAMS = 20;

/** Nodes as a fleet has them: no two alike in load, reliability and cost. */
function nodeView(index: number, random: () => number): NodeView {
  return {
    name: `sfu-${index}`,
    region: REGIONS[index % REGIONS.length] ?? '',
    zone: `zone-${index % 3}`,
    labels: { disk: index % 2 === 0 ? 'ssd' : 'hdd' },
    ready: true,
    unschedulable: false,
    draining: false,
    capacity: { streams: 20_000, mbps: 10_000 },
    load: { streams: Math.floor(random() * 4000), mbps: random() * 2000, cpu: random() * 0.3 },
    reliability: { joinSuccess: 0.95 + random() * 0.05, linkLoss: random() * 0.01 },
    cost: 80 + Math.floor(random() * 40),
  };
}

function roomView(index: number, asks: Partial<RoomView>): RoomView {
  const identity = { uid: `uid-${index}`, namespace: 'default', name: `room-${index}`, roomName: `room-${index}` };
  return {
    identity,
    regions: [],
    preferredRegions: [],
    nodeSelector: {},
    streams: STREAMS,
    placement: undefined,
    ...asks,
  };
}

/** Kinds of rooms that are decided on; the target speaks of the first. */
const kinds: readonly { name: string; asks: (index: number) => Partial<RoomView>; share: number }[] = [
  {
    name: 'rooms that want a region',
    asks: (index) => ({ regions: [REGIONS[index % 5] ?? ''], preferredRegions: [REGIONS[index % 5] ?? ''] }),
    share: 1,
  },
  { name: 'rooms that want nothing', asks: () => ({}), share: 1 },
  // A selector makes placement look at every node.
  { name: 'rooms with a nodeSelector', asks: () => ({ nodeSelector: { disk: 'ssd' } }), share: 0.02 },
];

/** Decides on new rooms one after the other, each reserved before the next; decisions a second and nanoseconds each. */
function decide(count: number, asks: (index: number) => Partial<RoomView>): { rate: number; sampledNanos: number[] } {
  const random = seededRandom(1);
  const fleet = new FleetIndex();
  for (let index = 0; index < NODES; index += 1) fleet.update(nodeView(index, random));
  const rooms = Array.from({ length: count }, (_, index) => roomView(index, asks(index)));
  const sampledNanos: number[] = [];
  const start = performance.now();
  for (const [index, room] of rooms.entries()) {
    // A look at the clock costs about as much as a decision: every 64th is timed.
    const from = index % 64 === 0 ? process.hrtime.bigint() : undefined;
    const chosen = place(room, fleet, random);
    if ('refused' in chosen) throw new Error(`room ${index} was refused: ${chosen.message}`);
    for (const placed of chosen.nodes) fleet.reserve(placed.node, room.identity.uid, room.streams);
    if (from !== undefined) sampledNanos.push(Number(process.hrtime.bigint() - from));
  }
  return { rate: (count / (performance.now() - start)) * 1000, sampledNanos };
}

function run({ quick, progress }: BenchContext) {
  const count = quick ? 2000 : 200_000;
  const repetitions = quick ? 1 : 7;
  const figures = kinds.flatMap(({ name, asks, share }, index) => {
    progress(`${Math.round(count * share)} ${name}, ${repetitions} times`);
    decide(Math.ceil((count * share) / 10), asks);
    const found = Array.from({ length: repetitions }, () => decide(Math.ceil(count * share), asks));
    const target = index === 0 ? ({ value: 100_000, better: 'higher' } as const) : undefined;
    return [
      single(
        `placement over ${NODES} nodes, ${name}`,
        'decisions/s',
        found.map(({ rate }) => rate),
        target,
      ),
      distribution(
        `  one decision, ${name}`,
        'µs',
        found.flatMap(({ sampledNanos }) => sampledNanos.map((nanos) => nanos / 1000)),
      ),
    ];
  });
  return Promise.resolve({ figures });
}

/** core/placement alone: a decision and its reservation, over and over, in one thread. */
export const benchmark: Benchmark = { run };
