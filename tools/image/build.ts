/**
 * Builds the image of Weir, writes it to .weir/image.tar (and that of NATS to .weir/nats-image.tar), and loads both into
 * the cluster of `make cluster` when that runs. Runs buildah, as root.
 *
 * usage: node tools/image/build.ts [BASE IMAGE]
 * Without a base image one is made of Debian packages, so that no registry of images is needed.
 */
import { existsSync } from 'node:fs';
import { copyFile, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, WeirError } from '#platform/errors.ts';
import { locateBinaries } from '#tools/local/binaries.ts';
import { projectRoot, stateDirectory } from '#tools/local/leftovers.ts';
import { cacheDirectory } from '#tools/setup/cache.ts';
import { ensurePackages } from '#tools/setup/packages.ts';
import { attempt, runLogged, say, step } from '#tools/setup/steps.ts';
import packageJson from '../../package.json' with { type: 'json' };
import { provideBase } from './base.ts';
import { chartImages } from './names.ts';

const context = join(stateDirectory, 'image');
const images = join(cacheDirectory(), 'images');
const certificates = '/etc/ssl/certs/ca-certificates.crt';

/** Runs buildah with a storage of its own. */
async function buildah(...args: string[]): Promise<void> {
  const storage = ['--root', join(images, 'storage'), '--runroot', join(images, 'run'), '--storage-driver', 'overlay'];
  await runLogged('buildah', [...storage, ...args], {
    logFile: join(stateDirectory, 'log/image.log'),
    cwd: projectRoot,
  });
}

/** Makes an image of a tar of files. */
async function importBase({ file, name }: { file: string; name: string }): Promise<void> {
  const dockerfile = join(context, 'base.Dockerfile');
  await writeFile(
    dockerfile,
    `FROM scratch\nADD ${file.split('/').at(-1) ?? ''} /\nENV PATH=/usr/local/bin:/usr/bin:/bin\n`,
  );
  await buildah('build', '--tag', name, '--file', dockerfile, join(file, '..'));
}

async function buildWeir(base: string, name: string): Promise<void> {
  const revision = (await attempt('git', ['rev-parse', 'HEAD'], { cwd: projectRoot })).output.trim();
  const committedAt = (await attempt('git', ['log', '-1', '--format=%ct'], { cwd: projectRoot })).output.trim();
  const certificateOptions = existsSync(certificates)
    ? [`--volume=${certificates}:${certificates}:ro`, `--build-arg=NODE_EXTRA_CA_CERTS=${certificates}`]
    : [];
  const labels = { VERSION: packageJson.version, REVISION: revision, BASE: base };
  await buildah(
    ...['build', '--isolation', 'chroot', '--format', 'oci', '--layers', '--timestamp', committedAt],
    ...Object.entries(labels).map(([key, value]) => `--build-arg=${key}=${value}`),
    ...certificateOptions,
    ...['--tag', name, '--file', 'Dockerfile', '.'],
  );
}

/** NATS as its official image has it: the server alone. */
async function buildNats(name: string): Promise<void> {
  await copyFile(locateBinaries()['nats-server'], join(context, 'nats-server'));
  const dockerfile = join(context, 'nats.Dockerfile');
  await writeFile(dockerfile, 'FROM scratch\nENV PATH=/\nCOPY nats-server /nats-server\nENTRYPOINT ["/nats-server"]\n');
  await buildah('build', '--format', 'oci', '--tag', name, '--file', dockerfile, context);
}

async function write(name: string, file: string): Promise<void> {
  await rm(`${file}.tmp`, { force: true });
  await buildah('push', name, `oci-archive:${file}.tmp:${name}`);
  await rename(`${file}.tmp`, file);
  say(`${name} is in ${file}`);
}

async function main(given: string | undefined): Promise<void> {
  if (process.getuid?.() !== 0) {
    const words =
      'building an image with buildah needs root. With an engine: docker build --tag localhost/weir:0.1.0 .';
    throw new WeirError('NoRoot', words);
  }
  await ensurePackages(['buildah', 'debootstrap'], 'building an image');
  await mkdir(context, { recursive: true });
  const names = await chartImages();
  // The worker that the set-up found runs on this machine's Debian, so it goes with a base of that alone.
  const worker = join(context, 'mediasoup-worker');
  await rm(worker, { force: true });
  let base = given;
  if (base === undefined) {
    const made = await provideBase();
    await step('the base image', () => importBase(made));
    await copyFile(locateBinaries()['mediasoup-worker'], worker);
    base = made.name;
  }
  const from = base;
  await step(`image ${names.weir}`, () => buildWeir(from, names.weir));
  await step(`image ${names.nats}`, () => buildNats(names.nats));
  const files = [join(stateDirectory, 'image.tar'), join(stateDirectory, 'nats-image.tar')];
  await write(names.weir, files[0] ?? '');
  await write(names.nats, files[1] ?? '');
  await loadIntoCluster(files);
}

async function loadIntoCluster(files: readonly string[]): Promise<void> {
  const { code, output } = await attempt(process.execPath, [
    join(projectRoot, 'tools/cluster/load-image.ts'),
    ...files,
  ]);
  if (code === 0) say(output.trim());
  else if (!output.includes('No cluster runs')) throw new WeirError('ImageNotLoaded', output.trim());
}

try {
  const given = process.argv[2];
  await main(given === '' ? undefined : given);
} catch (error) {
  console.error(`image: ${messageOf(error)}`);
  process.exitCode = 1;
}
