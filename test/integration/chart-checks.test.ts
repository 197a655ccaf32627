import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { chart, findHelm } from '#test/chart/helm.ts';
import { LocalControlPlane, temporaryDirectory } from '#test/fleet/mod.ts';

const run = promisify(execFile);

/** What the chart finds out about a cluster before it touches it: a real API server without an aggregation layer. */
let plane: LocalControlPlane;
const found = findHelm();
const skip = found === undefined ? 'needs helm' : false;

before(async () => {
  if (found)
    plane = await LocalControlPlane.start({ dir: temporaryDirectory('bare'), crds: false, aggregation: false });
});

after(() => plane?.stop());

function install(...args: string[]): Promise<{ stdout: string }> {
  const env = { ...process.env, KUBECONFIG: plane.kubeconfigPath };
  const command = ['install', 'weir', chart, '--namespace', 'default', '--dry-run=server', ...args];
  return run(found ?? 'helm', command, { env, maxBuffer: 2 ** 24 });
}

test('a cluster that cannot pass requests on to the metrics API is told so, with what to do', { skip }, async () => {
  await assert.rejects(install(), ({ stderr }: { stderr: string }) => {
    assert.match(stderr, /metricsAPI.enabled wants API aggregation.*--requestheader-client-ca-file/);
    assert.match(stderr, /metricsAPI.enabled: false and sfuNode.autoscaling.mode: KEDA or None/);
    return true;
  });
  const without = ['--set', 'metricsAPI.enabled=false', '--set', 'sfuNode.autoscaling.mode=None'];
  assert.match((await install(...without)).stdout, /STATUS: pending-install/);
});
