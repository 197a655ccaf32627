/**
 * Ends the cluster of `make cluster`, and what an earlier one that crashed has left behind.
 *
 * usage: make cluster-down
 */
import { eventually } from '#tools/local/eventually.ts';
import { endLeftovers, startTimeOf } from '#tools/local/leftovers.ts';
import { readState, removeState } from './state.ts';

const state = await readState();
if (state) {
  process.kill(state.pid, 'SIGTERM');
  await eventually(() => startTimeOf(state.pid) === undefined, { timeoutMs: 60_000, what: 'the end of the cluster' });
}
const left = await endLeftovers();
await removeState();
if (left.length > 0) console.log(`ended leftovers: ${left.join(', ')}`);
console.log(state ? 'The cluster is gone.' : 'No cluster ran.');
