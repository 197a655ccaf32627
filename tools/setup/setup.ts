/**
 * Provides what the demo, the tests and the benchmarks run on, and says in .weir/setup.json where it is. Finds before it builds.
 *
 * usage: sh tools/setup/bootstrap.sh [demo|test|bench|cluster|all]
 */
import { existsSync } from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { messageOf, WeirError } from '#platform/errors.ts';
import { clusterProblem, otherClusters } from '#tools/cluster/problem.ts';
import { setupFile, type Binaries } from '#tools/local/binaries.ts';
import { stateDirectory } from '#tools/local/leftovers.ts';
import { findCluster, provideCluster } from './cluster.ts';
import { provideControlPlane } from './control-plane.ts';
import { ensurePackages } from './packages.ts';
import { provideWorker } from './worker.ts';

/** Chromium for the tests: WEIR_CHROMIUM, or one in PATH. */
function findChromium(): string | undefined {
  const given = process.env['WEIR_CHROMIUM'];
  if (given !== undefined && given !== '') return given;
  for (const directory of (process.env['PATH'] ?? '').split(delimiter)) {
    for (const name of ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome']) {
      if (existsSync(join(directory, name))) return join(directory, name);
    }
  }
  return undefined;
}

async function main(purpose: string): Promise<void> {
  const problem = clusterProblem();
  if (purpose === 'cluster' && problem !== undefined)
    throw new WeirError('NoClusterHere', `a cluster on this machine ${problem}. ${otherClusters}`);
  const browsers = purpose !== 'demo' && purpose !== 'cluster';
  if (browsers) {
    await ensurePackages(
      [...(findChromium() === undefined ? ['chromium', 'fonts-dejavu-core'] : []), 'iproute2'],
      'testing in a browser and in network namespaces',
    );
    // Its package starts it as a service where systemd runs: there it is left to whoever wants its test.
    if (!existsSync('/run/systemd/system')) await ensurePackages(['coturn'], 'testing with a TURN server');
  }
  const controlPlane = await provideControlPlane();
  const binaries: Binaries = { ...controlPlane, 'mediasoup-worker': await provideWorker() };
  const withCluster = ['cluster', 'test', 'all'].includes(purpose) && problem === undefined;
  const cluster = await (withCluster ? provideCluster() : findCluster());
  await mkdir(stateDirectory, { recursive: true });
  const setup = { binaries, cluster, chromium: findChromium() };
  await writeFile(`${setupFile}.tmp`, JSON.stringify(setup, null, 2));
  await rename(`${setupFile}.tmp`, setupFile);
}

try {
  await main(process.argv[2] ?? 'all');
} catch (error) {
  console.error(`setup: ${messageOf(error)}`);
  process.exitCode = 1;
}
