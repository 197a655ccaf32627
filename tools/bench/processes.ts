import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { median } from './figures.ts';

/** Resident memory of a process, MiB: its pages in memory, shared libraries included. */
export function residentMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kilobytes = Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? Number.NaN);
  return kilobytes / 1024;
}

/** Processes that a process started itself. */
export function childrenOf(pid: number): number[] {
  const children: number[] = [];
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const text = readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').trim();
    if (text !== '') children.push(...text.split(' ').map(Number));
  }
  return children;
}

/**
 * Resident memory once a process has come to rest: the median of the readings of the last `seconds`. Node gives memory
 * back late, so this is what an operator of the fleet sees, not what is in use.
 */
export async function settledMiB(pids: readonly number[], seconds: number): Promise<number> {
  const readings: number[] = [];
  for (let reading = 0; reading < seconds * 2; reading += 1) {
    await delay(500);
    readings.push(pids.reduce((sum, pid) => sum + residentMiB(pid), 0));
  }
  return median(readings);
}

/** Clock ticks a second in /proc: 100 on every Linux that Node runs on. */
const TICKS = 100;

/** Processor time that a process has used so far, seconds; of its threads, not of its children. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The command's name stands in brackets and may hold anything; what follows the last one is fields 3 and up.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}
