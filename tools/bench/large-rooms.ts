import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { createToken, type Fleet } from '#test/fleet/mod.ts';
import { distribution, single, type Benchmark, type BenchContext, type Figure, type Target } from './figures.ts';
import { Crowd, type CrowdMeasured } from './load/crowd.ts';
import type { Publishes } from './load/simulated-client.ts';
import type { Arrivals, ClientSpec } from './load/crowd-messages.ts';
import { LinkRates } from './load/link-rates.ts';
import type { LatencyCounts } from './load/reception.ts';
import { monotonicNow } from './load/stamp.ts';
import { childrenOf, cpuSeconds, residentMiB } from './processes.ts';
import { benchNamespace, startBenchFleet, type BenchClient } from './rooms.ts';

const REGIONS = ['eu-west', 'us-east', 'ap-south'];
/** Processes of simulated clients, and joins that are under way at a time, as clients come who follow one invitation. */
const PROCESSES = 2;
const JOINS_AT_ONCE = 16;
/** Measured is when links were clear and streams went straight for so long, or at the latest after so long, milliseconds. */
const CLEAR_MS = 4000;
const SETTLE_MS = 30_000;
/** After the end of a window what is on its way still counts, milliseconds. */
const LATE_MS = 3000;

/** Microphones that hear speech at any time; the others send what Opus sends in silence. */
const AT_ONCE = 2;

/** A room to fill. */
interface RoomPlan {
  name: string;
  /** In words, for the names of figures. */
  words: string;
  participants: number;
  publishers: number;
  /** What the publisher of an index publishes. */
  publishes: (index: number) => Publishes;
  /** How long all are given to receive, milliseconds, and how long is measured after. */
  patienceMs: number;
  windowMs: number;
  /** Holds link bytes against it; none where headers outweigh what they carry. */
  linkTarget?: Omit<Target, 'quantile'>;
}

/** What one room showed. */
interface RoomFound {
  /** From the first join to the first packet of the last track at the last client, milliseconds. */
  everybodyMs: number;
  arrivals: Arrivals;
  measured: CrowdMeasured;
  /** Share of the packets that were to come and came, all clients together and the worst of them. */
  arrived: { all: number; worst: number };
  /** From then until no link was relieved of anything and no stream made a detour, milliseconds. */
  settledMs: number;
  /** Participants whose session still stood at the end. */
  stayed: number;
  /** Cores that were kept busy while all receive, and from the first join until then. */
  cores: Cores;
  filling: Cores;
  /** Longest time that the thread of a node was held up, milliseconds. */
  stallMs: number;
  memory: { nodes: number; workers: number };
  linkRatio: number;
}

interface Cores {
  /** The sfu-node processes, all together; without their media workers. */
  nodes: number;
  workers: number;
  clients: number;
}

/** Processor time so far, seconds, at an instant of the monotonic clock. */
interface CpuReading extends Cores {
  at: number;
}

function busyCores(before: CpuReading, after: CpuReading): Cores {
  const share = (of: keyof Cores) => (after[of] - before[of]) / ((after.at - before.at) / 1e9);
  return { nodes: share('nodes'), workers: share('workers'), clients: share('clients') };
}

class LargeRooms {
  readonly #fleet: Fleet;
  readonly #client: BenchClient;
  readonly #links: LinkRates;

  constructor(fleet: Fleet, client: BenchClient, links: LinkRates) {
    this.#fleet = fleet;
    this.#client = client;
    this.#links = links;
  }

