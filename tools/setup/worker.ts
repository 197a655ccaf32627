import { existsSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { arch, platform } from 'node:os';
import { join } from 'node:path';
import { WeirError } from '#platform/errors.ts';
import { projectRoot, stateDirectory } from '#tools/local/leftovers.ts';
import { cacheDirectory, hashInputs, putInPlace, withLock } from './cache.ts';
import { ensureCommand, ensurePackages } from './packages.ts';
import { attempt, runLogged, say, step } from './steps.ts';

const mediasoup = join(projectRoot, 'node_modules/mediasoup');
const official = join(mediasoup, 'worker/out/Release/mediasoup-worker');

/** A worker that is started without MEDIASOUP_VERSION ends with code 41, once its libraries have been loaded. */
async function isUsable(path: string): Promise<boolean> {
  if (!existsSync(path)) return false;
  return (await attempt('env', ['-i', path], { timeoutMs: 10_000 })).code === 41;
}

/**
 * Finds mediasoup-worker (MEDIASOUP_WORKER_BIN, the official prebuilt, one built before), downloads the official
 * prebuilt, or builds it from the source in the npm package.
 *
 * @returns its absolute path.
 */
export async function provideWorker(): Promise<string> {
  const given = process.env['MEDIASOUP_WORKER_BIN'];
  if (given !== undefined && given !== '') {
    if (await isUsable(given)) return given;
    throw new WeirError(
      'WorkerUnusable',
      `MEDIASOUP_WORKER_BIN=${given} does not run; unset it or name a worker that does`,
    );
  }
  if (await isUsable(official)) return official;
  const recipe = join(projectRoot, 'tools/mediasoup-worker');
  const { version } = JSON.parse(await readFile(join(mediasoup, 'package.json'), 'utf8')) as { version: string };
  const key = await hashInputs([join(recipe, 'build'), join(recipe, 'shims')], [version, platform(), arch()]);
  const directory = join(cacheDirectory(), key);
  const built = join(directory, 'mediasoup-worker');
  if (await isUsable(built)) return built;
  return await withLock(directory, async () => {
    if (await isUsable(built)) return built;
    await step('mediasoup-worker: official prebuilt', download);
    if (await isUsable(official)) return official;
    say(
      `the official mediasoup-worker cannot be had here; building it from source: about 5 minutes once, kept in ${directory}`,
    );
    await ensureCommand('cargo', ['--version'], 'Install Rust: https://rustup.rs, or apt-get install cargo');
    await ensureCommand('python3', ['--version'], 'Install Python 3: apt-get install python3');
    await ensurePackages(
      [
        ...['build-essential', 'perl', 'libuv1-dev', 'libsrtp2-dev', 'libflatbuffers-dev', 'flatbuffers-compiler'],
        ...['ninja-build', 'pkg-config', 'python3-venv'],
      ],
      'building mediasoup-worker',
    );
    await mkdir(directory, { recursive: true });
    const half = join(directory, `build-${process.pid}`);
    await step('mediasoup-worker: build', () =>
      runLogged(join(recipe, 'build'), [mediasoup, half], {
        logFile: join(stateDirectory, 'log/build-mediasoup-worker.log'),
      }),
    );
    if (!(await isUsable(half)))
      throw new WeirError('WorkerUnusable', `the mediasoup-worker just built does not run`, { where: half });
    await putInPlace(half, built);
    return built;
  });
}

/** mediasoup's own download. Its fallback, a build that downloads more, is made to fail at once. */
async function download(): Promise<void> {
  await attempt(process.execPath, ['npm-scripts.mjs', 'postinstall'], {
    cwd: mediasoup,
    timeoutMs: 60_000,
    env: { PYTHON: '/bin/false', MEDIASOUP_WORKER_BIN: undefined },
  });
}
