/** Tells a process of the same pod, by SIGHUP, that its files have changed. For NATS, which does not look by itself. */
import { unwatchFile, watchFile } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { fields, readConfig } from '#platform/config.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import { runProgram } from '#platform/run.ts';

/** Files are looked at this often, milliseconds: a Secret's volume swaps symbolic links, which watchers miss. */
const intervalMs = 5000;

const shape = {
  WEIR_LOG_LEVEL: fields.logLevel(),
  WEIR_LOG_FORMAT: fields.logFormat(),
  WEIR_RELOAD_FILES: fields.text('the files to watch, separated by commas'),
  WEIR_RELOAD_PID_FILE: fields.text('the file in which the process has its id'),
};

function readReloadConfig(env: NodeJS.ProcessEnv) {
  const values = readConfig(shape, env);
  return {
    log: { level: values.WEIR_LOG_LEVEL, format: values.WEIR_LOG_FORMAT },
    files: values.WEIR_RELOAD_FILES.split(','),
    pidFile: values.WEIR_RELOAD_PID_FILE,
  };
}

async function signal(pidFile: string): Promise<number> {
  const pid = Number(await readFile(pidFile, 'utf8'));
  if (!Number.isInteger(pid) || pid < 2) {
    throw new WeirError('BadPidFile', `${pidFile} holds no process id: check WEIR_RELOAD_PID_FILE`, { where: pidFile });
  }
  process.kill(pid, 'SIGHUP');
  return pid;
}

await runProgram({
  name: 'reload',
  readConfig: readReloadConfig,
  start: ({ files, pidFile }, log) => {
    // Files of one Secret change together: one signal will do.
    let waiting: NodeJS.Timeout | undefined;
    const onChange = () => {
      waiting ??= setTimeout(() => {
        waiting = undefined;
        signal(pidFile).then(
          (pid) => log.info({ pid, files }, 'Files changed; the process was told'),
          (error: unknown) => log.error({ err: error }, `The process could not be told: ${messageOf(error)}`),
        );
      }, intervalMs);
    };
    for (const file of files) watchFile(file, { interval: intervalMs }, onChange);
    log.info({ files }, 'Watching');
    const stop = () => {
      clearTimeout(waiting);
      for (const file of files) unwatchFile(file, onChange);
      return Promise.resolve();
    };
    return Promise.resolve({ stop });
  },
});
