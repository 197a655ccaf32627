import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { Chosen, Refusal } from '#core/placement/mod.ts';

/** Figures of the operator's own domain. Labels are bounded: never a room or a node's name. */
export function createOperatorMetrics(
  registry: Registry,
  read: { rooms: () => { ready: number; notReady: number }; nodes: () => { ready: number; notReady: number } },
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
  for (const outcome of ['placed', 'refused']) decisions.inc({ outcome }, 0);
  return {
    /** Runs and times one decision. */
    timePlacement(decide: () => Chosen | Refusal): Chosen | Refusal {
      const end = seconds.startTimer();
      const result = decide();
      end();
      decisions.inc({ outcome: 'refused' in result ? 'refused' : 'placed' });
      return result;
    },
  };
}

export type OperatorMetrics = ReturnType<typeof createOperatorMetrics>;
