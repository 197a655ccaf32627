import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const matches = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map((match) => match[1] ?? '');

const sources = globSync('{core,operator,sfu-node,platform}/**/*.ts', { cwd: root }).filter(
  (path) => !/\.test\.ts$|\/generated\//.test(path),
);
const pages = ['README.md', ...globSync('docs/*.md', { cwd: root })];

/** Codes in the first argument of every `new WeirError(`: one, or two when a condition chooses. */
function thrownBy(paths: readonly string[]): Set<string> {
  const arguments_ = paths.flatMap((path) => matches(read(path), /new WeirError\(\s*([^,]+),/g));
  return new Set(arguments_.flatMap((argument) => matches(argument, /'([A-Z]\w+)'/g)));
}

/** Codes under which clients are counted: those named beside the counter, and errors in what a client sent. */
function violations(): Set<string> {
  const counters = ['sfu-node/signal/session.ts', 'sfu-node/signal/websocket-channel.ts'].map(read).join('\n');
  const named = matches(counters, /(?:iolation|violate|violations\.inc)\((?:\{ code: )?'([A-Z]\w+)'/g);
  const chosen = [...counters.matchAll(/\? '([A-Z]\w+)' : '([A-Z]\w+)'/g)].flatMap(([, one = '', other = '']) => [
    one,
    other,
  ]);
  const ofSdp = ['signal/session', 'media/publisher', 'media/subscriber', 'media/sdp'];
  return new Set([...named, ...chosen, ...thrownBy(ofSdp.map((name) => `sfu-node/${name}.ts`))]);
}

/** First cells of the rows of all tables of docs/errors.md whose first column has this heading. */
function listed(heading: string): string[] {
  const tables = read('docs/errors.md').split(/\n\s*\n/);
  const wanted = tables.filter((table) => new RegExp(`^\\| ${heading} +\\|`).test(table));
  return wanted.flatMap((table) => matches(table, /^\| `(\w+)`/gm));
}

function assertSame(documented: readonly string[], inCode: Set<string>): void {
  const missing = [...inCode].filter((code) => !documented.includes(code));
  assert.deepEqual(missing, [], 'are in the code and not in docs/errors.md');
  const stale = documented.filter((code) => !inCode.has(code));
  assert.deepEqual(stale, [], 'are in docs/errors.md and no longer in the code');
  const twice = documented.filter((code, index) => documented.indexOf(code) !== index);
  assert.deepEqual(twice, [], 'stand twice in docs/errors.md');
}

/** GitHub's anchors of a page's headings. */
function anchorsOf(text: string): string[] {
  const headings = matches(text.replaceAll(/^```[\s\S]*?^```/gm, ''), /^#+ (.+)$/gm);
  return headings.map((heading) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\w\s-]/g, '')
      .replaceAll(' ', '-'),
  );
}

test('every error code of the code is in docs/errors.md, and none that is gone', () => {
  const codes = thrownBy(sources);
  assert.ok(codes.size > 40, `only ${codes.size} codes were found: has the way of throwing changed?`);
  assertSame(listed('code'), codes);
});

test('every protocol violation is in docs/errors.md, and none that is gone', () => {
  const codes = violations();
  assert.ok(codes.size > 8, `only ${codes.size} codes were found: has the way of counting changed?`);
  assertSame(listed('violation'), codes);
});

test('every code that has an HTTP or gRPC status is one that exists, and stands in the table of statuses', () => {
  const codes = new Set([...thrownBy(sources), 'Internal']);
  for (const path of ['sfu-node/signal/refusal.ts', 'sfu-node/control/status.ts']) {
    const mapped = matches(read(path), /^ {2}([A-Z]\w+): (?:\d{3}|status\.)/gm);
    assert.ok(mapped.length > 5, `no codes were found in ${path}`);
    for (const code of mapped) assert.ok(codes.has(code), `${path} maps ${code}, which nothing throws`);
  }
  const rows = new Map(
    [...read('docs/errors.md').matchAll(/^\| (\d{3}) +\| (.+)\|$/gm)].map(([, status, cell]) => [status, cell ?? '']),
  );
  for (const [, code = '', status = ''] of read('sfu-node/signal/refusal.ts').matchAll(/^ {2}([A-Z]\w+): (\d+)/gm)) {
    if (status !== '503')
      assert.ok(rows.get(status)?.includes(`\`${code}\``), `${code} is not in the row of ${status}`);
  }
});

test('every relative link of the README and of docs leads to a file, and to a heading of it', () => {
  for (const page of pages) {
    const text = read(page);
    for (const link of matches(text, /\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(link)) continue;
      const [path = '', anchor] = link.split('#');
      const target = path === '' ? page : join(dirname(page), path);
      assert.ok(existsSync(join(root, target)), `${page} links to ${link}, which does not exist`);
      if (anchor === undefined || !target.endsWith('.md')) continue;
      assert.ok(anchorsOf(read(target)).includes(anchor), `${page} links to ${link}, a heading that does not exist`);
    }
  }
});

test('every setting of operator and node is in docs/operations.md, and none that is gone', () => {
  const settings = ['platform/config.ts', 'operator/config.ts', 'sfu-node/config.ts'].flatMap((path) =>
    matches(read(path), /^ {2}(WEIR_\w+):/gm),
  );
  assert.ok(settings.length >= 38, `only ${settings.length} settings were found`);
  const documented = new Set(matches(read('docs/operations.md'), /`(WEIR_\w+)`/g));
  for (const setting of settings) assert.ok(documented.has(setting), `docs/operations.md does not have ${setting}`);
  for (const name of documented) assert.ok(settings.includes(name), `docs/operations.md has ${name}, which is gone`);
});

test('every metric is in docs/operations.md, and none that is gone', () => {
  const files = ['sfu-node/metrics.ts', 'operator/metrics.ts', 'operator/runtime/metrics.ts'];
  const prefix = '(?:sfu|weir|workqueue|reflector|controller_runtime|rest_client|leader_election)';
  const metrics = files.flatMap((path) => matches(read(path), new RegExp(`'(${prefix}_[a-z_]+)'`, 'g')));
  assert.ok(metrics.length > 25, `only ${metrics.length} metrics were found`);
  const page = read('docs/operations.md');
  for (const metric of metrics) assert.ok(page.includes(`\`${metric}\``), `docs/operations.md does not have ${metric}`);
  const rows = matches(page, new RegExp(`^\\| \`(${prefix}_[a-z_]+)\``, 'gm'));
  for (const row of rows) assert.ok(metrics.includes(row), `docs/operations.md has ${row}, which is gone`);
});
