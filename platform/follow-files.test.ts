import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { eventually } from '#tools/local/eventually.ts';
import { followFiles } from './follow-files.ts';

let dir: string;
let end: () => void;
const seen: string[] = [];

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weir-follow-'));
  await writeFile(join(dir, 'first'), 'first');
  await symlink('first', join(dir, 'file'));
  seen.length = 0;
  end = followFiles({
    files: [join(dir, 'file')],
    intervalMs: 20,
    load: () => readFile(join(dir, 'file'), 'utf8'),
    taken: (text) => seen.push(text),
    wrong: (error) => seen.push((error as { code: string }).code),
  });
});

afterEach(async () => {
  end();
  await rm(dir, { recursive: true });
});

async function point(to: string): Promise<void> {
  await unlink(join(dir, 'file')).catch(() => undefined);
  await symlink(to, join(dir, 'file'));
}

const comes = (what: string) => eventually(() => seen.at(-1) === what, { timeoutMs: 5000, intervalMs: 5, what });

test('a link that points elsewhere is a change, one that points nowhere is told, and one that is mended is taken', async () => {
  await writeFile(join(dir, 'second'), 'the second');
  await point('second');
  await comes('the second');
  await point('nowhere');
  await comes('ENOENT');
  await point('first');
  await comes('first');
});

test('nothing is told after the end', async () => {
  await point('nowhere');
  await comes('ENOENT');
  end();
  const before = seen.length;
  const other = followFiles({
    files: [join(dir, 'file')],
    intervalMs: 20,
    load: () => readFile(join(dir, 'file'), 'utf8'),
    taken: (text) => seen.push(`other ${text}`),
    wrong: () => undefined,
  });
  await point('first');
  await comes('other first');
  other();
  assert.equal(seen.length, before + 1);
});
