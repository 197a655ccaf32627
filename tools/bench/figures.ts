/** What benchmarks report, and how a figure is held against its target. Pure. */

/** Quantiles that a target may speak of; `value` is that of a figure with one value. */
export type Quantile = 'p50' | 'p95' | 'p99';

/** What a figure should reach. */
export interface Target {
  /** For a figure with one value: p50, the median of its repetitions. */
  quantile: Quantile;
  value: number;
  /** Which side of `value` is good. */
  better: 'lower' | 'higher';
}

/** One line of the report. */
export interface Figure {
  /** What was measured, in words. */
  name: string;
  unit: string;
  /** How many samples (or repetitions) stand behind it. */
  count: number;
  p50: number;
  /** Undefined for a figure of a few repetitions, whose tail says nothing. */
  p95?: number;
  p99?: number;
  min: number;
  max: number;
  targets: Target[];
}

/** What one benchmark found. */
export interface BenchResult {
  figures: Figure[];
  /** Sentences that a reader needs beside the figures. */
  notes?: string[];
  /** Everything else that was measured, for the JSON file. */
  detail?: Record<string, unknown>;
}

/** What a benchmark is given. */
export interface BenchContext {
  /** A smoke run: everything small, figures meaningless. */
  quick: boolean;
  /** Tells what is going on, a short phrase at a time. */
  progress: (step: string) => void;
}

/** One benchmark. It ends everything that it starts, also when it fails. */
export interface Benchmark {
  run(context: BenchContext): Promise<BenchResult>;
}

/**
 * The exact q-quantile (0..1) of samples: the smallest sample that at least q of all samples do not exceed (nearest
 * rank). With 25 samples the p99 is their largest.
 */
export function percentile(samples: readonly number[], q: number): number {
  if (samples.length === 0) throw new RangeError('a percentile needs samples');
  const sorted = samples.toSorted((a, b) => a - b);
  const rank = Math.max(1, Math.ceil(q * sorted.length));
  return sorted[Math.min(rank, sorted.length) - 1] ?? Number.NaN;
}

/** The middle sample, or the mean of the two in the middle. */
export function median(samples: readonly number[]): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  const upper = sorted[half] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[half - 1] ?? Number.NaN) + upper) / 2;
}

/** A figure with a distribution, such as latencies. */
export function distribution(name: string, unit: string, samples: readonly number[], targets: Target[] = []): Figure {
  return {
    name,
    unit,
    count: samples.length,
    p50: percentile(samples, 0.5),
    p95: percentile(samples, 0.95),
    p99: percentile(samples, 0.99),
    min: Math.min(...samples),
    max: Math.max(...samples),
    targets,
  };
}

/** A figure with one value: the median of a few repetitions. */
export function single(
  name: string,
  unit: string,
  repetitions: readonly number[],
  target?: Omit<Target, 'quantile'>,
): Figure {
  return {
    name,
    unit,
    count: repetitions.length,
    p50: median(repetitions),
    min: Math.min(...repetitions),
    max: Math.max(...repetitions),
    targets: target ? [{ quantile: 'p50', ...target }] : [],
  };
}

/** How the figure stands to its targets, in plain words. */
export function verdict(figure: Figure): string {
  if (figure.targets.length === 0) return 'no target';
  const missed = figure.targets.flatMap((target) => {
    const got = figure[target.quantile];
    if (got === undefined) return [`${target.quantile} not measured`];
    const met = target.better === 'lower' ? got <= target.value : got >= target.value;
    if (met) return [];
    const share = Math.round((got / target.value) * 100);
    const which = figure.p95 === undefined ? '' : `${target.quantile} is `;
    return [`${which}${share} % of the target`];
  });
  return missed.length === 0 ? 'met' : `missed: ${missed.join(', ')}`;
}

/** Targets in words: `p50 ≤ 50, p99 ≤ 250`. */
export function targetWords(figure: Figure): string {
  return figure.targets
    .map(({ quantile, value, better }) => {
      const sign = better === 'lower' ? '≤' : '≥';
      return `${figure.p95 === undefined ? '' : `${quantile} `}${sign} ${formatNumber(value)}`;
    })
    .join(', ');
}

/** Three significant digits and no exponent: 0.613, 42.3, 570, 101,234. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return '-';
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return value.toLocaleString('en-US', { minimumFractionDigits: 0, maximumFractionDigits: digits });
}
