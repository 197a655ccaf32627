import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { Chosen, Refusal } from '#core/placement/mod.ts';
import type { NetworkFigures } from './room/figures.ts';

/** What a placement decision may come to. */
const outcomes = ['placed', 'moved', 'dropped', 'extended', 'shrunk', 'refused'];

/** Figures of the operator's own domain. Labels are bounded: never a room or a node's name. */
export function createOperatorMetrics(
  registry: Registry,
  read: {
    rooms: () => { ready: number; notReady: number };
    nodes: () => { ready: number; notReady: number };
    network: () => NetworkFigures;
  },
) {
  const registers = [registry];
  const decisions = new Counter({
    name: 'weir_placement_decisions_total',
    help: 'Placement decisions by outcome.',
    labelNames: ['outcome'],
    registers,
  });
  const seconds = new Histogram({
    name: 'weir_placement_duration_seconds',
    help: 'Time of one placement decision.',
    buckets: [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1],
    registers,
  });
  const gauge = (name: string, help: string, get: () => { ready: number; notReady: number }) =>
    new Gauge({
      name,
      help,
      labelNames: ['ready'],
      registers,
      collect() {
        const { ready, notReady } = get();
        this.set({ ready: 'true' }, ready);
        this.set({ ready: 'false' }, notReady);
      },
    });
  gauge('weir_rooms', 'Rooms by whether they are Ready.', read.rooms);
  gauge('weir_nodes', 'SFU nodes by whether they are heard.', read.nodes);
  trackNetwork(registry, read.network);
  for (const outcome of outcomes) decisions.inc({ outcome }, 0);
  const failovers = new Histogram({
    name: 'weir_failover_duration_seconds',
    help: 'Time from the last word of a lost node, or the decision to leave a draining one, until its rooms were served again.',
    labelNames: ['cause'],
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 30, 60],
    registers,
  });
  for (const cause of ['lost', 'drained']) failovers.zero({ cause });
  const drains = new Histogram({
    name: 'weir_drain_duration_seconds',
    help: 'Time that a draining node takes to let its last room go.',
    buckets: [0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 300, 600],
    registers,
  });
  return {
    /** Nodes that drained. */
    drains,
    /** Rooms that had to leave nodes, by FailoverCause. */
    failovers,
    /** Runs and times one decision. */
    timePlacement(decide: () => Chosen | Refusal): Chosen | Refusal {
      const end = seconds.startTimer();
      const result = decide();
      end();
      const outcome = 'refused' in result ? 'refused' : result.reason.toLowerCase();
      decisions.inc({ outcome });
      return result;
    },
  };
}

/** Nodes and links of rooms, counted when metrics are read. */
function trackNetwork(registry: Registry, read: () => NetworkFigures): void {
  const registers = [registry];
  new Gauge({
    name: 'weir_room_nodes',
    help: 'Placed Rooms by how many nodes they have.',
    labelNames: ['nodes'],
    registers,
    collect() {
      for (const [nodes, count] of Object.entries(read().nodes)) this.set({ nodes }, count);
    },
  });
  new Gauge({
    name: 'weir_links',
    help: 'Cascade links by state.',
    labelNames: ['state'],
    registers,
    collect() {
      for (const [state, count] of Object.entries(read().links)) this.set({ state }, count);
    },
  });
  new Gauge({
    name: 'weir_link_rtt_seconds',
    help: 'Longest round trip time of a link between two regions.',
    labelNames: ['from_region', 'to_region'],
    registers,
    collect() {
      this.reset();
      for (const { from, to, seconds } of read().rtts) this.set({ from_region: from, to_region: to }, seconds);
    },
  });
}

export type OperatorMetrics = ReturnType<typeof createOperatorMetrics>;

/** Figures of what the operator does for autoscaling. */
export function createAutoscalingMetrics(registry: Registry) {
  const registers = [registry];
  const metrics = {
    metricsApiRequests: new Counter({
      name: 'weir_metrics_api_requests_total',
      help: 'Requests to the custom metrics API by HTTP status.',
      labelNames: ['code'],
      registers,
    }),
    scalerCalls: new Counter({
      name: 'weir_scaler_calls_total',
      help: "KEDA's calls to the external scaler by method and result: ok, or the code of the error.",
      labelNames: ['method', 'result'],
      registers,
    }),
    deletionCosts: new Counter({
      name: 'weir_pod_deletion_cost_writes_total',
      help: 'Writes of pod-deletion-cost by result.',
      labelNames: ['result'],
      registers,
    }),
  };
  for (const result of ['written', 'gone', 'failed']) metrics.deletionCosts.inc({ result }, 0);
  return metrics;
}

export type AutoscalingMetrics = ReturnType<typeof createAutoscalingMetrics>;
