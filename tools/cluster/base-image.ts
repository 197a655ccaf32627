import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { arch } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/**
 * The image that every node has from the start: busybox with its commands, which waits when it is told nothing else.
 * The containers that hold a pod's network run it; so may tests.
 */
export const baseImage = 'localhost/weir-base:1';

const architectures: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

/**
 * Writes the base image as an OCI archive.
 *
 * @param busybox a statically linked busybox.
 * @param name what containers call it.
 */
export async function writeBaseImage(busybox: string, file: string, name = baseImage): Promise<void> {
  const work = await mkdtemp(`${file}-`);
  try {
    const rootfs = join(work, 'rootfs');
    for (const path of ['bin', 'etc', 'tmp']) await mkdir(join(rootfs, path), { recursive: true });
    await copyFile(busybox, join(rootfs, 'bin/busybox'));
    const { stdout } = await run(busybox, ['--list']);
    for (const command of stdout.split('\n').filter((name) => name !== '' && name !== 'busybox'))
      await symlink('busybox', join(rootfs, 'bin', command));
    await writeFile(join(rootfs, 'etc/passwd'), 'root:x:0:0:root:/:/bin/sh\n');
    // Sources that glibc would load as libraries do not exist here.
    const sources = ['passwd: files', 'group: files', 'services: files', 'hosts: files dns', ''];
    await writeFile(join(rootfs, 'etc/nsswitch.conf'), sources.join('\n'));
    await writeArchive(work, rootfs, file, name);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
}

async function writeArchive(work: string, rootfs: string, file: string, name: string): Promise<void> {
  const layout = join(work, 'layout');
  const blobs = join(layout, 'blobs/sha256');
  await mkdir(blobs, { recursive: true });
  const layerFile = join(work, 'layer.tar');
  await run('tar', ['--owner=0', '--group=0', '--numeric-owner', '-C', rootfs, '-cf', layerFile, '.']);
  const oci = (kind: string) => `application/vnd.oci.image.${kind}`;
  const layer = await addBlob(blobs, layerFile, oci('layer.v1.tar'));
  const addJson = async (value: unknown, mediaType: string) => {
    const path = join(work, 'blob.json');
    await writeFile(path, JSON.stringify(value));
    return await addBlob(blobs, path, mediaType);
  };
  const config = await addJson(
    {
      os: 'linux',
      architecture: architectures[arch()] ?? arch(),
      config: {
        Entrypoint: ['/bin/sh', '-c', "trap 'exit 0' TERM; while :; do sleep 2147483 & wait; done"],
        Env: ['PATH=/bin'],
      },
      rootfs: { type: 'layers', diff_ids: [layer.digest] },
    },
    oci('config.v1+json'),
  );
  const manifestType = oci('manifest.v1+json');
  const manifest = { schemaVersion: 2, mediaType: manifestType, config, layers: [layer] };
  const index = {
    schemaVersion: 2,
    manifests: [{ ...(await addJson(manifest, manifestType)), annotations: { 'io.containerd.image.name': name } }],
  };
  await writeFile(join(layout, 'index.json'), JSON.stringify(index));
  await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await run('tar', ['-C', layout, '-cf', `${file}.tmp`, '.']);
  await rename(`${file}.tmp`, file);
}

/** Moves a file to its place among the blobs, which its hash names. */
async function addBlob(blobs: string, path: string, mediaType: string): Promise<Descriptor> {
  const hash = createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
  const { size } = await stat(path);
  await rename(path, join(blobs, hash));
  return { mediaType, digest: `sha256:${hash}`, size };
}
