import { runProgram } from '#platform/run.ts';
import { readNodeConfig } from './config.ts';
import { startNode } from './node.ts';

await runProgram({
  name: 'sfu-node',
  readConfig: readNodeConfig,
  fields: ({ name }) => ({ node: name }),
  start: startNode,
});
