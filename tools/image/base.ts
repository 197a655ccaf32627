import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { WeirError } from '#platform/errors.ts';
import { projectRoot, stateDirectory } from '#tools/local/leftovers.ts';
import { cacheDirectory, hashInputs, putInPlace, withLock } from '#tools/setup/cache.ts';
import { runLogged, step } from '#tools/setup/steps.ts';

/** What node and mediasoup-worker load from the system. */
const packages = ['ca-certificates', 'libstdc++6', 'libuv1', 'libsrtp2-1'];
const npmVersion = '11.19.1';

/**
 * A tar of a small Debian with node and npm, as the official image of Node has them: for machines that can reach no
 * registry of images. Debian's own release, so that what was built here runs there. Made once, and kept in the cache.
 */
export async function provideBase(): Promise<{ file: string; name: string }> {
  const node = join(projectRoot, 'node_modules/node/bin/node');
  const release = await debianRelease();
  const key = await hashInputs([], [release, process.version, npmVersion, process.arch, ...packages]);
  const directory = join(cacheDirectory(), key);
  const file = join(directory, 'base.tar');
  const name = `localhost/weir-node-base:${key.slice(0, 12)}`;
  if (existsSync(file)) return { file, name };
  await withLock(directory, async () => {
    if (existsSync(file)) return;
    await mkdir(directory, { recursive: true });
    const work = await mkdtemp(join(directory, 'root-'));
    try {
      await step('a small Debian with Node (debootstrap)', () => build({ release, node, work, file: `${work}.tar` }));
      await putInPlace(`${work}.tar`, file);
    } finally {
      await rm(work, { recursive: true, force: true });
      await rm(`${work}.tar`, { force: true });
    }
  });
  return { file, name };
}

async function build(options: { release: string; node: string; work: string; file: string }): Promise<void> {
  const { release, node, work, file } = options;
  const logFile = join(stateDirectory, 'log/image-base.log');
  const run = (command: string, ...args: string[]) => runLogged(command, args, { logFile });
  await run('debootstrap', '--variant=minbase', `--include=${packages.join(',')}`, release, work);
  await copyFile(node, join(work, 'usr/local/bin/node'));
  await run('npm', 'install', '--global', `--prefix=${join(work, 'usr/local')}`, `npm@${npmVersion}`);
  await writeFile(join(work, 'etc/passwd'), 'weir:x:65532:65532::/:/usr/sbin/nologin\n', { flag: 'a' });
  // Caches and what only people read.
  const useless = [
    'var/cache/apt',
    'var/lib/apt/lists',
    'var/log',
    'usr/share/doc',
    'usr/share/man',
    'usr/share/locale',
  ];
  for (const path of useless) await rm(join(work, path), { recursive: true, force: true });
  await run('tar', '--numeric-owner', '--exclude=./dev/*', '--exclude=./proc/*', '-C', work, '-cf', file, '.');
}

/** Code name of this machine's Debian. */
async function debianRelease(): Promise<string> {
  const text = await readFile('/etc/os-release', 'utf8');
  const name = /^VERSION_CODENAME=(\w+)$/m.exec(text)?.[1];
  if (name !== undefined && /^ID=debian$/m.test(text)) return name;
  const words =
    'a base image can be made on Debian only: write make image BASE=docker.io/library/node:24-bookworm-slim';
  throw new WeirError('NoBaseImage', words, { where: '/etc/os-release' });
}
