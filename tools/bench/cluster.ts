import { pino } from 'pino';
import { Registry } from 'prom-client';
import { podResource } from '#operator/autoscaling/pods.ts';
import { loadKubeConfig, type KubeObject } from '#operator/runtime/kube.ts';
import { createRuntimeMetrics } from '#operator/runtime/metrics.ts';
import { Reflector } from '#operator/runtime/reflector.ts';
import { systemClock as clock } from '#platform/clock.ts';
import { namespace, WeirCluster } from '#test/cluster/weir-cluster.ts';
import { RtcParticipant } from '#test/e2e/rtc-participant.ts';
import { eventually } from '#tools/local/eventually.ts';
import { MeasuredCall, meetMs } from './cluster-people.ts';
import { usageOf } from './cluster-usage.ts';
import { distribution, single, type Benchmark, type BenchContext, type Figure } from './figures.ts';

/** Pods that calls are moved between. */
const fewPods = 2;
const manyPods = 4;
/** One pod carries so many streams before another is wanted: nobody reaches it but the crowd. */
const targetStreams = 12;

/** Values of the release. All nodes are of one region, so that any may take a call. */
const values = {
  signal: { service: { type: 'NodePort' } },
  sfuNode: {
    region: 'eu-west',
    resources: { requests: { cpu: '50m', memory: '64Mi' } },
    autoscaling: {
      minReplicas: fewPods,
      maxReplicas: fewPods + 1,
      targetStreams,
      scaleDownStabilizationSeconds: 0,
      scaleDownPodsPerMinute: 10,
    },
  },
};

interface PodObject extends KubeObject {
  status?: { conditions?: { type: string; status: string }[] };
}

/** Milliseconds from a pod's making to its being Ready, of every pod of SFU nodes that a watch has seen made. */
class PodStarts {
  readonly milliseconds: number[] = [];
  readonly #reflector: Reflector<PodObject>;
  readonly #madeAt = new Map<string, number>();

  constructor(weir: WeirCluster) {
    this.#reflector = new Reflector<PodObject>({
      kubeConfig: loadKubeConfig({ KUBECONFIG: weir.cluster.kubeconfigPath }),
      ...podResource,
      namespace,
      labelSelector: 'app.kubernetes.io/component=sfu-node',
      clock,
      random: Math.random,
      log: pino({ level: 'silent' }),
      metrics: createRuntimeMetrics(new Registry()),
    });
    this.#reflector.onChange((_key, pod) => {
      const uid = pod?.metadata.uid;
      if (uid === undefined) return;
      const isReady = pod?.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True');
      const madeAt = this.#madeAt.get(uid);
      // Those that were there before were not seen to be made.
      if (madeAt === undefined) this.#madeAt.set(uid, this.#reflector.hasSynced ? performance.now() : Number.NaN);
      else if (isReady && !Number.isNaN(madeAt)) {
        this.milliseconds.push(performance.now() - madeAt);
        this.#madeAt.set(uid, Number.NaN);
      }
    });
    this.#reflector.start();
  }

  stop(): Promise<void> {
    return this.#reflector.stop();
  }
}

/** How soon the fleet grew, seconds. */
interface Growth {
  wanted: number;
  ready: number;
}

class ClusterBench {
  readonly #weir: WeirCluster;
  readonly #context: BenchContext;
  readonly #calls = new Set<MeasuredCall>();
  #url = '';
  #made = 0;

  constructor(weir: WeirCluster, context: BenchContext) {
    this.#weir = weir;
    this.#context = context;
  }

  /** Seconds from `helm install`, with the images on the nodes, until two people hear each other. */
  async install(): Promise<number> {
    this.#context.progress('helm install, and a first call');
    const start = performance.now();
    await this.#weir.install(values);
    this.#url = await this.#weir.signalUrl('us-1');
    const call = await this.#call(2);
    const seconds = (performance.now() - start) / 1000;
    await this.#end(call);
    return seconds;
  }

