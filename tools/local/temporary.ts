import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { recordDirectory } from '#tools/local/leftovers.ts';

/** A new temporary directory, removed when this process ends. */
export function temporaryDirectory(name: string): string {
  const directory = mkdtempSync(join(tmpdir(), `weir-${name}-`));
  recordDirectory(directory);
  return directory;
}
