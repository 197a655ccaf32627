/** Runs one benchmark in a process of its own, started by run.ts, and sends its result there. */
import { messageOf } from '#platform/errors.ts';
import { benchmarks } from './benchmarks.ts';
import type { BenchResult } from './figures.ts';

/** What this process says at its end. */
export type OneMessage = { result: BenchResult } | { error: string };

async function measure(name: string, quick: boolean): Promise<OneMessage> {
  try {
    const load = benchmarks[name]?.load;
    if (!load) return { error: `no benchmark ${name}` };
    const benchmark = await load();
    const progress = (step: string) => console.log(`${name}: ${step}`);
    return { result: await benchmark.run({ quick, progress }) };
  } catch (error) {
    return { error: messageOf(error) };
  }
}

// Nobody is there any more to take the result.
process.once('disconnect', () => process.exit(1));
const [name = '', size] = process.argv.slice(2);
const message = await measure(name, size === 'quick');
if (!process.send) throw new Error('one.ts is started by run.ts; run `node tools/bench/run.ts`');
// What a benchmark may still hold open must not keep the process alive; its exit ends what it started.
process.send(message, () => process.exit());