  async idle(): Promise<Figure[]> {
    const seconds = this.#context.quick ? 5 : 60;
    this.#context.progress(`nobody calls for ${seconds} s`);
    await this.#weir.settled('sfu-node', fewPods);
    await this.#noCalls();
    const [operator, node] = await Promise.all(
      ['operator', 'sfu-node'].map((container) => usageOf(this.#weir, container, seconds)),
    );
    const of = (usage: typeof operator, key: 'cores' | 'mebibytes') => (usage ?? []).map((each) => each[key]);
    return [
      single('operator, idle in a cluster', 'cores', of(operator, 'cores'), { value: 0.02, better: 'lower' }),
      single('operator, idle in a cluster', 'MiB', of(operator, 'mebibytes'), { value: 120, better: 'lower' }),
      single('sfu-node with worker, idle in a cluster', 'cores', of(node, 'cores')),
      single('sfu-node with worker, idle in a cluster', 'MiB', of(node, 'mebibytes')),
    ];
  }

  /** Seconds from the first join of a crowd until the autoscaler wants another pod for it, and until that takes rooms. */
  async growth(): Promise<Growth> {
    const [call, growth] = await Promise.all([this.#call(6), this.#watchGrowth()]);
    this.#context.progress(`the fleet grew in ${growth.ready.toFixed(1)} s`);
    await this.#end(call);
    await this.#weir.settled('sfu-node', fewPods, 240_000);
    return growth;
  }

  async #watchGrowth(): Promise<Growth> {
    const start = performance.now();
    const replicas = ['get', 'deployment', 'weir-sfu-node', '-o', 'jsonpath={.spec.replicas}'];
    const isWanted = async () => Number(await this.#weir.kubectl(...replicas)) > fewPods;
    await eventually(isWanted, { timeoutMs: 120_000, what: 'another pod to be wanted' });
    const wanted = (performance.now() - start) / 1000;
    await this.#weir.settled('sfu-node', fewPods + 1);
    return { wanted, ready: (performance.now() - start) / 1000 };
  }

  /** Longest silences of everybody in calls that moved while every pod was replaced. */
  async upgrade(): Promise<number[]> {
    const calls = await this.#callsOnEveryPod(fewPods);
    this.#context.progress('a rolling upgrade under calls');
    this.#made += 1;
    return await this.#gapsOf(calls, async () => {
      await this.#weir.install({ sfuNode: { podAnnotations: { round: String(this.#made) } } });
      await this.#weir.settled('sfu-node', fewPods);
    });
  }

  /** Longest silences of everybody in calls that moved as the autoscaler took pods away. */
  async scaleIn(): Promise<number[]> {
    const scaling = (minReplicas: number) => ({ sfuNode: { autoscaling: { minReplicas, maxReplicas: manyPods } } });
    await this.#weir.install(scaling(manyPods));
    await this.#weir.settled('sfu-node', manyPods);
    const calls = await this.#callsOnEveryPod(manyPods);
    this.#context.progress('scale-in under calls');
    return await this.#gapsOf(calls, async () => {
      await this.#weir.install(scaling(fewPods));
      await this.#weir.settled('sfu-node', fewPods, 240_000);
    });
  }

  /** Longest silences of everybody in the calls of a Kubernetes Node that is cut off without a word. */
  async cut(): Promise<number[]> {
    await this.#weir.install({
      nats: { replicas: 3 },
      // In by a pod that is well, as by a load balancer that looks: kube-proxy sends joins to a dead one for most of a minute.
      signal: { service: { externalTrafficPolicy: 'Local' } },
      sfuNode: { autoscaling: { minReplicas: fewPods, maxReplicas: fewPods } },
    });
    await this.#weir.settled('nats', 3);
    const [doomed, other] = await this.#weir.settled('sfu-node', fewPods);
    if (!doomed?.spec.nodeName || !other?.spec.nodeName || doomed.spec.nodeName === other.spec.nodeName) {
      throw new Error('both pods are on one Node');
    }
    this.#url = await this.#weir.signalUrl(other.spec.nodeName);
    const rooms = [this.#nextRoom(), this.#nextRoom()] as const;
    for (const room of rooms) await this.#weir.applyRoomOn(doomed.metadata.name, room);
    const calls = [await this.#browserCall(rooms[0]), await this.#call(2, rooms[1])];
    this.#context.progress('a Node is cut off under calls');
    const before = await this.#placements(calls);
    await Promise.all(calls.map((call) => call.restart()));
    const node = this.#weir.cluster.node(doomed.spec.nodeName);
    await this.#weir.cluster.cut(node);
    try {
      const isElsewhere = async () =>
        (await this.#placements(calls)).every((nodes, index) => nodes !== '' && nodes !== before[index]);
      await eventually(isElsewhere, { timeoutMs: meetMs, what: 'the rooms to leave the Node' });
      return (await Promise.all(calls.map((call) => call.gaps()))).flat();
    } finally {
      await this.#weir.cluster.heal(node);
      for (const call of calls) await this.#end(call);
      await eventually(() => this.#weir.cluster.isReady(node), { timeoutMs: 90_000, what: `${node.name} to be Ready` });
      await this.#weir.settled('sfu-node', fewPods);
      await this.#noCalls();
    }
  }

  async close(): Promise<void> {
    for (const call of this.#calls) await this.#end(call);
  }

  async #gapsOf(calls: readonly MeasuredCall[], move: () => Promise<void>): Promise<number[]> {
    const before = await this.#placements(calls);
    await Promise.all(calls.map((call) => call.restart()));
    await move();
    const after = await this.#placements(calls);
    const moved = calls.filter((_, index) => before[index] !== after[index]);
    const gaps = (await Promise.all(moved.map((call) => call.gaps()))).flat();
    for (const call of calls) await this.#end(call);
    await this.#noCalls();
    return gaps;
  }

  async #placements(calls: readonly MeasuredCall[]): Promise<string[]> {
    return await Promise.all(calls.map(async ({ room }) => (await this.#weir.servingNodes(room)).join()));
  }

  /** As many calls as there are pods, a call a pod: new rooms go to the idlest. The first is one of Chromium. */
  async #callsOnEveryPod(pods: number): Promise<MeasuredCall[]> {
    const calls = [await this.#browserCall()];
    while (calls.length < pods) calls.push(await this.#call(2));
    return calls;
  }

  async #call(people: number, room = this.#nextRoom()): Promise<MeasuredCall> {
    return this.#keep(await MeasuredCall.ofPrograms(this.#weir, this.#url, room, people));
  }

  async #browserCall(room = this.#nextRoom()): Promise<MeasuredCall> {
    return this.#keep(await MeasuredCall.ofBrowsers(this.#weir, this.#url, room));
  }

  #nextRoom(): string {
    this.#made += 1;
    return `bench-${this.#made}`;
  }

  #keep(call: MeasuredCall): MeasuredCall {
    this.#calls.add(call);
    return call;
  }

  async #end(call: MeasuredCall): Promise<void> {
    this.#calls.delete(call);
    await call.end();
  }

  /** Waits until the operator has let all Rooms go that joins have made. */
  async #noCalls(): Promise<void> {
    await this.#weir.kubectl('delete', 'rooms', '--all', '--wait=true');
  }
}

