import { codeOf, messageOf } from './errors.ts';
import { createLogger, type Logger } from './log.ts';

/** After it was drained the process ends within this, whatever still waits; milliseconds. */
const shutdownMs = 5000;

/** One of Weir's programs. */
export interface Program<C> {
  name: string;
  /** @throws WeirError BadConfiguration */
  readConfig: (env: NodeJS.ProcessEnv) => C & { log: { level: string; format: 'json' | 'text' } };
  /** Fields of every log line. */
  fields?: (config: C) => Record<string, string>;
  /** Starts the program. */
  start: (config: C, log: Logger) => Promise<Running>;
}

/** How a program that runs is ended. */
export interface Running {
  /**
   * What is done first: handing on what others depend on. Bounded in time by the program itself; a second signal fires
   * `hurry`, and what is not done by then is left.
   */
  drain?: (hurry: AbortSignal) => Promise<void>;
  /** Ends it in order. */
  stop: () => Promise<void>;
}

/**
 * Runs a program as this process: reads its settings, starts it, and ends it in order on SIGTERM or SIGINT. What cannot
 * start says why in one line and exits with 1.
 */
export async function runProgram<C>({ name, readConfig, fields, start }: Program<C>): Promise<void> {
  let log: Logger | undefined;
  let running: Running;
  // Nothing is served yet. Without a listener the first process of a container would not even notice.
  const endAtOnce = () => process.exit(0);
  process.on('SIGTERM', endAtOnce).on('SIGINT', endAtOnce);
  try {
    const config = readConfig(process.env);
    log = createLogger({ name, ...config.log }).child(fields?.(config) ?? {});
    // One mishap must not end all calls; what is thrown outside of a promise may have broken anything, and does.
    process.on('unhandledRejection', (error) =>
      log?.error({ err: error }, 'a promise was rejected and nobody noticed'),
    );
    running = await start(config, log);
  } catch (error) {
    const words = `${codeOf(error)}: ${messageOf(error)}`;
    if (log) log.fatal(codeOf(error) === 'Internal' ? { err: error } : {}, `${name} cannot start: ${words}`);
    else process.stderr.write(`${name} cannot start: ${words}\n`);
    process.exit(1);
  }
  const hurry = new AbortController();
  let stopping = false;
  const end = async (signal: NodeJS.Signals) => {
    if (stopping) return hurry.abort();
    stopping = true;
    log.info({ signal }, 'shutting down');
    try {
      await running.drain?.(hurry.signal);
      setTimeout(() => process.exit(0), shutdownMs).unref();
      await running.stop();
      process.exit(0);
    } catch (error) {
      log.error({ err: error }, 'shutting down failed');
      process.exit(1);
    }
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.off(signal, endAtOnce).on(signal, () => void end(signal));
  }
}
