/**
 * Nothing that this checkout's tools start outlives them. Every starter (demo, test file, benchmark) keeps a file in
 * `.weir/run` that names the processes, temporary directories and control groups it owns. They are ended
 * - on its exit, by an exit handler;
 * - when it is killed, by a watchdog: a shell that waits for the end of a pipe only the starter holds;
 * - should the watchdog die as well, by the next starter.
 * A process is known by its id and its start time, so that a reused id is never signalled.
 */
import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve, sep } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** Root of the checkout. */
export const projectRoot = resolve(import.meta.dirname, '../..');
/** Directory of everything that the tools write into the checkout. */
export const stateDirectory = join(projectRoot, '.weir');
const runDirectory = join(stateDirectory, 'run');

interface ProcessId {
  pid: number;
  /** Start time in clock ticks since boot; 0 where /proc does not tell. */
  started: number;
}

interface OwnerRecord {
  owner: ProcessId;
  processes: (ProcessId & { name: string })[];
  directories: string[];
}

let own: { file: string; record: OwnerRecord } | undefined;

/** Start time of a process in clock ticks since boot, or undefined when there is no such process. */
export function startTimeOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command's name stands in brackets and may hold anything; what follows the last one is fields 3 and up.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : Number(fields[19]);
  } catch {
    return undefined;
  }
}

function isAlive(id: ProcessId): boolean {
  return startTimeOf(id.pid) === id.started;
}

/** Signals a process group; a group that is gone is no error. */
export function signalGroup(pid: number, signal: NodeJS.Signals): void {
  if (pid <= 1) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // Gone already.
  }
}

function save(): void {
  if (!own) return;
  const temporary = `${own.file}.tmp`;
  writeFileSync(temporary, JSON.stringify(own.record));
  renameSync(temporary, own.file);
}

function ownRecord(): OwnerRecord {
  if (own) return own.record;
  mkdirSync(runDirectory, { recursive: true });
  const owner = { pid: process.pid, started: startTimeOf(process.pid) ?? 0 };
  own = {
    file: join(runDirectory, `${owner.pid}-${owner.started}.json`),
    record: { owner, processes: [], directories: [] },
  };
  save();
  const { file, record } = own;
  process.once('exit', () => {
    for (const child of record.processes) if (isAlive(child)) signalGroup(child.pid, 'SIGKILL');
    // What is still in use for a moment is left to the watchdog.
    if (record.directories.map(removeTemporary).every(Boolean)) rmSync(file, { force: true });
  });
  // The shell's standard input closes when this process dies, whatever kills it.
  const script = 'cat >/dev/null 2>&1; [ -e "$2" ] || exit 0; exec "$0" "$1"';
  const watchdog = spawn(
    '/bin/sh',
    ['-c', script, process.execPath, join(import.meta.dirname, 'end-leftovers.ts'), file],
    { detached: true, stdio: ['pipe', 'ignore', 'ignore'], cwd: projectRoot },
  );
  watchdog.unref();
  watchdog.on('error', () => undefined);
  const pipe = watchdog.stdin as (typeof watchdog.stdin & { unref?: () => void }) | null;
  pipe?.on('error', () => undefined);
  pipe?.unref?.();
  return record;
}

/** Remembers a process group that must not outlive this process. */
export function recordProcess(name: string, pid: number): void {
  ownRecord().processes.push({ name, pid, started: startTimeOf(pid) ?? 0 });
  save();
}

/** Forgets a process that has ended. */
export function forgetProcess(pid: number): void {
  if (!own) return;
  own.record.processes = own.record.processes.filter((entry) => entry.pid !== pid);
  save();
}

/** Remembers a temporary directory (below the system's own) or a control group to be removed with this process. */
export function recordDirectory(directory: string): void {
  ownRecord().directories.push(directory);
  save();
}

/** Removes a directory that was recorded, and forgets it. Returns false while it is still in use. */
export function removeRecorded(directory: string): boolean {
  if (!removeTemporary(directory)) return false;
  if (!own) return true;
  own.record.directories = own.record.directories.filter((entry) => entry !== directory);
  save();
  return true;
}

/** Whether the directory is gone afterwards. A directory that is not the tools' own is left alone. */
function removeTemporary(directory: string): boolean {
  const path = resolve(directory);
  try {
    if (path.startsWith('/sys/fs/cgroup/') && basename(path).startsWith('weir-')) removeControlGroup(path);
    else if (path.startsWith(join(tmpdir(), 'weir-')) || path.startsWith(stateDirectory + sep))
      rmSync(path, { recursive: true, force: true, maxRetries: 3 });
    else return true;
  } catch {
    // Something below is in use.
  }
  return !existsSync(path);
}

/** A control group's files go with it, and cannot be removed by themselves. */
function removeControlGroup(path: string): void {
  if (!existsSync(path)) return;
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeControlGroup(join(path, entry.name));
  rmdirSync(path);
}

/**
 * Ends what starters that are dead themselves have left behind.
 *
 * @returns names of the processes that were ended.
 */
export async function endLeftovers(): Promise<string[]> {
  const ended: string[] = [];
  let files: string[];
  try {
    files = readdirSync(runDirectory).filter((name) => name.endsWith('.json'));
  } catch {
    return ended;
  }
  for (const name of files) {
    const file = join(runDirectory, name);
    let record: OwnerRecord;
    try {
      record = JSON.parse(readFileSync(file, 'utf8')) as OwnerRecord;
    } catch {
      continue;
    }
    if (isAlive(record.owner)) continue;
    const left = record.processes.filter(isAlive);
    for (const entry of left) signalGroup(entry.pid, 'SIGTERM');
    for (let waited = 0; waited < 3000 && left.some(isAlive); waited += 50) await delay(50);
    for (const entry of left) if (isAlive(entry)) signalGroup(entry.pid, 'SIGKILL');
    ended.push(...left.map((entry) => entry.name));
    let used = record.directories;
    for (let waited = 0; waited < 3000; waited += 100) {
      used = used.filter((directory) => !removeTemporary(directory));
      if (used.length === 0) break;
      await delay(100);
    }
    // Otherwise the next starter tries again.
    if (used.length === 0) rmSync(file, { force: true });
  }
  return ended;
}
