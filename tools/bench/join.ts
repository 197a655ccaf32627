import { setTimeout as delay } from 'node:timers/promises';
import { createToken, type FleetNode } from '#test/fleet/mod.ts';
import { BenchBrowser } from './bench-browser.ts';
import { distribution, type Benchmark, type BenchContext } from './figures.ts';
import type { JoinTimes } from './page/api.ts';
import { startBenchFleet } from './rooms.ts';

/**
 * Pause between two joins, milliseconds. A browser that publishes answers one request for a key frame in 300 ms and
 * drops the others, so a join that follows another at once measures that instead; it has a line of its own.
 */
const PAUSE_MS = 1000;

async function run({ quick, progress }: BenchContext) {
  const joins = quick ? 3 : 30;
  const warmUp = quick ? 1 : 3;
  progress('starting a fleet of one operator and two nodes, and Chromium');
  const { fleet, client } = await startBenchFleet({
    nodes: [
      { name: 'sfu-1', region: 'eu-west' },
      { name: 'sfu-2', region: 'eu-west' },
    ],
  });
  let browser: BenchBrowser | undefined;
  try {
    browser = await BenchBrowser.launch();
    const tokenFor = (identity: string) =>
      createToken({ apiKey: fleet.apiKey, apiSecret: fleet.apiSecret, room: 'bench', identity });
    const publisher = await browser.window();
    const serving = fleet.node(await publisher.publish(fleet.nodes[0]?.url ?? '', await tokenFor('publisher')));
    const other = fleet.nodes.find((node) => node !== serving);
    // One window for all joins: the SDK is loaded and warm, as it is in an application that shows a lobby first.
    const joiner = await browser.window();
    let number = 0;
    const joinThrough = async (node: FleetNode, pauseMs: number): Promise<JoinTimes[]> => {
      const times: JoinTimes[] = [];
      for (let index = 0; index < warmUp + joins; index += 1) {
        number += 1;
        await delay(pauseMs);
        const found = await joiner.measureJoin(node.url, await tokenFor(`joiner-${number}`));
        if (index >= warmUp) times.push(found);
      }
      return times;
    };
    progress(`${joins} joins through the node that serves the room`);
    const direct = await joinThrough(serving, PAUSE_MS);
    progress(`${joins} joins through the other node`);
    const relayed = other ? await joinThrough(other, PAUSE_MS) : [];
    progress(`${joins} joins, each as soon as the one before has left`);
    const hurried = await joinThrough(serving, 0);
    const of = (times: JoinTimes[], step: 'connected' | 'subscribed' | 'firstFrame') => times.map((time) => time[step]);
    return {
      figures: [
        distribution('connect() to first decoded frame', 'ms', of(direct, 'firstFrame'), [
          { quantile: 'p50', value: 280, better: 'lower' },
          { quantile: 'p95', value: 400, better: 'lower' },
        ]),
        distribution('connect() answered', 'ms', of(direct, 'connected')),
        distribution('connect() to track subscribed', 'ms', of(direct, 'subscribed')),
        distribution('connect() to first decoded frame, through another node', 'ms', of(relayed, 'firstFrame')),
        distribution('connect() to first decoded frame, joins back to back', 'ms', of(hurried, 'firstFrame')),
      ],
      detail: { direct, relayed, hurried },
    };
  } finally {
    client.close();
    await browser?.close();
    await fleet.stop();
  }
}

/** What a person waits for: from connect() to the first frame of somebody who is in the room already. */
export const benchmark: Benchmark = { run };
