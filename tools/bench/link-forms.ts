import { setTimeout as delay } from 'node:timers/promises';
import { createWorker } from 'mediasoup';
import type { Router, Worker } from 'mediasoup/types';
import { routerCodecs } from '#sfu-node/media/codecs.ts';
import { eventually } from '#tools/local/eventually.ts';
import { distribution, single, type Benchmark, type BenchContext, type Figure } from './figures.ts';
import { openLink, type CarriedStream, type LinkForm, type MeasuredLink } from './links.ts';
import { PacketReceiver } from './packet-receiver.ts';
import { CAMERA_KBPS, SyntheticCamera } from './synthetic-camera.ts';
import { SyntheticMicrophone } from './synthetic-microphone.ts';

const FORMS: readonly LinkForm[] = ['selective', 'pipe'];
const [LOW, HIGH] = [0, CAMERA_KBPS.length - 1];
/** Cameras, and how often each of them crosses, when a link is loaded. */
const CAMERAS = 8;
const CROSSINGS = 3;

/** How long and how often is measured. */
interface Extent {
  windowMs: number;
  repetitions: number;
  latencyMs: number;
}

/** Two routers on workers of their own: a hop is between processes. */
class Hop {
  readonly workers: { near: Worker; far: Worker };
  readonly near: Router;
  readonly far: Router;
  readonly #sources: { close: () => void }[] = [];

  private constructor(workers: { near: Worker; far: Worker }, near: Router, far: Router) {
    this.workers = workers;
    this.near = near;
    this.far = far;
  }

  static async start(): Promise<Hop> {
    const workers = { near: await createWorker({ logLevel: 'error' }), far: await createWorker({ logLevel: 'error' }) };
    const mediaCodecs = routerCodecs(['opus', 'vp8']);
    const router = (worker: Worker) => worker.createRouter({ mediaCodecs });
    return new Hop(workers, await router(workers.near), await router(workers.far));
  }

  async camera(): Promise<SyntheticCamera> {
    const camera = await SyntheticCamera.start(await this.near.createDirectTransport());
    this.#sources.push(camera);
    return camera;
  }

  async microphone(): Promise<SyntheticMicrophone> {
    const microphone = await SyntheticMicrophone.start(await this.near.createDirectTransport(), -30);
    this.#sources.push(microphone);
    return microphone;
  }

