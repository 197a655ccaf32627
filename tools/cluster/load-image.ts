/**
 * Loads images into every node of the cluster of `make cluster`.
 *
 * usage: node tools/cluster/load-image.ts FILE.tar ... (OCI or docker archives)
 */
import { resolve } from 'node:path';
import { messageOf } from '#platform/errors.ts';
import { importImage } from './containerd-client.ts';
import { readState } from './state.ts';

const files = process.argv.slice(2);
const state = await readState();
if (files.length === 0 || !state?.ready) {
  console.error(
    state?.ready
      ? 'usage: node tools/cluster/load-image.ts FILE.tar ...'
      : 'No cluster runs; start it with `make cluster`.',
  );
  process.exit(2);
}
try {
  for (const file of files) {
    await Promise.all(state.nodes.map((node) => importImage(node.containerd, resolve(file))));
    console.log(`${file} is on ${state.nodes.map((node) => node.name).join(', ')}`);
  }
} catch (error) {
  console.error(messageOf(error));
  process.exitCode = 1;
}
