import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test, type TestContext } from 'node:test';
import { eventually } from './eventually.ts';
import { projectRoot, startTimeOf } from './leftovers.ts';

interface Started {
  starter: ChildProcess;
  pid: number;
  directory: string;
}

/** A process that starts another one and makes a temporary directory, then waits. */
async function start(context: TestContext): Promise<Started> {
  const script = `
    import { LocalProcess } from '#tools/local/process.ts';
    import { temporaryDirectory } from '#tools/local/temporary.ts';
    const directory = temporaryDirectory('leftovers');
    const child = await LocalProcess.start({ name: 'sleeper', command: 'sleep', args: ['600'], logFile: directory + '/log' });
    console.log(JSON.stringify({ pid: child.pid, directory }));
    process.stdin.once('data', () => process.exit(3));
    setInterval(() => undefined, 1000);`;
  const starter = spawn(process.execPath, ['--input-type=module-typescript', '--eval', script], {
    cwd: projectRoot,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  context.after(() => starter.kill('SIGKILL'));
  const [line] = (await once(createInterface({ input: starter.stdout }), 'line')) as [string];
  return { starter, ...(JSON.parse(line) as { pid: number; directory: string }) };
}

const gone = ({ pid, directory }: Started) =>
  eventually(() => startTimeOf(pid) === undefined && !existsSync(directory), { what: 'the end of the child' });

test('what a process started ends with its exit', { timeout: 30_000 }, async (context) => {
  const started = await start(context);
  assert.notEqual(startTimeOf(started.pid), undefined);
  started.starter.stdin?.write('end\n');
  await gone(started);
});

test('what a process started ends when it is killed', { timeout: 30_000 }, async (context) => {
  const started = await start(context);
  started.starter.kill('SIGKILL');
  await gone(started);
});

test('what a process started ends when its terminal interrupts it', { timeout: 30_000 }, async (context) => {
  const started = await start(context);
  started.starter.kill('SIGINT');
  await gone(started);
});

test('a start time tells a process from the next one of the same id', () => {
  assert.equal(typeof startTimeOf(process.pid), 'number');
  assert.equal(startTimeOf(2 ** 22 + 1), undefined);
  assert.ok(existsSync(join(projectRoot, 'package.json')));
});
