import type { NodeView } from '#core/model.ts';
import { placementOf } from '#operator/room/translate.ts';
import { distribution, percentile, single, type Benchmark, type BenchContext, type Figure } from './figures.ts';
import { seededRandom } from '#tools/local/seeded-random.ts';
import { SimulatedFleet, type SimulatedRoom } from './simulated-fleet.ts';

const REGIONS = 10;
const FLEETS = [100, 300, 1000];
const ROOMS_PER_NODE = 10;
/** How many of a hundred rooms have people in so many regions. */
const SPREAD: readonly [regions: number, percent: number][] = [
  [1, 70],
  [2, 18],
  [3, 8],
  [4, 3],
  [6, 1],
];
/** Of a hundred rooms so many fill their first node, and spill to a second and third of its region. */
const SPILLING_PERCENT = 2;
const DYING_PERCENT = 2;
const LINKS_DOWN_PERCENT = 2;

const regionOf = (index: number) => `region-${index % REGIONS}`;

function nodeView(index: number, random: () => number): NodeView {
  return {
    name: `sfu-${index}`,
    region: regionOf(index),
    zone: '',
    labels: {},
    ready: true,
    unschedulable: false,
    draining: false,
    capacity: { streams: 20_000, mbps: 10_000 },
    load: { streams: 0, mbps: random() * 1000, cpu: random() * 0.3 },
    reliability: { joinSuccess: 0.95 + random() * 0.05, linkLoss: random() * 0.01 },
    cost: 80 + Math.floor(random() * 40),
  };
}

/** What one fleet went through. */
interface Run {
  fleet: SimulatedFleet;
  /** Rooms settled a second, each over all of its steps. */
  settledPerSecond: number;
  linksPerRoom: number;
  linksPerSpanningRoom: number;
  /** Share (0..1) of rooms by number of nodes. */
  shares: Map<number, number>;
  unreachable: number;
  moved: number;
}

function simulate(nodes: number, seed: number): Run {
  const random = seededRandom(seed);
  const views = Array.from({ length: nodes }, (_, index) => nodeView(index, random));
  const fleet = new SimulatedFleet(views, random);
  const start = performance.now();
  let settled = 0;
  for (let index = 0; index < nodes * ROOMS_PER_NODE; index += 1) {
    settled += populate(fleet, fleet.add(`room-${index}`, {}), random);
  }
  const census = count(fleet);
  let moved = 0;
  for (let index = 0; index < (nodes * DYING_PERCENT) / 100; index += 1) moved += fleet.lose(busyNode(fleet, random));
  let unreachable = faults(fleet);
  settled += moved + breakLinks(fleet, random);
  unreachable += faults(fleet);
  settled += repairLinks(fleet);
  unreachable += faults(fleet);
  const seconds = (performance.now() - start) / 1000;
  return { fleet, settledPerSecond: settled / seconds, unreachable, moved, ...census };
}

/** A node of a room that is drawn: one that matters. */
function busyNode({ rooms }: SimulatedFleet, random: () => number): string {
  const drawn = rooms[Math.floor(random() * rooms.length)];
  return drawn?.room.status?.primaryNode ?? '';
}

/** People join from as many regions as the room spans; answers with how often it was settled. */
function populate(fleet: SimulatedFleet, room: SimulatedRoom, random: () => number): number {
  const home = placementOf(room.room)?.nodes[0]?.region ?? '';
  const wanted = spread(random() * 100);
  const first = Number(home.split('-')[1]);
  for (let step = 0; step < wanted; step += 1) fleet.join(room, regionOf(first + step * 3));
  if (random() * 100 >= SPILLING_PERCENT) return 1 + wanted;
  for (let spilled = 0; spilled < 2; spilled += 1) {
    const full = placementOf(room.room)?.nodes.filter(({ region }) => region === home) ?? [];
    fleet.join(
      room,
      home,
      full.map(({ node }) => node),
    );
  }
  return 3 + wanted;
}

function spread(drawn: number): number {
  let left = drawn;
  for (const [regions, percent] of SPREAD) {
    if (left < percent) return regions;
    left -= percent;
  }
  return 1;
}

