import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** Decades from 10 ns to 10 s, as client-go's queue histograms have them. */
const DECADES = Array.from({ length: 10 }, (_, n) => 1e-8 * 10 ** n);
const RECONCILE_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const RESULTS = ['success', 'error', 'requeue', 'requeue_after'] as const;

/** What a queue tells at the moment of a scrape, in seconds. */
export interface QueueGauges {
  name: string;
  depth: number;
  unfinishedSeconds: number;
  longestSeconds: number;
}

/** What a reflector tells at the moment of a scrape. */
export interface ReflectorGauges {
  name: string;
  items: number;
  stalenessSeconds: number;
}

/** Metrics of the runtime. */
export type RuntimeMetrics = ReturnType<typeof createRuntimeMetrics>;

/**
 * Registers the runtime's metrics under the names of controller-runtime and client-go, so that dashboards and alerts
 * made for those work. Call it once a registry; every label value known beforehand starts at 0.
 */
export function createRuntimeMetrics(registry: Registry) {
  const registers = [registry];
  const queues = new Set<() => QueueGauges>();
  const reflectors = new Set<() => ReflectorGauges>();
  const queueLabels = ['name', 'controller'] as const;

  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[]) =>
    new Counter({ name, help, labelNames, registers });
  const histogram = <L extends string>(name: string, help: string, labelNames: readonly L[], buckets: number[]) =>
    new Histogram({ name, help, labelNames, buckets, registers });
  const queueGauge = (name: string, help: string, read: (gauges: QueueGauges) => number) =>
    new Gauge({
      name,
      help,
      labelNames: queueLabels,
      registers,
      collect() {
        for (const source of queues) {
          const gauges = source();
          this.set({ name: gauges.name, controller: gauges.name }, read(gauges));
        }
      },
    });
  const reflectorGauge = (name: string, help: string, read: (gauges: ReflectorGauges) => number) =>
    new Gauge({
      name,
      help,
      labelNames: ['name'],
      registers,
      collect() {
        for (const source of reflectors) {
          const gauges = source();
          this.set({ name: gauges.name }, read(gauges));
        }
      },
    });

  queueGauge('workqueue_depth', 'Keys that wait in the queue', (gauges) => gauges.depth);
  queueGauge(
    'workqueue_unfinished_work_seconds',
    'Seconds of work under way and not yet counted by work_duration, over all keys',
    (gauges) => gauges.unfinishedSeconds,
  );
  queueGauge(
    'workqueue_longest_running_processor_seconds',
    'Seconds that the longest running key has been worked on',
    (gauges) => gauges.longestSeconds,
  );
  reflectorGauge('reflector_items', 'Objects in the store', (gauges) => gauges.items);
  reflectorGauge(
    'reflector_staleness_seconds',
    'Seconds since the last event, bookmark, list or start of a watch',
    (gauges) => gauges.stalenessSeconds,
  );

  const metrics = {
    queueAdds: counter('workqueue_adds_total', 'Keys added to the queue', queueLabels),
    queueRetries: counter('workqueue_retries_total', 'Keys added again after a failure', queueLabels),
    queueSeconds: histogram(
      'workqueue_queue_duration_seconds',
      'Seconds a key waits in the queue',
      queueLabels,
      DECADES,
    ),
    workSeconds: histogram('workqueue_work_duration_seconds', 'Seconds of work on a key', queueLabels, DECADES),
    reconcileTotal: counter('controller_runtime_reconcile_total', 'Reconciliations by result', [
      'controller',
      'result',
    ]),
    reconcileErrors: counter('controller_runtime_reconcile_errors_total', 'Reconciliations that failed', [
      'controller',
    ]),
    terminalErrors: counter(
      'controller_runtime_terminal_reconcile_errors_total',
      'Reconciliations that failed and are not tried again',
      ['controller'],
    ),
    reconcileSeconds: histogram(
      'controller_runtime_reconcile_time_seconds',
      'Seconds of one reconciliation',
      ['controller'],
      RECONCILE_SECONDS,
    ),
    maxConcurrent: new Gauge({
      name: 'controller_runtime_max_concurrent_reconciles',
      help: 'Workers of a controller',
      labelNames: ['controller'],
      registers,
    }),
    activeWorkers: new Gauge({
      name: 'controller_runtime_active_workers',
      help: 'Workers that reconcile now',
      labelNames: ['controller'],
      registers,
    }),
    restRequests: counter('rest_client_requests_total', 'Calls to the Kubernetes API', ['code', 'method', 'host']),
    leader: new Gauge({
      name: 'leader_election_master_status',
      help: '1 while this process leads, 0 while another does',
      labelNames: ['name'],
      registers,
    }),
    leaderSlowPath: counter('leader_election_slowpath_total', 'Renewals of the lease that had to read it first', [
      'name',
    ]),
    lists: counter('reflector_lists_total', 'Full lists, the first and those after a gap', ['name']),
    watches: counter('reflector_watches_total', 'Watches started', ['name']),
    watchFailures: counter('reflector_watch_failures_total', 'Watches that did not end well', ['name', 'reason']),

    /** Starts a queue's series at 0 and reads its gauges at every scrape. Returns how to end that. */
    trackQueue(name: string, source: () => QueueGauges): () => void {
      const labels = { name, controller: name };
      metrics.queueAdds.inc(labels, 0);
      metrics.queueRetries.inc(labels, 0);
      metrics.queueSeconds.zero(labels);
      metrics.workSeconds.zero(labels);
      queues.add(source);
      return () => void queues.delete(source);
    },

    /** Starts a controller's series at 0. */
    initController(controller: string, workers: number): void {
      for (const result of RESULTS) metrics.reconcileTotal.inc({ controller, result }, 0);
      metrics.reconcileErrors.inc({ controller }, 0);
      metrics.terminalErrors.inc({ controller }, 0);
      metrics.reconcileSeconds.zero({ controller });
      metrics.activeWorkers.set({ controller }, 0);
      metrics.maxConcurrent.set({ controller }, workers);
    },

    /** Starts a reflector's series at 0 and reads its gauges at every scrape. Returns how to end that. */
    trackReflector(name: string, source: () => ReflectorGauges): () => void {
      metrics.lists.inc({ name }, 0);
      metrics.watches.inc({ name }, 0);
      for (const reason of ['expired', 'stalled', 'error']) metrics.watchFailures.inc({ name, reason }, 0);
      reflectors.add(source);
      return () => void reflectors.delete(source);
    },
  };
  return metrics;
}