  /** Fills a room, waits until everybody receives everything, and measures for a while. */
  async run(plan: RoomPlan, progress: (step: string) => void): Promise<RoomFound> {
    const crowd = new Crowd(PROCESSES);
    try {
      const clients = await this.#clients(plan);
      // Who publishes is there first; the others come all at once.
      await crowd.join(clients.slice(0, plan.publishers), plan.publishers);
      const before = this.#cpu(crowd);
      const began = before.at;
      await crowd.join(clients.slice(plan.publishers), JOINS_AT_ONCE);
      progress(`${plan.words}: joined after ${((monotonicNow() - began) / 1e9).toFixed(1)} s`);
      const arrivals = await this.#arrive(crowd, plan);
      const everybodyMs = (Math.max(...arrivals.received.map(({ at }) => at)) - began) / 1e6;
      progress(`${plan.words}: everybody receives after ${(everybodyMs / 1000).toFixed(1)} s`);
      const filling = busyCores(before, this.#cpu(crowd));
      return { everybodyMs, arrivals, filling, ...(await this.#measure(crowd, plan)) };
    } finally {
      await crowd.close();
    }
  }

  /** Publishers first; each node gets as many of both. */
  async #clients({ name, participants, publishers, publishes }: RoomPlan): Promise<ClientSpec[]> {
    const { apiKey, apiSecret, nodes } = this.#fleet;
    return await Promise.all(
      Array.from({ length: participants }, async (_, index) => {
        const publisher = index < publishers;
        return {
          url: nodes[index % nodes.length]?.url ?? '',
          token: await createToken({ apiKey, apiSecret, room: name, identity: `${name}-${index}` }),
          publishes: publisher ? publishes(index) : undefined,
          expects: publisher ? publishers - 1 : publishers,
        };
      }),
    );
  }

  /** @throws Error that says how far they came */
  async #arrive(crowd: Crowd, plan: RoomPlan): Promise<Arrivals> {
    // A publisher who is alone has nothing to wait for.
    const waiting = plan.publishers > 1 ? plan.participants : plan.participants - plan.publishers;
    const deadline = monotonicNow() + plan.patienceMs * 1e6;
    for (;;) {
      const arrivals = await crowd.arrivals();
      if (arrivals.received.length >= waiting) return arrivals;
      if (monotonicNow() > deadline) {
        const { open, received } = arrivals;
        throw new Error(
          `${plan.words}: ${open} of ${plan.participants} are in the room, ${received.length} of ${waiting} get everything`,
        );
      }
      await delay(100);
    }
  }

  async #measure(crowd: Crowd, plan: RoomPlan): Promise<Omit<RoomFound, 'everybodyMs' | 'arrivals' | 'filling'>> {
    const settledMs = await this.#settle(plan);
    const from = monotonicNow() + 200e6;
    await crowd.measure({ from, to: from + plan.windowMs * 1e6 });
    const before = this.#cpu(crowd);
    const kbps: number[] = [];
    await this.#stallMs();
    let stallMs = 0;
    while (monotonicNow() < from + plan.windowMs * 1e6) {
      await delay(1000);
      kbps.push(await this.#links.kbps(plan.name));
      stallMs = Math.max(stallMs, await this.#stallMs());
    }
    const after = this.#cpu(crowd);
    const memory = this.#memory();
    await delay(LATE_MS);
    const measured = await crowd.measured();
    return {
      measured,
      settledMs,
      stallMs,
      memory,
      stayed: (await crowd.arrivals()).open,
      arrived: shareThatArrived(measured),
      cores: busyCores(before, after),
      linkRatio: this.#linkRatio(plan, measured, kbps),
    };
  }

  /** Waits until what came with the joins is over: links that were slow while nodes were busy, detours around those. */
  async #settle({ name }: RoomPlan): Promise<number> {
    const began = monotonicNow();
    const sinceMs = () => (monotonicNow() - began) / 1e6;
    let clearSince = 0;
    while (sinceMs() - clearSince < CLEAR_MS && sinceMs() < SETTLE_MS) {
      await delay(250);
      const { status } = await this.#client.rooms.get(name, benchNamespace);
      const straight = (status?.detours ?? []).length === 0;
      if (!straight || !(await this.#links.clear(name))) clearSince = sinceMs();
    }
    return clearSince;
  }

  /** Bytes on links over the payload of the lowest layer, which all show, once for each other node. */
  #linkRatio({ windowMs }: RoomPlan, { sent }: CrowdMeasured, kbps: readonly number[]): number {
    const payloadKbps = ((sent.octets[0] ?? 0) * 8) / windowMs;
    return kbps.reduce((sum, value) => sum + value, 0) / kbps.length / (payloadKbps * (this.#fleet.nodes.length - 1));
  }

  /** Longest time that the thread of a node was held up since the last call, milliseconds. */
  async #stallMs(): Promise<number> {
    const stalls = this.#fleet.nodes.map(async ({ http }) => {
      const text = await (await fetch(`http://${http}/metrics`)).text();
      return Number(/^nodejs_eventloop_lag_max_seconds(?:\{[^}]*\})? (\S+)$/m.exec(text)?.[1]) * 1000;
    });
    return Math.max(...(await Promise.all(stalls)));
  }

