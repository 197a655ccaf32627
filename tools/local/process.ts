import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { WeirError } from '#platform/errors.ts';
import { forgetProcess, recordProcess, signalGroup } from '#tools/local/leftovers.ts';

/** What to run, and how to know that it is up. */
export interface ProcessOptions {
  /** Name in messages and in the log file's name. */
  name: string;
  command: string;
  args?: readonly string[];
  /** Added to this process's own environment; `undefined` removes a variable. */
  env?: Readonly<Record<string, string | undefined>>;
  cwd?: string;
  /** Receives stdout and stderr; appended to. */
  logFile: string;
  /** Prefix of `ip netns exec NAME` kind: the command runs behind these words. */
  wrapper?: readonly string[];
  /** Asked every 20 ms until it says true. Errors count as "not yet". Default: ready at once. */
  ready?: () => Promise<boolean> | boolean;
  /** How long to wait for `ready`, milliseconds. Default 60000. */
  readyTimeoutMs?: number;
  /** Also copies stdout and stderr to this process's own. */
  echo?: boolean;
}

/** How a process ended. */
export interface ProcessExit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/**
 * A process that this one started, in a process group of its own, with its output in a file. It ends with this
 * process, however that ends: by `stop`, by an exit handler, or by the watchdog of `leftovers.ts`.
 */
export class LocalProcess {
  readonly name: string;
  readonly logFile: string;
  /** Resolves when the process has ended, by itself or not. */
  readonly exited: Promise<ProcessExit>;
  readonly #child: ChildProcess;
  #exit: ProcessExit | undefined;

  private constructor(options: ProcessOptions, child: ChildProcess) {
    this.name = options.name;
    this.logFile = options.logFile;
    this.#child = child;
    this.exited = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        this.#exit = { code, signal };
        if (child.pid !== undefined) forgetProcess(child.pid);
        resolve(this.#exit);
      });
      child.once('error', () => {
        this.#exit ??= { code: 127, signal: null };
        resolve(this.#exit);
      });
    });
  }

  /**
   * Starts the process and waits until it is ready.
   *
   * @throws WeirError ProcessFailed when it cannot start or ends before it is ready, ProcessNotReady after
   * `readyTimeoutMs`; both carry the end of the log.
   */
  static async start(options: ProcessOptions): Promise<LocalProcess> {
    mkdirSync(dirname(options.logFile), { recursive: true });
    const log = openSync(options.logFile, 'a');
    const words = [...(options.wrapper ?? []), options.command, ...(options.args ?? [])];
    const env: NodeJS.ProcessEnv = { ...process.env, ...options.env };
    // A test runner's child must not believe that it is one of the runner's own.
    delete env['NODE_TEST_CONTEXT'];
    const child = spawn(words[0] ?? '', words.slice(1), {
      cwd: options.cwd,
      env,
      detached: true,
      stdio: ['ignore', options.echo ? 'inherit' : log, options.echo ? 'inherit' : log],
    });
    closeSync(log);
    const started = new LocalProcess(options, child);
    if (child.pid !== undefined) recordProcess(options.name, child.pid);
    child.unref();
    const deadline = Date.now() + (options.readyTimeoutMs ?? 60_000);
    try {
      for (;;) {
        if (started.#exit) throw await started.#failure();
        if (!options.ready) break;
        if (await Promise.resolve(options.ready()).catch(() => false)) break;
        if (Date.now() > deadline) {
          throw new WeirError(
            'ProcessNotReady',
            `${options.name} did not become ready in ${options.readyTimeoutMs ?? 60_000} ms; its log ends with:\n${await started.logTail()}`,
            { where: options.logFile },
          );
        }
        await delay(20);
      }
    } catch (error) {
      await started.stop();
      throw error;
    }
    return started;
  }

  /** Process id. It is also the id of its process group. */
  get pid(): number {
    return this.#child.pid ?? -1;
  }

  get running(): boolean {
    return this.#exit === undefined;
  }

  /** Sends a signal to the whole process group (children of the process included). */
  signal(signal: NodeJS.Signals): void {
    if (this.running) signalGroup(this.pid, signal);
  }

  /**
   * Sends SIGTERM to the process, as a kubelet does (its children are its own to end), after `graceMs` SIGKILL to the
   * group, and waits for the end. Idempotent.
   */
  async stop(graceMs = 5000): Promise<ProcessExit> {
    if (this.#exit) return this.#exit;
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.signal('SIGKILL'), graceMs);
    try {
      const exit = await this.#waitForExit();
      // What the process itself left running in its group (media workers) goes too.
      signalGroup(this.pid, 'SIGKILL');
      return exit;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the process group as a crash of its machine would: SIGKILL, at once. */
  async kill(): Promise<ProcessExit> {
    this.signal('SIGKILL');
    return await this.#waitForExit();
  }

  /** The last lines of the log. */
  async logTail(lines = 20): Promise<string> {
    const text = await readFile(this.logFile, 'utf8').catch(() => '');
    return text.trimEnd().split('\n').slice(-lines).join('\n');
  }

  async #waitForExit(): Promise<ProcessExit> {
    // The child is unref'd; keep the event loop alive while somebody waits for its end.
    const alive = setInterval(() => undefined, 1000);
    try {
      return await this.exited;
    } finally {
      clearInterval(alive);
    }
  }

  async #failure(): Promise<WeirError> {
    const how = this.#exit?.signal ? `by ${this.#exit.signal}` : `with code ${this.#exit?.code ?? 'unknown'}`;
    return new WeirError('ProcessFailed', `${this.name} ended ${how}; its log ends with:\n${await this.logTail()}`, {
      where: this.logFile,
    });
  }
}
