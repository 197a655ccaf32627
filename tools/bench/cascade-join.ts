import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '#platform/errors.ts';
import { createToken, eventually, type Fleet, type FleetNode } from '#test/fleet/mod.ts';
import { BenchBrowser, type BenchWindow } from './bench-browser.ts';
import { distribution, type Benchmark, type BenchContext, type Figure, type Target } from './figures.ts';
import { SignalConnection } from './load/signal-connection.ts';
import { SimulatedClient } from './load/simulated-client.ts';
import type { JoinTimes } from './page/api.ts';
import { benchNamespace, startBenchFleet, type BenchClient } from './rooms.ts';

const ROOM = 'bench';
/** Before each join, milliseconds: a browser that publishes drops requests for key frames that follow one another. */
const PAUSE_MS = 1000;
/** With more joins that fail, the benchmark does. */
const MOST_FAILURES = 5;
const targets: Target[] = [{ quantile: 'p50', value: 600, better: 'lower' }];

/** Somebody who is in the room on the other node while others join there. */
interface Resident {
  close: () => void;
}

/** How far the room is on the second node when somebody joins there. */
interface Situation {
  words: string;
  /** Whether the second node is one of the room's. */
  spans: boolean;
  /** Whether the publisher's track crosses the link. */
  crosses: boolean;
  enter: (url: string, token: string) => Promise<Resident | undefined>;
}

const alone: Situation = {
  words: 'that is not one of the room yet',
  spans: false,
  crosses: false,
  enter: () => Promise.resolve(undefined),
};

const situations: readonly Situation[] = [
  alone,
  {
    words: 'to which the track does not come yet',
    spans: true,
    crosses: false,
    enter: (url, token) => SignalConnection.open({ url, token, autoSubscribe: false }),
  },
  {
    words: 'to which the track comes already',
    spans: true,
    crosses: true,
    enter: (url, token) =>
      SimulatedClient.join({
        ...{ url, token, shows: 'high' },
        ...{ onSent: () => undefined, onReceived: () => undefined, onFirstPacket: () => undefined },
      }),
  },
];

class CascadeJoin {
  readonly #fleet: Fleet;
  readonly #client: BenchClient;
  readonly #joiner: BenchWindow;
  /** Joins that are in no figure, in words. */
  readonly failures: string[] = [];
  #joins = 0;

  constructor(fleet: Fleet, client: BenchClient, joiner: BenchWindow) {
    this.#fleet = fleet;
    this.#client = client;
    this.#joiner = joiner;
  }

  token(identity: string): Promise<string> {
    const { apiKey, apiSecret } = this.#fleet;
    return createToken({ apiKey, apiSecret, room: ROOM, identity });
  }

  /** Joins on the node again and again, each time into the same situation. */
  async measure(node: FleetNode, situation: Situation, warmUp: number, joins: number): Promise<JoinTimes[]> {
    // Who joins while the node leaves the room is sent through a new join.
    await this.#reach(node, alone);
    const resident = await situation.enter(node.url, await this.token('resident'));
    try {
      const times: JoinTimes[] = [];
      for (let index = 0; index < warmUp + joins; index += 1) {
        await this.#reach(node, situation);
        await delay(PAUSE_MS);
        this.#joins += 1;
        const found = await this.#join(node, situation);
        if (found && index >= warmUp) times.push(found);
      }
      return times;
    } finally {
      resident?.close();
    }
  }

  /** One join; undefined, and noted, when it failed or media came from another node. */
  async #join(node: FleetNode, { words }: Situation): Promise<JoinTimes | undefined> {
    const token = await this.token(`joiner-${this.#joins}`);
    try {
      const found = await this.#joiner.measureJoin(node.url, token);
      if (found.node === node.name) return found;
      this.failures.push(`A join on a node ${words} went to ${found.node}.`);
    } catch (error) {
      const [first = ''] = messageOf(error).split('\n');
      this.failures.push(`A join on a node ${words} failed: ${first}.`);
    }
    if (this.failures.length > MOST_FAILURES) throw new Error(this.failures.join(' '));
    return undefined;
  }

  async #reach(node: FleetNode, { spans, crosses, words }: Situation): Promise<void> {
    await eventually(
      async () => {
        const nodes = await this.#roomNodes();
        return nodes.includes(node.name) === spans && (await tracksIn(node)) > 0 === crosses;
      },
      { timeoutMs: 30_000, intervalMs: 100, what: `node ${node.name} to be one ${words}` },
    );
  }

  async #roomNodes(): Promise<string[]> {
    const room = await this.#client.rooms.get(ROOM, benchNamespace);
    return room?.status?.placement?.map((placed) => placed.node) ?? [];
  }
}

/** Tracks that cross links to a node, as it says itself. */
async function tracksIn(node: FleetNode): Promise<number> {
  const text = await (await fetch(`http://${node.http}/metrics`)).text();
  const line = text.split('\n').find((each) => each.startsWith('sfu_link_tracks') && each.includes('direction="in"'));
  return Number(line?.split(' ').at(-1) ?? 0);
}

async function run({ quick, progress }: BenchContext) {
  const [warmUp, joins] = quick ? [1, 3] : [3, 25];
  progress('starting a fleet of one operator and two nodes in two regions, and Chromium');
  const { fleet, client } = await startBenchFleet({
    nodes: [
      { name: 'sfu-1', region: 'eu-west' },
      { name: 'sfu-2', region: 'us-east' },
    ],
    // A node leaves the room soon after the last one who was there.
    operatorEnv: { WEIR_IDLE_NODE_SECONDS: '1' },
  });
  let browser: BenchBrowser | undefined;
  try {
    browser = await BenchBrowser.launch();
    const publisher = await browser.window();
    // One window for all joins: the SDK is loaded and warm, as it is in an application that shows a lobby first.
    const bench = new CascadeJoin(fleet, client, await browser.window());
    await publisher.publish(fleet.node('sfu-1').url, await bench.token('publisher'));
    const figures: Figure[] = [];
    const detail: Record<string, JoinTimes[]> = {};
    for (const situation of situations) {
      const { words } = situation;
      progress(`${joins} joins on a node ${words}`);
      const times = await bench.measure(fleet.node('sfu-2'), situation, warmUp, joins);
      const of = (step: 'connected' | 'subscribed' | 'firstFrame') => times.map((time) => time[step]);
      figures.push(
        distribution(`connect() to first decoded frame, on a node ${words}`, 'ms', of('firstFrame'), targets),
        distribution(`connect() answered, on a node ${words}`, 'ms', of('connected')),
      );
      detail[words] = times;
    }
    return { figures, notes: bench.failures, detail };
  } finally {
    client.close();
    await browser?.close();
    await fleet.stop();
  }
}

/** What a person waits for whose call is on another node: from connect() to the first frame that crossed a link. */
export const benchmark: Benchmark = { run };
