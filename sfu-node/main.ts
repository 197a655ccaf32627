import { codeOf, messageOf } from '#platform/errors.ts';
import { createLogger, type Logger } from '#platform/log.ts';
import { type NodeConfig, readNodeConfig } from './config.ts';
import { startNode } from './node.ts';

/** After this the process ends, whatever still waits; milliseconds. */
const SHUTDOWN_MS = 5_000;

function fail(error: unknown, log?: Logger): never {
  const words = `${codeOf(error)}: ${messageOf(error)}`;
  if (log) log.fatal(codeOf(error) === 'Internal' ? { err: error } : {}, `the node cannot start: ${words}`);
  else process.stderr.write(`sfu-node cannot start: ${words}\n`);
  process.exit(1);
}

let config: NodeConfig;
try {
  config = readNodeConfig(process.env);
} catch (error) {
  fail(error);
}
const log = createLogger({ name: 'sfu-node', ...config.log }).child({ node: config.name });
// One client's mishap must not end the calls of all others; what is thrown outside of a promise may have broken anything.
process.on('unhandledRejection', (error) => log.error({ err: error }, 'a promise was rejected and nobody noticed'));
const stop = await startNode(config, log).catch((error: unknown) => fail(error, log));
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
