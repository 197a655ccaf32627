import type { Benchmark } from './figures.ts';

/** A benchmark by name: how to load it, and the longest time that it may take, seconds. */
export interface BenchmarkEntry {
  load: () => Promise<Benchmark>;
  timeoutSeconds: number;
}

/** Every benchmark, in the order in which they run. */
export const benchmarks: Record<string, BenchmarkEntry> = {
  placement: { load: async () => (await import('./placement.ts')).benchmark, timeoutSeconds: 120 },
  simulator: { load: async () => (await import('./simulator.ts')).benchmark, timeoutSeconds: 300 },
  'room-ready': { load: async () => (await import('./room-ready.ts')).benchmark, timeoutSeconds: 180 },
  'room-burst': { load: async () => (await import('./room-burst.ts')).benchmark, timeoutSeconds: 600 },
  join: { load: async () => (await import('./join.ts')).benchmark, timeoutSeconds: 300 },
  'cascade-join': { load: async () => (await import('./cascade-join.ts')).benchmark, timeoutSeconds: 480 },
  'link-forms': { load: async () => (await import('./link-forms.ts')).benchmark, timeoutSeconds: 300 },
  'large-rooms': { load: async () => (await import('./large-rooms.ts')).benchmark, timeoutSeconds: 480 },
  cluster: { load: async () => (await import('./cluster.ts')).benchmark, timeoutSeconds: 1500 },
  memory: { load: async () => (await import('./memory.ts')).benchmark, timeoutSeconds: 420 },
};
