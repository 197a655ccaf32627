/**
 * Runs every check and every test, and ends with one summary.
 *
 * usage: node tools/test/run.ts [unit|integration|cluster|e2e] [words of file names ...]
 * Without words: lint, types, generated code, then unit, integration, cluster and end-to-end tests.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { glob, readFile } from 'node:fs/promises';
import { join, delimiter, relative } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { locateBinaries, setupFile } from '#tools/local/binaries.ts';
import { endLeftovers, projectRoot } from '#tools/local/leftovers.ts';

interface Totals {
  passed: number;
  failed: number;
  skipped: string[];
  failures: string[];
}

/** One folder of tests, and how many of its files run at once. */
interface Group {
  name: 'unit' | 'integration' | 'cluster' | 'e2e';
  files: string[];
  concurrency: number;
  /** Longest time for one file, milliseconds. Tests have shorter ones of their own. */
  timeoutMs: number;
  /** Longest time for all, milliseconds: then what still runs is ended and fails. */
  budgetMs: number;
}

async function findFiles(): Promise<Group[]> {
  const all: string[] = [];
  const exclude = (name: string) => ['node_modules', '.weir', '.git', 'generated'].includes(name);
  for await (const file of glob('**/*.test.ts', { cwd: projectRoot, exclude })) all.push(file);
  all.sort();
  const under = (folder: string) => all.filter((file) => file.startsWith(`test/${folder}/`));
  return [
    {
      name: 'unit',
      files: all.filter((file) => !/^test\/(integration|cluster|e2e|bench)\//.test(file)),
      concurrency: 2,
      timeoutMs: 180_000,
      budgetMs: 600_000,
    },
    { name: 'integration', files: under('integration'), concurrency: 2, timeoutMs: 420_000, budgetMs: 1_200_000 },
    // A cluster is a machine's load by itself.
    { name: 'cluster', files: under('cluster'), concurrency: 1, timeoutMs: 600_000, budgetMs: 2_400_000 },
    // Media and browsers want the machine for themselves.
    { name: 'e2e', files: under('e2e'), concurrency: 1, timeoutMs: 600_000, budgetMs: 2_400_000 },
  ];
}

/** Runs one check as a process and counts it as a test. */
async function check(name: string, command: string, args: string[], totals: Totals): Promise<void> {
  const began = Date.now();
  const code = await new Promise<number>((resolve) => {
    const child = spawn(command, args, { cwd: projectRoot, stdio: 'inherit' });
    child.once('error', () => resolve(-1));
    child.once('close', (status) => resolve(status ?? -1));
  });
  console.log(`${code === 0 ? '✔' : '✖'} ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
  if (code === 0) totals.passed += 1;
  else {
    totals.failed += 1;
    totals.failures.push(`${name}: ${command} ${args.join(' ')}`);
  }
}

async function runGroup(group: Group, totals: Totals): Promise<void> {
  if (group.files.length === 0) return;
  console.log(`\n${group.name}: ${group.files.length} files`);
  const stream = run({
    files: group.files.map((file) => join(projectRoot, file)),
    cwd: projectRoot,
    concurrency: group.concurrency,
    timeout: group.timeoutMs,
    // A file whose tests are done is done, whatever it has left open. Not for unit tests, which leave nothing open and
    // tell of hundreds of tests in one go: what was not written yet when a file is made to exit is lost.
    execArgv: group.name === 'unit' ? [] : ['--test-force-exit'],
    signal: AbortSignal.timeout(group.budgetMs),
  });
  // A suite or a file is no test of its own, unless it failed without one of its tests failing.
  const isLeaf = (data: { details: { type?: string }; name: string; file?: string }) =>
    data.details.type !== 'suite' && !(data.file !== undefined && data.name === data.file);
  stream.on('test:pass', (data) => {
    if (!isLeaf(data)) return;
    if (data.skip !== undefined && data.skip !== false) {
      totals.skipped.push(`${data.name}${typeof data.skip === 'string' ? ` (${data.skip})` : ''}`);
    } else totals.passed += 1;
  });
  stream.on('test:fail', (data) => {
    const error = data.details.error as Error & { failureType?: string };
    if (error.failureType === 'subtestsFailed') return;
    totals.failed += 1;
    totals.failures.push(`${data.file === undefined ? '' : `${relative(projectRoot, data.file)}: `}${data.name}`);
  });
  await new Promise<void>((resolve, reject) => {
    const output = stream.compose(spec);
    output.on('data', (chunk: Buffer | string) => process.stdout.write(chunk));
    output.once('end', resolve);
    output.once('error', reject);
  });
}

async function main(words: string[]): Promise<number> {
  const left = await endLeftovers();
  if (left.length > 0) console.log(`ended leftovers of an earlier run: ${left.join(', ')}`);
  process.env['PATH'] = `${join(projectRoot, 'node_modules/.bin')}${delimiter}${process.env['PATH'] ?? ''}`;
  process.env['MEDIASOUP_WORKER_BIN'] = locateBinaries()['mediasoup-worker'];
  const { chromium } = JSON.parse(await readFile(setupFile, 'utf8')) as { chromium?: string };
  if (chromium !== undefined) process.env['WEIR_CHROMIUM'] = chromium;
  const totals: Totals = { passed: 0, failed: 0, skipped: [], failures: [] };
  const began = Date.now();
  if (words.length === 0) {
    await check('eslint', 'eslint', ['.'], totals);
    await check('prettier', 'prettier', ['--check', '--log-level', 'warn', '.'], totals);
    await check('types', 'tsc', ['--noEmit'], totals);
    for (const page of ['tools/demo/page', 'test/e2e/page', 'tools/bench/page']) {
      await check(`types of ${page}`, 'tsc', ['--noEmit', '-p', page], totals);
    }
    await check('generated code is fresh', process.execPath, ['tools/codegen/generate.ts', '--check'], totals);
  }
  const groups = await findFiles();
  const names = words.filter((word) => groups.some((group) => group.name === word));
  const parts = words.filter((word) => !names.includes(word));
  for (const group of groups) {
    if (names.length > 0 && !names.includes(group.name)) continue;
    const files = group.files.filter((file) => parts.length === 0 || parts.some((part) => file.includes(part)));
    await runGroup({ ...group, files }, totals);
  }
  console.log('');
  for (const name of totals.skipped) console.log(`skipped: ${name}`);
  for (const name of totals.failures) console.log(`failed: ${name}`);
  const skipped = totals.skipped.length > 0 ? `, ${totals.skipped.length} skipped` : '';
  console.log(
    `${totals.passed} passed, ${totals.failed} failed${skipped} (${((Date.now() - began) / 1000).toFixed(0)} s)`,
  );
  return totals.failed === 0 && totals.passed > 0 ? 0 : 1;
}

if (!existsSync(setupFile)) {
  console.error('The set-up has not run in this checkout; run `make test`.');
  process.exitCode = 1;
} else {
  process.exitCode = await main(process.argv.slice(2));
}
