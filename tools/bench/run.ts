/**
 * Runs benchmarks one after the other and prints one table; writes `.weir/bench.json`.
 *
 * usage: node tools/bench/run.ts [--quick] [--write-docs] [names of benchmarks ...]
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { format, resolveConfig } from 'prettier';
import { locateBinaries } from '#tools/local/binaries.ts';
import { endLeftovers, projectRoot, stateDirectory } from '#tools/local/leftovers.ts';
import { benchmarks } from './benchmarks.ts';
import { describeMachine, machineWords } from './machine.ts';
import type { OneMessage } from './one.ts';
import { tableOf, withFigures, type BenchReport } from './report.ts';

const jsonFile = join(stateDirectory, 'bench.json');
const docsFile = join(projectRoot, 'docs/benchmarks.md');

/**
 * Runs one benchmark in a process of its own and within its time: it finds a fresh heap, and when it overruns, what it
 * started ends with it.
 */
async function runOne(name: string, quick: boolean): Promise<OneMessage> {
  const seconds = benchmarks[name]?.timeoutSeconds ?? 60;
  const child = fork(join(import.meta.dirname, 'one.ts'), [name, quick ? 'quick' : 'whole']);
  const exited = once(child, 'exit');
  const late = setTimeout(() => child.kill('SIGTERM'), seconds * 1000);
  try {
    let message: OneMessage | undefined;
    child.on('message', (sent) => (message = sent as OneMessage));
    await exited;
    return message ?? { error: child.killed ? `not done after ${seconds} s` : 'its process ended without a result' };
  } finally {
    clearTimeout(late);
    await endLeftovers();
  }
}

async function writeDocs(report: BenchReport): Promise<void> {
  let text = await readFile(docsFile, 'utf8');
  for (const name of Object.keys(report.results)) text = withFigures(text, name, report);
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
    const message = await runOne(name, values.quick);
    const seconds = Math.round((performance.now() - began) / 1000);
    if ('result' in message) report.results[name] = { ...message.result, seconds };
    else {
      report.failures[name] = message.error;
      console.error(`${name} failed: ${message.error}`);
    }
  }
  console.log(`\n${tableOf(report)}\n`);
  if (values.quick) console.log('A quick run: it shows that everything runs, its figures mean nothing.');
  await mkdir(stateDirectory, { recursive: true });
  await writeFile(jsonFile, `${JSON.stringify(report, null, 2)}\n`);
  console.log(`written: ${jsonFile}`);
  const failed = Object.keys(report.failures).length;
  if (values['write-docs']) {
    if (values.quick) console.error('docs not written: the figures of a quick run mean nothing');
    else await writeDocs(report);
  }
  return failed === 0 ? 0 : 1;
}

process.exitCode = await main();