/** A release in a real cluster: how soon it serves, what it needs, and what people notice when pods come and go. */
export const benchmark: Benchmark = {
  async run(context) {
    const rounds = context.quick ? 1 : 3;
    context.progress('images, and a cluster of three nodes');
    const weir = await WeirCluster.start();
    const starts = new PodStarts(weir);
    const bench = new ClusterBench(weir, context);
    try {
      const install = await bench.install();
      const idle = await bench.idle();
      const growths = [];
      for (let round = 0; round < (context.quick ? 1 : 3); round += 1) growths.push(await bench.growth());
      const [upgrades, scaleIns]: [number[], number[]] = [[], []];
      for (let round = 0; round < rounds; round += 1) {
        upgrades.push(...(await bench.upgrade()));
        scaleIns.push(...(await bench.scaleIn()));
      }
      // Last, as it changes the release.
      const cuts: number[] = [];
      for (let round = 0; round < rounds; round += 1) cuts.push(...(await bench.cut()));
      const moved = [...upgrades, ...scaleIns, ...cuts];
      return {
        figures: [
          single('helm install to first call, images present', 's', [install], { value: 90, better: 'lower' }),
          distribution(
            'pod of an SFU node, made to Ready',
            's',
            starts.milliseconds.map((ms) => ms / 1000),
            [{ quantile: 'p50', value: 5, better: 'lower' }],
          ),
          single(
            'six people join until the HPA wants a pod for them',
            's',
            growths.map(({ wanted }) => wanted),
          ),
          single(
            'six people join until that pod is Ready',
            's',
            growths.map(({ ready }) => ready),
          ),
          distribution('longest silence of everybody in a call that moves, rolling upgrade', 'ms', upgrades),
          distribution('longest silence of everybody in a call that moves, scale-in', 'ms', scaleIns),
          distribution('longest silence of everybody in a call whose Node is cut off', 'ms', cuts),
          ...idle,
        ],
        notes: [
          `Of ${moved.length} people who were moved, ${moved.filter((ms) => ms >= meetMs).length} were not back within ${meetMs / 1000} s.`,
          `The cluster's own programs, the fleet, and all clients shared the machine: control plane, three kubelets with containerd, NATS, two operators, ${fewPods} to ${manyPods} SFU nodes, Chromium and rtc-node.`,
          'HPAs were looked at every 5 s; 15 s is usual.',
        ],
        detail: { upgrades, scaleIns, cuts, podStarts: starts.milliseconds, growths },
      };
    } finally {
      await bench.close();
      await starts.stop();
      await weir.stop();
      await RtcParticipant.end();
    }
  },
};
