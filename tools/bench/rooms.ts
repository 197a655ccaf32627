import { rooms, type Room } from '#crds/room.ts';
import { sfunodes, type SfuNode } from '#crds/sfunode.ts';
import { loadKubeConfig, pathOf, ResourceClient } from '#operator/runtime/kube.ts';
import { transportOf, type KubeTransport } from '#operator/runtime/transport.ts';
import { eventually } from '#tools/local/eventually.ts';
import { Fleet, type FleetOptions } from '#tools/local/fleet.ts';

/** Everything that benchmarks make, they make here. */
export const benchNamespace = 'default';

/** A Room as a user would apply it. */
export function roomBody(name: string): Room {
  return {
    apiVersion: 'weir.dev/v1alpha1',
    kind: 'Room',
    metadata: { name, namespace: benchNamespace, labels: { 'app.kubernetes.io/part-of': 'weir-bench' } },
    spec: {},
  };
}

export function isReady(object: Room | SfuNode): boolean {
  return object.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
}

/** Calls `work` for 0..count-1, at most `concurrency` at once. */
export async function inParallel(
  count: number,
  concurrency: number,
  work: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const lane = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, count) }, lane));
}

/** A client of the benchmarks' own, over kept connections, as the operator's are. */
export class BenchClient {
  readonly rooms: ResourceClient<Room>;
  readonly nodes: ResourceClient<SfuNode>;
  readonly transport: KubeTransport;

  constructor(kubeconfig: string) {
    const kubeConfig = loadKubeConfig({ KUBECONFIG: kubeconfig });
    this.rooms = new ResourceClient<Room>({ ...rooms, kubeConfig });
    this.nodes = new ResourceClient<SfuNode>({ ...sfunodes, kubeConfig });
    this.transport = transportOf(kubeConfig);
  }

  /** Deletes every Room; waits until they are gone, which the operator's finalizer has a say in. */
  async deleteRooms(timeoutMs = 120_000): Promise<void> {
    await this.transport.request({ method: 'DELETE', path: pathOf(rooms, benchNamespace), timeoutMs });
    await eventually(async () => (await this.rooms.listPage(benchNamespace, { limit: 1 })).items.length === 0, {
      timeoutMs,
      intervalMs: 100,
      what: 'the end of all Rooms',
    });
  }

  /** Requests for Rooms that the API server has answered so far, by verb and subresource. */
  async requestCounts(): Promise<Record<string, number>> {
    const text = await this.#text('/metrics');
    const counts: Record<string, number> = {};
    for (const line of text.split('\n')) {
      if (!line.startsWith('apiserver_request_total{') || !line.includes('resource="rooms"')) continue;
      const label = (name: string) => new RegExp(`${name}="([^"]*)"`).exec(line)?.[1] ?? '';
      const subresource = label('subresource');
      const key = `${label('verb')} rooms${subresource === '' ? '' : `/${subresource}`} ${label('code')}`;
      counts[key] = (counts[key] ?? 0) + Number(line.slice(line.lastIndexOf(' ') + 1));
    }
    return counts;
  }

  async #text(path: string): Promise<string> {
    const answer = await this.transport.stream(path, AbortSignal.timeout(20_000));
    answer.setEncoding('utf8');
    let text = '';
    for await (const chunk of answer) text += String(chunk);
    return text;
  }

  close(): void {
    this.transport.close();
  }
}

/** Difference of two {@link BenchClient.requestCounts}, without what did not change. */
export function countsBetween(before: Record<string, number>, after: Record<string, number>): Record<string, number> {
  const changed = Object.entries(after).map(([key, count]) => [key, count - (before[key] ?? 0)] as const);
  return Object.fromEntries(changed.filter(([, count]) => count > 0));
}

/**
 * One watch on the Rooms, as any program that waits for Rooms would hold. Notes when each was first seen Ready, and
 * every version that it saw of the rooms it was told to follow.
 */
