import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync, readlinkSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { clusterProblem } from '#tools/cluster/problem.ts';
import { eventually } from '#tools/local/eventually.ts';
import { projectRoot } from '#tools/local/leftovers.ts';

interface Started {
  dir: string;
  device: string;
  /** The machine's network namespace, as /proc names it. */
  namespace: string;
  controlGroup: string;
}

const script = `
  import { execFileSync } from 'node:child_process';
  import { readlinkSync } from 'node:fs';
  import { ControlGroups } from '#tools/cluster/control-groups.ts';
  import { Machine } from '#tools/cluster/machine.ts';
  import { ClusterNetwork } from '#tools/cluster/network.ts';
  import { temporaryDirectory } from '#tools/local/temporary.ts';
  const dir = temporaryDirectory('machine-test');
  const network = await ClusterNetwork.create(dir);
  const groups = new ControlGroups('m-1');
  const machine = await Machine.start({ name: 'm-1', dir: dir + '/m-1' });
  await network.plug(machine, 1, 1);
  execFileSync(machine.wrapper[0], [...machine.wrapper.slice(1), 'sh', '-c',
    'mount -t tmpfs left /var/lib; setsid sleep 4242 >/dev/null 2>&1 &']);
  const namespace = readlinkSync('/proc/' + machine.pid + '/ns/net');
  console.log(JSON.stringify({ dir, device: network.device, namespace, controlGroup: groups.root }));
  setInterval(() => undefined, 1000);`;

const devices = () => execFileSync('ip', ['-o', 'link'], { encoding: 'utf8' });
const processes = ({ namespace }: Started) =>
  globSync('/proc/[0-9]*/ns/net').filter((path) => {
    try {
      return readlinkSync(path) === namespace;
    } catch {
      return false;
    }
  });
const groups = ({ controlGroup }: Started) => globSync(`/sys/fs/cgroup{,/*}${controlGroup}`);

test(
  'of a machine whose owner is killed nothing is left: processes, network, control groups and files',
  { skip: clusterProblem(), timeout: 60_000 },
  async (context) => {
    const owner = spawn(process.execPath, ['--input-type=module-typescript', '--eval', script], {
      cwd: projectRoot,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    context.after(() => owner.kill('SIGKILL'));
    const [line] = (await once(createInterface({ input: owner.stdout }), 'line')) as [string];
    const started = JSON.parse(line) as Started;
    assert.match(devices(), new RegExp(` ${started.device}[@:]`));
    assert.notDeepEqual(groups(started), []);
    // What holds the machine, its first process with a child, and one that has left its parents.
    assert.ok(processes(started).length >= 4);
    owner.kill('SIGKILL');
    await eventually(() => processes(started).length === 0, {
      what: 'the end of processes',
    });
    await eventually(() => !new RegExp(` ${started.device}[@:]`).test(devices()), { what: 'the end of the network' });
    await eventually(() => groups(started).length === 0, { what: 'the end of control groups' });
    await eventually(() => !existsSync(started.dir), { what: 'the end of files' });
  },
);