  #workers(): number[] {
    return this.#fleet.nodes.flatMap(({ pid }) => childrenOf(pid));
  }

  #cpu(crowd: Crowd): CpuReading {
    const sum = (pids: readonly number[]) => pids.reduce((total, pid) => total + cpuSeconds(pid), 0);
    const nodes = this.#fleet.nodes.map(({ pid }) => pid);
    return { at: monotonicNow(), nodes: sum(nodes), workers: sum(this.#workers()), clients: crowd.cpuSeconds };
  }

  /** MiB that all nodes, and all workers, hold. */
  #memory(): { nodes: number; workers: number } {
    const sum = (pids: readonly number[]) => pids.reduce((total, pid) => total + residentMiB(pid), 0);
    return { nodes: sum(this.#fleet.nodes.map(({ pid }) => pid)), workers: sum(this.#workers()) };
  }
}

/** Every packet of the lowest layer is to come to everybody but who sent it. */
function shareThatArrived({ sent, clients }: CrowdMeasured): RoomFound['arrived'] {
  const packets = sent.packets[0] ?? 0;
  const due = clients.map((client) => packets - client.sent);
  const received = clients.reduce((sum, client) => sum + client.received, 0);
  const shares = clients.flatMap((client, index) => (due[index] ? [client.received / due[index]] : []));
  return { all: received / due.reduce((sum, count) => sum + count, 0), worst: Math.min(...shares) };
}

function figuresOf({ words, linkTarget }: RoomPlan, found: RoomFound): Figure[] {
  const { measured, cores, memory, arrived } = found;
  const afterMs = found.arrivals.received.map((one) => one.afterMs);
  const { latency } = measured;
  // Few bytes are no merit where what they should carry is missing.
  const whole = arrived.all > 0.99;
  return [
    single(`${words}: first join until everybody receives everything`, 's', [found.everybodyMs / 1000]),
    distribution(`${words}: own join until the last track arrives`, 'ms', afterMs),
    single(`${words}: packets that arrive`, '%', [arrived.all * 100]),
    single(`${words}: packets that arrive, at who gets the fewest`, '%', [arrived.worst * 100]),
    latencyFigure(`${words}: end to end, sender to receiver`, latency),
    single(
      `${words}: bytes on links over payload that is wanted`,
      '',
      [found.linkRatio],
      whole ? linkTarget : undefined,
    ),
    single(`${words}: longest stall of a node's own thread`, 'ms', [found.stallMs]),
    single(`${words}: three nodes`, 'cores', [cores.nodes]),
    single(`${words}: their three workers`, 'cores', [cores.workers]),
    single(`${words}: three nodes with workers`, 'MiB', [memory.nodes + memory.workers]),
  ];
}

function latencyFigure(name: string, latency: LatencyCounts): Figure {
  return {
    ...{ name, unit: 'ms', count: latency.total, targets: [] },
    ...{ p50: latency.quantile(0.5), p95: latency.quantile(0.95), p99: latency.quantile(0.99) },
    ...{ min: latency.quantile(0), max: latency.quantile(1) },
  };
}

function noteOf({ words, windowMs, participants }: RoomPlan, found: RoomFound): string {
  const { measured, cores, filling, stayed, settledMs } = found;
  const packets = measured.clients.reduce((sum, { received }) => sum + received, 0);
  const sum = ({ nodes, workers, clients }: Cores) => (nodes + workers + clients).toFixed(2);
  return (
    `${words}: ${((packets / windowMs) * 1000).toFixed(0)} packets a second arrived. The simulated clients shared the ` +
    `${availableParallelism()} cores with the fleet, at a lower priority, and needed ${cores.clients.toFixed(2)} of the ` +
    `${sum(cores)} that were busy (${filling.clients.toFixed(2)} of ${sum(filling)} while they joined).` +
    (settledMs > 0
      ? ` Links were slow or streams made detours for ${(settledMs / 1000).toFixed(1)} s more; measured was after that.`
      : '') +
    (stayed < participants ? ` ${participants - stayed} were sent away meanwhile.` : '')
  );
}

/** Microphones of which `at once` hear speech at any time: each for as many turns. */
function takingTurns(index: number, microphones: number, atOnce: number): Publishes {
  const own = Array.from({ length: atOnce }, (_, turn) => (index + turn) % microphones);
  return { source: 'microphone', turns: { turns: microphones, own } };
}

function plansOf(quick: boolean): RoomPlan[] {
  const audio = quick ? { participants: 20, publishers: 4 } : { participants: 200, publishers: 10 };
  const viewers = quick ? 30 : 500;
  const extent = quick ? { patienceMs: 30_000, windowMs: 3000 } : { patienceMs: 90_000, windowMs: 20_000 };
  return [
    {
      ...{ name: 'audio', ...audio, ...extent },
      words: `${audio.participants} in an audio room, ${audio.publishers} microphones, ${AT_ONCE} speak at a time`,
      publishes: (index) => takingTurns(index, audio.publishers, AT_ONCE),
    },
    {
      ...{ name: 'broadcast', participants: viewers + 1, publishers: 1, ...extent },
      words: `1 to ${viewers}, 150 kbps of video`,
      publishes: () => ({ source: 'camera' }),
      linkTarget: { value: 1.1, better: 'lower' },
    },
  ];
}

async function run({ quick, progress }: BenchContext) {
  const plans = plansOf(quick);
  const figures: Figure[] = [];
  const notes: string[] = [];
  const detail: Record<string, unknown> = {};
  for (const plan of plans) {
    progress(`${plan.words}: starting a fleet of one operator and three nodes`);
    const nodes = REGIONS.map((region, index) => ({ name: `sfu-${index + 1}`, region }));
    const { fleet, client } = await startBenchFleet({ nodes });
    const links = await LinkRates.open(fleet);
    try {
      const found = await new LargeRooms(fleet, client, links).run(plan, progress);
      figures.push(...figuresOf(plan, found));
      notes.push(noteOf(plan, found));
      const { latency: _latency, ...measured } = found.measured;
      detail[plan.name] = { ...found, measured };
    } finally {
      links.close();
      client.close();
      await fleet.stop();
    }
  }
  return { figures, notes, detail };
}

/** Rooms of hundreds over three nodes in three regions, with simulated clients. */
export const benchmark: Benchmark = { run };
