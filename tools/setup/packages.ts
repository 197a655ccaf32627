import { existsSync } from 'node:fs';
import { WeirError } from '#platform/errors.ts';
import { attempt, step } from './steps.ts';

/**
 * Makes sure that Debian packages are installed: as root installs them itself, otherwise names the command.
 * On another system it does nothing: what is missing shows when it is run.
 *
 * @throws WeirError PackagesMissing
 */
export async function ensurePackages(names: readonly string[], why: string): Promise<void> {
  if (!existsSync('/etc/debian_version')) return;
  const missing: string[] = [];
  for (const name of names) {
    const { code, output } = await attempt('dpkg-query', ['-W', '-f=${Status}', name]);
    if (code !== 0 || !output.includes('install ok installed')) missing.push(name);
  }
  if (missing.length === 0) return;
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  if (process.getuid?.() !== 0) {
    throw new WeirError('PackagesMissing', `${why} needs Debian packages; install them: sudo ${command}`);
  }
  await step(`apt-get install ${missing.join(' ')} (${why})`, async () => {
    const env = { DEBIAN_FRONTEND: 'noninteractive' };
    const install = () => attempt('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing], { env });
    let outcome = await install();
    if (outcome.code !== 0) {
      // A fresh machine has no package lists, an old one has stale ones.
      await attempt('apt-get', ['update', '-qq'], { env });
      outcome = await install();
    }
    if (outcome.code !== 0) {
      const tail = outcome.output.trimEnd().split('\n').slice(-10).join('\n');
      throw new WeirError('PackagesMissing', `${why} needs Debian packages, but "${command}" failed:\n${tail}`);
    }
  });
}

/**
 * Makes sure that a command runs.
 *
 * @throws WeirError CommandMissing with the words in `install`.
 */
export async function ensureCommand(command: string, args: readonly string[], install: string): Promise<string> {
  const { code, output } = await attempt(command, args);
  if (code !== 0) throw new WeirError('CommandMissing', `${command} is missing or does not run. ${install}`);
  return output;
}
