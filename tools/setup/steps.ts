import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { WeirError } from '#platform/errors.ts';

/** Prints a line of the set-up. */
export function say(text: string): void {
  console.log(`setup: ${text}`);
}

/** Does one step and prints how long it took; steps under a second are not worth a line. */
export async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  const began = Date.now();
  const announce = setTimeout(() => say(`${what} ...`), 1000);
  // A long step says that it is alive.
  const alive = setInterval(() => say(`${what} ... ${Math.round((Date.now() - began) / 1000)} s`), 30_000);
  try {
    const result = await work();
    const seconds = (Date.now() - began) / 1000;
    if (seconds >= 1) say(`${what} done (${seconds.toFixed(0)} s)`);
    return result;
  } finally {
    clearTimeout(announce);
    clearInterval(alive);
  }
}

/** How a command ended and what it printed (stdout and stderr together). */
export interface Outcome {
  /** -1 when it could not be started or took too long. */
  code: number;
  output: string;
}

/** Runs a command to its end; never throws. */
export async function attempt(
  command: string,
  args: readonly string[],
  options: { env?: Record<string, string | undefined>; cwd?: string; timeoutMs?: number } = {},
): Promise<Outcome> {
  return await new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: options.env ? { ...process.env, ...options.env } : process.env,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: options.timeoutMs,
      killSignal: 'SIGKILL',
    });
    let output = '';
    const collect = (chunk: Buffer) => (output += chunk.toString('utf8'));
    child.stdout.on('data', collect);
    child.stderr.on('data', collect);
    child.once('error', (error) => resolve({ code: -1, output: error.message }));
    child.once('close', (code) => resolve({ code: code ?? -1, output }));
  });
}

/**
 * Runs a long command with its output in a file; lines of it that start with `step: ` are said aloud.
 *
 * @throws WeirError SetupFailed with the end of the log.
 */
export async function runLogged(
  command: string,
  args: readonly string[],
  options: { logFile: string; env?: Record<string, string | undefined>; cwd?: string },
): Promise<void> {
  await mkdir(dirname(options.logFile), { recursive: true });
  const log = createWriteStream(options.logFile);
  const began = Date.now();
  const code = await new Promise<number>((resolve) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        log.write(`${line}\n`);
        if (line.startsWith('step: ')) say(`  ${line.slice(6)} (at ${Math.round((Date.now() - began) / 1000)} s)`);
      });
    }
    child.once('error', () => resolve(-1));
    child.once('close', (status) => resolve(status ?? -1));
  });
  await new Promise((resolve) => log.end(resolve));
  if (code === 0) return;
  const tail = (await readFile(options.logFile, 'utf8')).trimEnd().split('\n').slice(-25).join('\n');
  throw new WeirError('SetupFailed', `${command} ended with code ${code}; its log ends with:\n${tail}`, {
    where: options.logFile,
  });
}
