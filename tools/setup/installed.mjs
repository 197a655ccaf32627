// Exits 0 when node_modules holds what package-lock.json says. Plain JavaScript: the machine's own Node runs it.
import { existsSync, readFileSync } from 'node:fs';

/** @param {string} file */
const packagesOf = (file) => JSON.parse(readFileSync(file, 'utf8')).packages;

function installed() {
  if (!existsSync('node_modules/.package-lock.json') || !existsSync('node_modules/.bin/node')) return false;
  const wanted = packagesOf('package-lock.json');
  const present = packagesOf('node_modules/.package-lock.json');
  for (const [path, entry] of Object.entries(wanted)) {
    // Optional packages are those of other platforms, mostly; npm has decided on them.
    if (path === '' || entry.optional || entry.link) continue;
    if (present[path]?.version !== entry.version) return false;
  }
  return Object.keys(present).every((path) => path in wanted);
}

process.exit(installed() ? 0 : 1);