  close(): void {
    for (const source of this.#sources) source.close();
    this.workers.near.close();
    this.workers.far.close();
  }
}

async function withHop<T>(measure: (hop: Hop) => Promise<T>): Promise<T> {
  const hop = await Hop.start();
  try {
    return await measure(hop);
  } finally {
    hop.close();
  }
}

/** Lets layers of a stream cross and waits until packets of them have come. */
async function want(stream: CarriedStream, layers: readonly number[]): Promise<void> {
  const { producer } = stream;
  stream.want(layers);
  const comes = (layer: number) => producer.score.some(({ encodingIdx, score }) => encodingIdx === layer && score > 0);
  const what = `packets of the layers ${layers.join(', ')} behind the link`;
  await eventually(() => layers.every(comes), { intervalMs: 10, what });
}

async function receivedBytes(link: MeasuredLink): Promise<number> {
  const [stats] = await link.far.getStats();
  return stats?.bytesReceived ?? 0;
}

/** Bytes that crossed in each of some windows, over the payload bytes of what was wanted. */
async function byteRatios(link: MeasuredLink, wantedOctets: () => number, extent: Extent): Promise<number[]> {
  const ratios: number[] = [];
  for (let repetition = 0; repetition < extent.repetitions; repetition += 1) {
    const before = { bytes: await receivedBytes(link), octets: wantedOctets() };
    await delay(extent.windowMs);
    ratios.push(((await receivedBytes(link)) - before.bytes) / (wantedOctets() - before.octets));
  }
  return ratios;
}

function bytesOfForm(form: LinkForm, extent: Extent): Promise<Figure[]> {
  return withHop(async (hop) => {
    const camera = await hop.camera();
    const link = await openLink(form, hop.near, hop.far);
    const stream = await link.carry(camera.producer);
    const target = form === 'selective' ? ({ value: 1.1, better: 'lower' } as const) : undefined;
    const figures: Figure[] = [];
    for (const [words, layers] of [
      ['low layer wanted', [LOW]],
      ['low and high layer wanted', [LOW, HIGH]],
    ] as const) {
      await want(stream, layers);
      const octets = () => layers.reduce((sum, layer) => sum + camera.octets(layer), 0);
      const ratios = await byteRatios(link, octets, extent);
      figures.push(single(`cascade link (${form}), ${words}: bytes over payload`, '', ratios, target));
    }
    return figures;
  });
}

function bytesOfAudio(extent: Extent): Promise<Figure> {
  return withHop(async (hop) => {
    const microphone = await hop.microphone();
    const link = await openLink('selective', hop.near, hop.far);
    await want(await link.carry(microphone.producer), [0]);
    const ratios = await byteRatios(link, () => microphone.octets, extent);
    return single('cascade link (selective), audio of 32 kbps: bytes over payload', '', ratios);
  });
}

/** Processor time of a worker so far, milliseconds. */
async function usedMs(worker: Worker): Promise<number> {
  const usage = await worker.getResourceUsage();
  return usage.ru_utime + usage.ru_stime;
}

interface Load {
  /** Cores that each worker keeps busy. */
  near: number;
  far: number;
  /** Megabits a second that arrive over the link; 0 without one. */
  mbps: number;
}

async function loadOf(hop: Hop, link: MeasuredLink | undefined, windowMs: number): Promise<Load> {
  const read = async () => ({
    at: performance.now(),
    near: await usedMs(hop.workers.near),
    far: await usedMs(hop.workers.far),
    bytes: link ? await receivedBytes(link) : 0,
  });
  const before = await read();
  await delay(windowMs);
  const after = await read();
  const ms = after.at - before.at;
  return {
    near: (after.near - before.near) / ms,
    far: (after.far - before.far) / ms,
    mbps: ((after.bytes - before.bytes) * 8) / 1000 / ms,
  };
}

/** Cores that each end of a loaded link needs, over what the same workers need without it. */
function cpuOfForm(form: LinkForm, extent: Extent): Promise<{ figures: Figure[]; mbps: number }> {
  return withHop(async (hop) => {
    const cameras: SyntheticCamera[] = [];
    for (let index = 0; index < CAMERAS; index += 1) {
      cameras.push(await hop.camera());
      // Frames of cameras do not come all at once.
      await delay(5);
    }
    await delay(1000);
    const idle = await loadOf(hop, undefined, extent.windowMs);
    const link = await openLink(form, hop.near, hop.far);
    for (const camera of cameras) {
      for (let crossing = 0; crossing < CROSSINGS; crossing += 1) {
        await want(await link.carry(camera.producer), CAMERA_KBPS.keys().toArray());
      }
    }
    await delay(1000);
    const loads: Load[] = [];
    for (let repetition = 0; repetition < extent.repetitions; repetition += 1) {
      loads.push(await loadOf(hop, link, extent.windowMs));
    }
    const per100Mbps = (end: 'near' | 'far') => loads.map((load) => ((load[end] - idle[end]) / load.mbps) * 100);
    return {
      figures: [
        single(`cascade link (${form}), near worker per 100 Mbps`, 'cores', per100Mbps('near')),
        single(`cascade link (${form}), far worker per 100 Mbps`, 'cores', per100Mbps('far')),
      ],
      mbps: loads.reduce((sum, { mbps }) => sum + mbps, 0) / loads.length,
    };
  });
}

/** Milliseconds that each packet came later behind the link than in front of it. */
function latencyOfForm(form: LinkForm, extent: Extent): Promise<number[]> {
  return withHop(async (hop) => {
    const camera = await hop.camera();
    const link = await openLink(form, hop.near, hop.far);
    const stream = await link.carry(camera.producer);
    await want(stream, [HIGH]);
    const receivers = { near: await PacketReceiver.start(), far: await PacketReceiver.start() };
    try {
      await receivers.near.subscribe(hop.near, camera.producer.id, HIGH);
      await receivers.far.subscribe(hop.far, stream.producer.id, HIGH);
      await delay(1000);
      await Promise.all([receivers.near.take(), receivers.far.take()]);
      await delay(extent.latencyMs);
      const [near, far] = await Promise.all([receivers.near.take(), receivers.far.take()]);
      return [...far].flatMap(([sentAt, behind]) => {
        const before = near.get(sentAt);
        return before === undefined ? [] : [Number(behind - before) / 1e6];
      });
    } finally {
      await Promise.all([receivers.near.close(), receivers.far.close()]);
    }
  });
}

async function run({ quick, progress }: BenchContext) {
  const extent: Extent = quick
    ? { windowMs: 500, repetitions: 1, latencyMs: 500 }
    : { windowMs: 4000, repetitions: 3, latencyMs: 20_000 };
  const figures: Figure[] = [];
  const notes: string[] = [];
  for (const form of FORMS) {
    progress(`latency of a hop, ${form}`);
    const targets =
      form === 'selective'
        ? ([
            { quantile: 'p50', value: 0.3, better: 'lower' },
            { quantile: 'p99', value: 1, better: 'lower' },
          ] as const)
        : [];
    const samples = await latencyOfForm(form, extent);
    figures.push(distribution(`cascade link (${form}), latency added by a hop`, 'ms', samples, [...targets]));
  }
  for (const form of FORMS) {
    progress(`bytes on a link, ${form}`);
    figures.push(...(await bytesOfForm(form, extent)));
  }
  figures.push(await bytesOfAudio(extent));
  for (const form of FORMS) {
    progress(`CPU of a loaded link, ${form}`);
    const found = await cpuOfForm(form, extent);
    figures.push(...found.figures);
    notes.push(
      `CPU of a link (${form}) was measured at ${found.mbps.toFixed(0)} Mbps of ${CAMERAS * CROSSINGS} cameras.`,
    );
  }
  return { figures, notes };
}

/** A media link between routers of two workers, in the two forms that mediasoup allows. */
export const benchmark: Benchmark = { run };
