import { rename, writeFile } from 'node:fs/promises';

/** Writes JSON to a file so that a reader sees all of it or none. */
export async function writeStateFile(path: string, state: unknown): Promise<void> {
  const draft = `${path}.${process.pid}.tmp`;
  await writeFile(draft, `${JSON.stringify(state, null, 2)}\n`);
  await rename(draft, path);
}