function breakLinks(fleet: SimulatedFleet, random: () => number): number {
  const declared = fleet.rooms.flatMap(({ room }) => room.status?.links ?? []);
  for (const { from, to } of declared) if (random() * 100 < LINKS_DOWN_PERCENT) fleet.down.add(`${from}/${to}`);
  return settleWhere(fleet, (room) => hasLinkDown(fleet, room));
}

function repairLinks(fleet: SimulatedFleet): number {
  const hurt = new Set(fleet.rooms.filter((room) => hasLinkDown(fleet, room)));
  fleet.down.clear();
  fleet.now += 10_000;
  return settleWhere(fleet, (room) => hurt.has(room));
}

function hasLinkDown(fleet: SimulatedFleet, { room }: SimulatedRoom): boolean {
  return room.status?.links?.some(({ from, to }) => fleet.down.has(`${from}/${to}`)) ?? false;
}

function settleWhere(fleet: SimulatedFleet, where: (room: SimulatedRoom) => boolean): number {
  const rooms = fleet.rooms.filter(where);
  for (const room of rooms) fleet.settle(room);
  return rooms.length;
}

function faults(fleet: SimulatedFleet): number {
  return fleet.rooms.filter((room) => fleet.fault(room) !== undefined).length;
}

function count({ rooms }: SimulatedFleet): Pick<Run, 'linksPerRoom' | 'linksPerSpanningRoom' | 'shares'> {
  const sizes = rooms.map(({ room }) => room.status?.placement?.length ?? 0);
  const links = rooms.reduce((sum, { room }) => sum + (room.status?.links?.length ?? 0), 0);
  const shares = new Map<number, number>();
  for (const size of sizes) shares.set(size, (shares.get(size) ?? 0) + 1 / sizes.length);
  const spanning = sizes.filter((size) => size > 1).length;
  return { linksPerRoom: links / rooms.length, linksPerSpanningRoom: links / spanning, shares };
}

function figuresOf(nodes: number, runs: readonly Run[]): Figure[] {
  const [first] = runs;
  if (!first) return [];
  const micros = first.fleet.planNanos.map((nanos) => nanos / 1000);
  const all = (pick: (run: Run) => number) => runs.map(pick);
  const target = { value: 0, better: 'lower' } as const;
  const name = `${nodes} nodes, ${first.fleet.rooms.length} rooms`;
  return [
    distribution(`${name}: one planning step of a room`, 'µs', sample(micros)),
    single(
      '  rooms settled',
      'rooms/s',
      all((run) => run.settledPerSecond),
    ),
    single(
      '  links a room',
      'links',
      all((run) => run.linksPerRoom),
    ),
    single(
      '  links a room of several nodes',
      'links',
      all((run) => run.linksPerSpanningRoom),
    ),
    single(
      '  rooms planned anew for nodes that died',
      'rooms',
      all((run) => run.moved),
    ),
    single(
      '  rooms with a node out of reach after deaths, links down and up',
      'rooms',
      all((run) => run.unreachable),
      target,
    ),
  ];
}

/** At most so many as quantiles need. */
function sample(values: readonly number[]): number[] {
  const step = Math.max(1, Math.floor(values.length / 50_000));
  return values.filter((_, index) => index % step === 0);
}

function run({ quick, progress }: BenchContext) {
  const sizes = quick ? [20] : FLEETS;
  const seeds = quick ? [1] : [1, 2, 3];
  const notes: string[] = [];
  const detail: Record<string, unknown> = {};
  const figures = sizes.flatMap((nodes) => {
    progress(`${nodes} nodes, ${nodes * ROOMS_PER_NODE} rooms, ${seeds.length} times`);
    const runs = seeds.map((seed) => simulate(nodes, seed));
    const shares = [...runs[0]!.shares].sort(([a], [b]) => a - b);
    const words = shares.map(([size, share]) => `${size}: ${(share * 100).toFixed(1)} %`).join(', ');
    notes.push(`Rooms by number of nodes, ${nodes} nodes: ${words}.`);
    detail[nodes] = {
      shares,
      steps: runs[0]!.fleet.planNanos.length,
      p999: percentile(runs[0]!.fleet.planNanos, 0.999),
    };
    return figuresOf(nodes, runs);
  });
  return Promise.resolve({ figures, notes, detail });
}

/** The operator's planning over a whole fleet and its rooms, without a network: placement, links, ways of streams, failures. */
export const benchmark: Benchmark = { run };
