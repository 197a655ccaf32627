import type { Fleet } from '#test/fleet/mod.ts';
import { median, single, type Benchmark, type BenchContext } from './figures.ts';
import { fewestWrites, removeBare, writeBare, type Write } from './bare-client.ts';
import { childrenOf, cpuSeconds } from './processes.ts';
import { countsBetween, inParallel, roomBody, RoomWatch, startBenchFleet, type BenchClient } from './rooms.ts';

const CONCURRENCY = 32;

/** Creates Rooms as fast as `CONCURRENCY` creators can; milliseconds until the last is seen Ready. */
async function burst(client: BenchClient, prefix: string, count: number): Promise<{ millis: number; writes: Write[] }> {
  const watch = await RoomWatch.open(client);
  try {
    const followed = Array.from({ length: Math.min(20, count) }, (_, index) => `${prefix}-${index}`);
    for (const name of followed) watch.follow(name);
    const start = performance.now();
    await inParallel(count, CONCURRENCY, async (index) => {
      await client.rooms.create(roomBody(`${prefix}-${index}`));
    });
    const created = performance.now();
    await watch.waitForReady(count, 120_000 - (created - start));
    const millis = Math.max(...watch.readyAt.values()) - start;
    return { millis, writes: fewestWrites(followed.map((name) => watch.history(name))) };
  } finally {
    watch.close();
  }
}

interface Repetition {
  operatorRate: number;
  bareRate: number;
  share: number;
  /** Requests a room that the API server answered, by verb. */
  operatorRequests: Record<string, number>;
  bareRequests: Record<string, number>;
  /** Cores that each program kept busy meanwhile. */
  operatorCores: Record<string, number>;
  bareCores: Record<string, number>;
  writes: Write[];
}

/** Processor time of each program of the fleet so far, seconds. */
function cpuOf(fleet: Fleet): Record<string, number> {
  const sum = (pids: number[]) => pids.reduce((total, pid) => total + cpuSeconds(pid), 0);
  const running = fleet.operators.filter((operator) => operator.process.running);
  return {
    'kube-apiserver': sum([fleet.plane?.apiserver.pid ?? 0]),
    etcd: sum([fleet.plane?.etcd.pid ?? 0]),
    nats: sum([fleet.nats.pid]),
    operator: sum(running.map(({ pid }) => pid)),
    nodes: sum(fleet.nodes.flatMap(({ pid }) => [pid, ...childrenOf(pid)])),
    benchmark: sum([process.pid]),
  };
}

/** What a piece of work costs: requests a room, and the cores that it keeps busy. */
async function counted<T>(
  fleet: Fleet,
  client: BenchClient,
  count: number,
  work: () => Promise<T>,
): Promise<{ value: T; requests: Record<string, number>; cores: Record<string, number> }> {
  const before = await client.requestCounts();
  const [cpuBefore, start] = [cpuOf(fleet), performance.now()];
  const value = await work();
  const seconds = (performance.now() - start) / 1000;
  const busy = Object.entries(cpuOf(fleet)).map(
    ([name, cpu]) => [name, (cpu - (cpuBefore[name] ?? 0)) / seconds] as const,
  );
  const cores = Object.fromEntries(busy.map(([name, share]) => [name, Math.round(share * 100) / 100]));
  const between = countsBetween(before, await client.requestCounts());
  const perRoom = Object.entries(between).map(([key, total]) => [key, Math.round((total / count) * 1000) / 1000]);
  return { value, requests: Object.fromEntries(perRoom) as Record<string, number>, cores };
}

/** Median over the repetitions, the busiest first. */
function coresWords(repetitions: readonly Record<string, number>[]): string {
  const names = Object.keys(repetitions[0] ?? {});
  const medians = names.map((name) => [name, median(repetitions.map((one) => one[name] ?? 0))] as const);
  const busy = medians.filter(([, cores]) => cores >= 0.01).sort(([, a], [, b]) => b - a);
  return busy.map(([name, cores]) => `${name} ${cores.toFixed(2)}`).join(', ');
}

async function run({ quick, progress }: BenchContext) {
  const count = quick ? 50 : 1000;
  const warmUp = quick ? 10 : 200;
  const repetitions = quick ? 1 : 5;
  progress('starting a fleet of one operator and two nodes');
  const { fleet, client } = await startBenchFleet({
    nodes: [
      { name: 'sfu-1', region: 'eu-west' },
      { name: 'sfu-2', region: 'eu-west' },
    ],
  });
  const operator = fleet.operators[0];
  try {
    if (!operator) throw new Error('the fleet has no operator');
    const found: Repetition[] = [];
    let writes: Write[] = [];
    for (let number = 1; number <= repetitions; number += 1) {
      // The operator was started afresh: as much warming for it as for the bare client below.
      writes = (await burst(client, `warm-${number}`, warmUp)).writes;
      await client.deleteRooms();
      const withOperator = await counted(fleet, client, count, () => burst(client, `burst-${number}`, count));
      await client.deleteRooms();

      await operator.process.stop();
      const bare = { concurrency: CONCURRENCY, writes };
      await writeBare(client, { ...bare, prefix: `bare-warm-${number}`, count: warmUp });
      await removeBare(client, CONCURRENCY);
      const alone = await counted(fleet, client, count, () =>
        writeBare(client, { ...bare, prefix: `bare-${number}`, count }),
      );
      await removeBare(client, CONCURRENCY);
      if (number < repetitions) {
        await fleet.restart(operator);
        await fleet.nodesReady(...fleet.nodes.map(({ name }) => name));
      }

      const operatorRate = (count / withOperator.value.millis) * 1000;
      const bareRate = (count / alone.value) * 1000;
      found.push({
        operatorRate,
        bareRate,
        share: operatorRate / bareRate,
        operatorRequests: withOperator.requests,
        bareRequests: alone.requests,
        operatorCores: withOperator.cores,
        bareCores: alone.cores,
        writes,
      });
      progress(`${number} of ${repetitions}: operator ${operatorRate.toFixed(0)}/s, bare ${bareRate.toFixed(0)}/s`);
    }
    const words = writes.map(({ kind }) => (kind === 'status' ? 'status' : 'finalizer')).join(', ');
    return {
      figures: [
        single(
          `${count} Rooms at once until all Ready`,
          'rooms/s',
          found.map((one) => one.operatorRate),
        ),
        single(
          'the same writes by a bare client',
          'rooms/s',
          found.map((one) => one.bareRate),
        ),
        single(
          'the same, in requests',
          'requests/s',
          found.map((one) => one.bareRate * (1 + one.writes.length)),
        ),
        single(
          'share of the bare client',
          '',
          found.map((one) => one.share),
          { value: 0.6, better: 'higher' },
        ),
      ],
      notes: [
        `Bursts: ${CONCURRENCY} creators; each room's writes after its creation: ${words}. ` +
          `Median of ${repetitions} alternated pairs (share of the medians: ` +
          `${(median(found.map((one) => one.operatorRate)) / median(found.map((one) => one.bareRate))).toFixed(2)}).`,
        `Cores kept busy with the operator: ${coresWords(found.map((one) => one.operatorCores))}; ` +
          `by the bare client: ${coresWords(found.map((one) => one.bareCores))}.`,
      ],
      detail: { repetitions: found },
    };
  } finally {
    client.close();
    await fleet.stop();
  }
}

/** Many Rooms at once, against what the API server allows a client that only makes the same writes. */
export const benchmark: Benchmark = { run };
