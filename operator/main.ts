import { codeOf, messageOf } from '#platform/errors.ts';
import { createLogger, type Logger } from '#platform/log.ts';
import { type OperatorConfig, readOperatorConfig } from './config.ts';
import { startOperator } from './operator.ts';

/** After this the process ends, whatever still waits; milliseconds. */
const SHUTDOWN_MS = 5_000;

function fail(error: unknown, log?: Logger): never {
  const words = `${codeOf(error)}: ${messageOf(error)}`;
  if (log) log.fatal(codeOf(error) === 'Internal' ? { err: error } : {}, `the operator cannot start: ${words}`);
  else process.stderr.write(`operator cannot start: ${words}\n`);
  process.exit(1);
}

let config: OperatorConfig;
try {
  config = readOperatorConfig(process.env);
} catch (error) {
  fail(error);
}
const log = createLogger({ name: 'operator', ...config.log });
// One mishap must not end all reconciling; what is thrown outside of a promise may have broken anything.
process.on('unhandledRejection', (error) => log.error({ err: error }, 'a promise was rejected and nobody noticed'));
const onLost = () => {
  // Another may lead already: nothing more may be written.
  log.fatal('lost the lease; exiting');
  process.exit(1);
};
const stop = await startOperator(config, log, onLost).catch((error: unknown) => fail(error, log));
let stopping = false;
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, 'shutting down');
    setTimeout(() => process.exit(0), SHUTDOWN_MS).unref();
    stop().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ err: error }, 'shutting down failed');
        process.exit(1);
      },
    );
  });
}