export class RoomWatch {
  /** performance.now() of the event, by room name. */
  readonly readyAt = new Map<string, number>();
  readonly #followed = new Map<string, Room[]>();
  readonly #abort = new AbortController();
  readonly #client: BenchClient;
  #resourceVersion: string;
  #waiting: { wanted: number; resolve: () => void } | undefined;
  #failed: Error | undefined;
  #reject: ((error: Error) => void) | undefined;

  private constructor(client: BenchClient, resourceVersion: string) {
    this.#client = client;
    this.#resourceVersion = resourceVersion;
  }

  static async open(client: BenchClient): Promise<RoomWatch> {
    const { resourceVersion } = await client.rooms.listPage(benchNamespace, { limit: 1 });
    const watch = new RoomWatch(client, resourceVersion);
    await watch.#connect();
    return watch;
  }

  /** Keeps every version of this room that the watch sees. */
  follow(name: string): void {
    this.#followed.set(name, []);
  }

  history(name: string): readonly Room[] {
    return this.#followed.get(name) ?? [];
  }

  /** Waits until as many Rooms have been seen Ready. */
  async waitForReady(count: number, timeoutMs: number): Promise<void> {
    if (this.#failed) throw this.#failed;
    let timer: NodeJS.Timeout | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        const late = () => reject(new Error(`${this.readyAt.size} of ${count} Rooms Ready after ${timeoutMs} ms`));
        timer = setTimeout(late, timeoutMs);
        this.#reject = reject;
        this.#waiting = { wanted: count, resolve };
        this.#check();
      });
    } finally {
      clearTimeout(timer);
      this.#waiting = undefined;
      this.#reject = undefined;
    }
  }

  close(): void {
    this.#abort.abort();
  }

  /** The API server may end a watch at any time, as when it falls behind; it goes on from where it was. */
  async #connect(): Promise<void> {
    const path = `${pathOf(rooms, benchNamespace)}?watch=1&resourceVersion=${this.#resourceVersion}`;
    const stream = await this.#client.transport.stream(path, this.#abort.signal);
    stream.setEncoding('utf8');
    let rest = '';
    stream.on('data', (chunk: string) => {
      const now = performance.now();
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#onEvent(line, now);
    });
    stream.on('error', (error: Error) => this.#fail(error));
    stream.on('end', () => {
      if (!this.#abort.signal.aborted) this.#connect().catch((error: Error) => this.#fail(error));
    });
  }

  #onEvent(line: string, now: number): void {
    if (line === '') return;
    const event = JSON.parse(line) as { type: string; object: Room };
    const name = event.object.metadata.name ?? '';
    if (event.type === 'ERROR') return this.#fail(new Error(`the watch failed: ${line.slice(0, 300)}`));
    this.#resourceVersion = event.object.metadata.resourceVersion ?? this.#resourceVersion;
    if (event.type === 'DELETED') return;
    this.#followed.get(name)?.push(event.object);
    if (!isReady(event.object) || this.readyAt.has(name)) return;
    this.readyAt.set(name, now);
    this.#check();
  }

  #check(): void {
    if (this.#waiting && this.readyAt.size >= this.#waiting.wanted) this.#waiting.resolve();
  }

  #fail(error: Error): void {
    if (this.#abort.signal.aborted) return;
    this.#failed = error;
    this.#reject?.(error);
  }
}

/** A fleet whose nodes take any number of rooms, ready to be given some. */
export async function startBenchFleet(options: FleetOptions): Promise<{ fleet: Fleet; client: BenchClient }> {
  const fleet = await Fleet.start({
    logLevel: 'warn',
    ...options,
    nodeEnv: { WEIR_CAPACITY_STREAMS: '1000000', WEIR_CAPACITY_MBPS: '1000000', ...options.nodeEnv },
  });
  return { fleet, client: new BenchClient(fleet.kubeconfigPath) };
}
