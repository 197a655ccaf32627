/** Holds the cluster of `make cluster` until it is told to end. Started by up.ts, ended by down.ts. */
import { copyFile, chmod } from 'node:fs/promises';
import { once } from 'node:events';
import { messageOf } from '#platform/errors.ts';
import { LocalCluster } from './local-cluster.ts';
import { kubeconfigFile, removeState, writeState } from './state.ts';

// The terminal that it was started in may go.
process.on('SIGHUP', () => undefined);
// Told to end while it starts, it exits: what it has started by then ends with it.
const giveUp = () => process.exit(1);
process.on('SIGTERM', giveUp).on('SIGINT', giveUp);

async function serve(): Promise<void> {
  await writeState({ ready: false, kubeconfig: '', dir: '', nodes: [] });
  const cluster = await LocalCluster.start({ say: (text) => console.log(`cluster: ${text}`) });
  process.off('SIGTERM', giveUp).off('SIGINT', giveUp);
  const told = Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')]);
  try {
    await copyFile(cluster.kubeconfigPath, kubeconfigFile);
    await chmod(kubeconfigFile, 0o600);
    await writeState({
      ready: true,
      kubeconfig: kubeconfigFile,
      dir: cluster.dir,
      nodes: cluster.nodes.map(({ name, region, zone, address, containerdSocket }) => {
        return { name, region, zone, address, containerd: containerdSocket };
      }),
    });
    await told;
  } finally {
    await cluster.stop();
    await removeState();
  }
}

// Nothing else keeps the process alive while it waits to be told.
const alive = setInterval(() => undefined, 60_000);
try {
  await serve();
} catch (error) {
  console.log(`cluster: failed: ${messageOf(error)}`);
  process.exitCode = 1;
}
clearInterval(alive);
