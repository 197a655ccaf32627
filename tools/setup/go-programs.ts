import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, arch, platform } from 'node:os';
import { delimiter, join } from 'node:path';
import { stateDirectory } from '#tools/local/leftovers.ts';
import { cacheDirectory, hashInputs, putInPlace, withLock } from './cache.ts';
import { ensureCommand } from './packages.ts';
import { attempt, runLogged, say, step } from './steps.ts';

/** A program that a Go module holds. */
export interface GoProgram {
  /** Package to build. */
  package: string;
  /** Asks for its version. */
  versionArgs: readonly string[];
  /** Finds the version in what it prints. A version with other words after it is a wrapper or a stub. */
  version: RegExp;
  /** Oldest usable version. */
  atLeast: readonly [number, number];
}

/** A Go module whose go.mod and go.sum pin programs. */
export interface GoModule<Name extends string> {
  /** Directory of go.mod. */
  source: string;
  /** Files below it on which what is built depends. */
  inputs: readonly string[];
  ldflags: string;
  programs: Readonly<Record<Name, GoProgram>>;
  /** How long building all of them takes, in words. */
  duration: string;
}

/** Whether a program runs and is new enough. */
async function isUsable(program: GoProgram, path: string): Promise<boolean> {
  if (!existsSync(path)) return false;
  const { code, output } = await attempt(path, program.versionArgs, { timeoutMs: 10_000 });
  const match = code === 0 ? program.version.exec(output) : null;
  if (!match) return false;
  const [major, minor] = [Number(match[1]), Number(match[2])];
  return major > program.atLeast[0] || (major === program.atLeast[0] && minor >= program.atLeast[1]);
}

/** A usable program in KUBEBUILDER_ASSETS or PATH. Those that are not usable are added to `refused`. */
async function find(name: string, program: GoProgram, refused: string[]): Promise<string | undefined> {
  const directories = [process.env['KUBEBUILDER_ASSETS'], ...(process.env['PATH'] ?? '').split(delimiter)];
  for (const directory of new Set(directories)) {
    if (directory === undefined || directory === '') continue;
    const path = join(directory, name);
    if (!existsSync(path)) continue;
    if (await isUsable(program, path)) return path;
    refused.push(`${path} is not usable: wants ${name} ${program.atLeast.join('.')} or newer, and no wrapper`);
  }
  return undefined;
}

/**
 * Finds the programs of a module in KUBEBUILDER_ASSETS, PATH or the cache, and builds those that are missing.
 *
 * @returns absolute paths by name.
 */
export async function provideGoPrograms<Name extends string>(module: GoModule<Name>): Promise<Record<Name, string>> {
  const { missing, paths, directory, refused } = await look(module);
  if (missing.length > 0) {
    await ensureCommand('go', ['version'], 'Install Go 1.26 or newer: https://go.dev/dl, or apt-get install golang');
    for (const reason of refused) say(reason);
    say(`building ${missing.join(', ')}: ${module.duration} once, then they are kept in ${directory}`);
    await withLock(directory, () => build(module, missing, directory));
  }
  return paths;
}

/** Where the programs of a module are, or undefined when one of them would have to be built. */
export async function findGoPrograms<Name extends string>(
  module: GoModule<Name>,
): Promise<Record<Name, string> | undefined> {
  const { missing, paths } = await look(module);
  return missing.length === 0 ? paths : undefined;
}

async function look<Name extends string>(module: GoModule<Name>) {
  const inputs = module.inputs.map((name) => join(module.source, name));
  const key = await hashInputs(inputs, [module.ldflags, platform(), arch()]);
  const directory = join(cacheDirectory(), key);
  const refused: string[] = [];
  const missing: Name[] = [];
  const paths = await Promise.all(
    (Object.entries(module.programs) as [Name, GoProgram][]).map(async ([name, program]) => {
      const built = join(directory, name);
      const path = (await find(name, program, refused)) ?? built;
      if (path === built && !(await isUsable(program, built))) missing.push(name);
      return [name, path] as const;
    }),
  );
  return { directory, refused, missing, paths: Object.fromEntries(paths) as Record<Name, string> };
}

async function build<Name extends string>(
  module: GoModule<Name>,
  names: readonly Name[],
  directory: string,
): Promise<void> {
  await mkdir(directory, { recursive: true });
  const work = await mkdtemp(join(directory, 'build-'));
  const env = { CGO_ENABLED: '0', GOFLAGS: '-mod=readonly', GOWORK: 'off' };
  try {
    for (const [index, name] of names.entries()) {
      const program = module.programs[name];
      // Another set-up may have built it while this one waited for the lock.
      if (await isUsable(program, join(directory, name))) continue;
      await step(`go build ${name} (${index + 1} of ${names.length})`, () =>
        runLogged(
          'go',
          [
            ...['build', '-trimpath', '-p', String(availableParallelism()), '-ldflags', module.ldflags],
            ...['-o', join(work, name), program.package],
          ],
          { cwd: module.source, env, logFile: join(stateDirectory, 'log', `build-${name}.log`) },
        ),
      );
      await putInPlace(join(work, name), join(directory, name));
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
