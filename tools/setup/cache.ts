import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { startTimeOf } from '#tools/local/leftovers.ts';
import { say } from './steps.ts';

/** Directory of built binaries, outside every checkout: WEIR_CACHE, XDG_CACHE_HOME/weir or ~/.cache/weir. */
export function cacheDirectory(): string {
  const xdg = process.env['XDG_CACHE_HOME'];
  const given = process.env['WEIR_CACHE'];
  if (given !== undefined && given !== '') return given;
  return join(xdg !== undefined && xdg !== '' ? xdg : join(homedir(), '.cache'), 'weir');
}

/** Hash of files (directories: all files below, with their paths) and words. The name of what is built from them. */
export async function hashInputs(paths: readonly string[], words: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const path of paths) {
    if ((await stat(path)).isDirectory()) {
      const entries = await readdir(path, { recursive: true, withFileTypes: true });
      const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
      for (const file of files.sort())
        hash
          .update(file.slice(path.length))
          .update('\0')
          .update(await readFile(file));
    } else {
      hash.update(await readFile(path));
    }
    hash.update('\0');
  }
  for (const word of words) hash.update(word).update('\0');
  return hash.digest('hex');
}

/** Moves a finished file to its place at once, so that nobody ever sees half of it. */
export async function putInPlace(from: string, to: string): Promise<void> {
  await rename(from, to);
}

/** Runs `work` while no other process of this machine does the same (lock directory with the owner's id). */
export async function withLock<T>(directory: string, work: () => Promise<T>): Promise<T> {
  const lock = `${directory}.lock`;
  await mkdir(cacheDirectory(), { recursive: true });
  for (let said = false; ; said = true) {
    try {
      await mkdir(lock);
      break;
    } catch {
      const owner = await readFile(join(lock, 'owner'), 'utf8').catch(() => '');
      const [pid, started] = owner.split(' ').map(Number);
      const age = await stat(lock).then(
        (info) => Date.now() - info.mtimeMs,
        () => 0,
      );
      // Between its mkdir and its owner file a process has a moment; ten seconds are more than that.
      const dead = owner === '' ? age > 10_000 : startTimeOf(pid ?? 0) !== started;
      if (dead) {
        await rm(lock, { recursive: true, force: true });
        continue;
      }
      if (!said)
        say(`waiting for another set-up to finish the same build (process ${owner === '' ? 'starting' : pid})`);
      await delay(500);
    }
  }
  try {
    await writeFile(join(lock, 'owner'), `${process.pid} ${startTimeOf(process.pid) ?? 0}`);
    return await work();
  } finally {
    await rm(lock, { recursive: true, force: true });
  }
}
