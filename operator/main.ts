import { runProgram } from '#platform/run.ts';
import { readOperatorConfig } from './config.ts';
import { startOperator } from './operator.ts';

await runProgram({
  name: 'operator',
  readConfig: readOperatorConfig,
  start: async (config, log) => {
    const stop = await startOperator(config, log, () => {
      // Another may lead already: nothing more may be written.
      log.fatal('lost the lease; exiting');
      process.exit(1);
    });
    return { stop };
  },
});
