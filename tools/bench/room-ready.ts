import { setTimeout as delay } from 'node:timers/promises';
import { distribution, type Benchmark } from './figures.ts';
import { benchNamespace, roomBody, RoomWatch, startBenchFleet, type BenchClient } from './rooms.ts';

const ROOMS_A_SECOND = 10;

/** Creates rooms on a fixed schedule, however long each takes; answers the milliseconds from request to Ready event. */
async function applyAtRate(client: BenchClient, prefix: string, count: number): Promise<number[]> {
  const watch = await RoomWatch.open(client);
  try {
    const startedAt = new Map<string, number>();
    const creations: Promise<unknown>[] = [];
    const start = performance.now();
    for (let index = 0; index < count; index += 1) {
      await delay(Math.max(0, start + (index * 1000) / ROOMS_A_SECOND - performance.now()));
      const name = `${prefix}-${index}`;
      startedAt.set(name, performance.now());
      creations.push(client.rooms.create(roomBody(name)));
    }
    await Promise.all(creations);
    await watch.waitForReady(count, 30_000);
    return [...startedAt].map(([name, at]) => (watch.readyAt.get(name) ?? Number.NaN) - at);
  } finally {
    watch.close();
  }
}

/** From the POST of a Room to the watch event that says Ready, at a steady 10 rooms a second. */
export const benchmark: Benchmark = {
  async run({ quick, progress }) {
    const count = quick ? 20 : 300;
    progress('starting a fleet of one operator and two nodes');
    const { fleet, client } = await startBenchFleet({
      nodes: [
        { name: 'sfu-1', region: 'eu-west' },
        { name: 'sfu-2', region: 'eu-west' },
      ],
    });
    try {
      await applyAtRate(client, 'warm', quick ? 5 : 50);
      progress(`${count} Rooms in namespace ${benchNamespace}, ${ROOMS_A_SECOND} a second`);
      const millis = await applyAtRate(client, 'room', count);
      await client.deleteRooms();
      return {
        figures: [
          distribution(`Room applied to Ready, ${ROOMS_A_SECOND} rooms/s`, 'ms', millis, [
            { quantile: 'p50', value: 50, better: 'lower' },
            { quantile: 'p99', value: 250, better: 'lower' },
          ]),
        ],
        detail: { millis },
      };
    } finally {
      client.close();
      await fleet.stop();
    }
  },
};
