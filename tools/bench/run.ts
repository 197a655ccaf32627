/**
 * Runs benchmarks one after the other and prints one table; writes `.weir/bench.json`.
 *
 * usage: node tools/bench/run.ts [--quick] [--write-docs] [names of benchmarks ...]
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { format, resolveConfig } from 'prettier';
import { messageOf } from '#platform/errors.ts';
import { locateBinaries } from '#tools/local/binaries.ts';
import { endLeftovers, projectRoot, stateDirectory } from '#tools/local/leftovers.ts';
import type { Benchmark, BenchResult } from './figures.ts';
import { describeMachine, machineWords } from './machine.ts';
import { tableOf, withFigures, type BenchReport } from './report.ts';

/** In the order in which they run: what wants the quietest machine first. */
const benchmarks: Record<string, () => Promise<{ benchmark: Benchmark }>> = {
  placement: () => import('./placement.ts'),
  'room-ready': () => import('./room-ready.ts'),
  'room-burst': () => import('./room-burst.ts'),
  join: () => import('./join.ts'),
  memory: () => import('./memory.ts'),
};

const jsonFile = join(stateDirectory, 'bench.json');
const docsFile = join(projectRoot, 'docs/benchmarks.md');

/** Runs one benchmark within its time. */
async function runBounded(benchmark: Benchmark, quick: boolean): Promise<BenchResult> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    const late = () => reject(new Error(`not done after ${benchmark.timeoutMs / 1000} s`));
    timer = setTimeout(late, benchmark.timeoutMs);
  });
  const progress = (step: string) => console.log(`${benchmark.name}: ${step}`);
  try {
    return await Promise.race([benchmark.run({ quick, progress }), timeout]);
  } finally {
    clearTimeout(timer);
  }
}

async function writeDocs(report: BenchReport): Promise<void> {
  const text = withFigures(await readFile(docsFile, 'utf8'), report);
  const options = await resolveConfig(docsFile);
  await writeFile(docsFile, await format(text, { ...options, parser: 'markdown' }));
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { quick: { type: 'boolean', default: false }, 'write-docs': { type: 'boolean', default: false } },
  });
  const names = positionals.length > 0 ? positionals : Object.keys(benchmarks);
  const unknown = names.filter((name) => !(name in benchmarks));
  if (unknown.length > 0) {
    console.error(`no benchmark "${unknown.join('", "')}"; there are: ${Object.keys(benchmarks).join(', ')}`);
    return 2;
  }
  const left = await endLeftovers();
  if (left.length > 0) console.log(`ended leftovers of an earlier run: ${left.join(', ')}`);
  process.env['MEDIASOUP_WORKER_BIN'] ??= locateBinaries()['mediasoup-worker'];
  const machine = await describeMachine();
  console.log(machineWords(machine));
  if (machine.loadAtStart > 0.5) {
    console.log(
      `the machine is busy (load average ${machine.loadAtStart.toFixed(1)}): figures will be worse than they are`,
    );
  }
  const report: BenchReport = {
    date: new Date().toISOString(),
    quick: values.quick,
    machine,
    results: {},
    failures: {},
  };
  for (const name of names) {
    const began = performance.now();
    try {
      const { benchmark } = (await benchmarks[name]?.()) ?? {};
      if (!benchmark) continue;
      const result = await runBounded(benchmark, values.quick);
      report.results[name] = { ...result, seconds: Math.round((performance.now() - began) / 1000) };
    } catch (error) {
      report.failures[name] = messageOf(error);
      console.error(`${name} failed: ${messageOf(error)}`);
    }
  }
  console.log(`\n${tableOf(report)}\n`);
  if (values.quick) console.log('A quick run: it shows that everything runs, its figures mean nothing.');
  await mkdir(stateDirectory, { recursive: true });
  await writeFile(jsonFile, `${JSON.stringify(report, null, 2)}\n`);
  console.log(`written: ${jsonFile}`);
  const failed = Object.keys(report.failures).length;
  if (values['write-docs']) {
    // Figures of a part or of a smoke run would stand for a whole one.
    if (values.quick || positionals.length > 0 || failed > 0) console.error('docs not written: that takes a whole run');
    else await writeDocs(report);
  }
  return failed === 0 ? 0 : 1;
}

// What a benchmark that overran still holds open must not keep the run alive; the exit ends its processes.
process.exit(await main());
