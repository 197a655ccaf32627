import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, globSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually, temporaryDirectory } from '#test/fleet/mod.ts';
import { writeBaseImage } from '#tools/cluster/base-image.ts';
import { locateClusterBinaries } from '#tools/cluster/binaries.ts';
import { LocalCluster } from '#tools/cluster/local-cluster.ts';
import { clusterProblem } from '#tools/cluster/problem.ts';

interface Pod {
  metadata: { name: string };
  spec: { nodeName: string };
  status: { podIP: string; conditions: { type: string; status: string }[] };
}

interface NodeObject {
  metadata: { name: string; labels: Record<string, string> };
}

/** Sends a datagram to a port on which nobody listens; the error code that comes back from there. */
async function sendDatagram(address: string): Promise<string | undefined> {
  const socket = createSocket('udp4');
  try {
    socket.connect(9, address);
    await once(socket, 'connect');
    socket.send('anybody?');
    const [error] = (await once(socket, 'error', { signal: AbortSignal.timeout(10_000) })) as [NodeJS.ErrnoException];
    return error.code;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  } finally {
    socket.close();
  }
}

/** What the network of this machine and its process table say of a cluster. */
function traces(cluster: LocalCluster, namespaces: ReadonlySet<string>): string[] {
  const subnet = cluster.nodes[0]?.address.replace(/\d+$/, '') ?? '';
  const routes = execFileSync('ip', ['-o', '-4', 'route'], { encoding: 'utf8' }).split('\n');
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const processes = globSync('/proc/[0-9]*').filter((path) => {
    try {
      return (
        namespaces.has(readlinkSync(join(path, 'ns/net'))) ||
        readFileSync(join(path, 'cmdline'), 'utf8').includes(cluster.dir)
      );
    } catch {
      return false;
    }
  });
  return [
    ...routes.filter((line) => line.includes(subnet)),
    ...mounts.filter((line) => line.includes(cluster.dir)),
    ...processes,
    ...cluster.nodes.flatMap((node) => globSync(`/sys/fs/cgroup/**${node.controlGroups.root}`)),
    ...(existsSync(cluster.dir) ? [cluster.dir] : []),
  ];
}

describe('a cluster on one machine', { skip: clusterProblem(), timeout: 300_000 }, () => {
  let cluster: LocalCluster;
  let pods: Pod[];

  const readyPods = async () => {
    const { items } = await cluster.kubectl.json<{ items: Pod[] }>('get', 'pods', '-l', 'app=echo');
    const isReady = ({ status }: Pod) =>
      status.conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
    return items.length === cluster.nodes.length && items.every(isReady) && items;
  };
  const fetchText = async (address: string) => {
    return (await (await fetch(`http://${address}:8080`, { signal: AbortSignal.timeout(2000) })).text()).trim();
  };

  before(async () => {
    cluster = await LocalCluster.start({ nodeGraceSeconds: 8 });
    const image = join(temporaryDirectory('image'), 'echo.tar');
    await writeBaseImage(locateClusterBinaries().busybox, image, 'localhost/weir-echo:1');
    await cluster.loadImage(image);
    await cluster.kubectl.run('apply', '-f', 'test/cluster/echo.yaml');
    pods = await eventually(readyPods, { timeoutMs: 60_000, what: 'a pod on every node' });
  });

  after(async () => {
    await cluster?.stop();
  });

  test('its nodes are Ready and say their region and zone', async () => {
    const { items } = await cluster.kubectl.json<{ items: NodeObject[] }>('get', 'nodes');
    const said = items.map(({ metadata: { name, labels } }) => {
      return [name, labels['topology.kubernetes.io/region'], labels['topology.kubernetes.io/zone']];
    });
    assert.deepEqual(
      said.sort(),
      cluster.nodes.map(({ name, region, zone }) => [name, region, zone]),
    );
    for (const node of cluster.nodes) assert.ok(await cluster.isReady(node), `${node.name} is not Ready`);
  });

  test('an image that was loaded runs on every node', () => {
    assert.deepEqual(
      pods.map((pod) => pod.spec.nodeName).sort(),
      cluster.nodes.map((node) => node.name),
    );
  });

  test('a pod of any node reaches the pods of all nodes', async () => {
    for (const from of pods) {
      for (const to of pods) {
        const answer = await cluster.kubectl.run(
          'exec',
          from.metadata.name,
          '--',
          'wget',
          '-qO-',
          `${to.status.podIP}:8080`,
        );
        assert.equal(answer.trim(), to.spec.nodeName);
      }
    }
  });

  test('a Service is reached by its name from every node, and all its pods serve it', async () => {
    for (const from of pods) {
      const served = new Set<string>();
      await eventually(
        async () => {
          served.add(
            (await cluster.kubectl.run('exec', from.metadata.name, '--', 'wget', '-qO-', 'http://echo')).trim(),
          );
          return served.size === pods.length;
        },
        { timeoutMs: 60_000 },
      );
      assert.deepEqual(
        [...served].sort(),
        cluster.nodes.map((node) => node.name),
      );
    }
  });

  test('this machine reaches pods at their own addresses, over TCP and UDP', async () => {
    for (const { spec, status } of pods) {
      assert.equal(await fetchText(status.podIP), spec.nodeName);
      assert.equal(await sendDatagram(status.podIP), 'ECONNREFUSED');
    }
  });

  test('a node that is cut off stops being Ready, and is back with its pods when it is connected again', async () => {
    const node = cluster.node('us-1');
    const pod = pods.find(({ spec }) => spec.nodeName === node.name);
    assert.ok(pod);
    await cluster.cut(node);
    await assert.rejects(fetchText(pod.status.podIP));
    await eventually(async () => !(await cluster.isReady(node)), { timeoutMs: 60_000, what: 'the node being lost' });
    assert.ok(await cluster.isReady(cluster.node('eu-1')));
    await cluster.heal(node);
    await eventually(() => cluster.isReady(node), { timeoutMs: 60_000, what: 'the node being Ready again' });
    assert.equal(await eventually(() => fetchText(pod.status.podIP)), node.name);
    const { status } = await cluster.kubectl.json<{ status: { containerStatuses: { restartCount: number }[] } }>(
      ...['get', 'pod', pod.metadata.name],
    );
    assert.equal(status.containerStatuses[0]?.restartCount, 0);
  });

  test('nothing of it is left when it has ended', async () => {
    const namespaces = new Set(cluster.nodes.map(({ machine }) => readlinkSync(`/proc/${machine.pid}/ns/net`)));
    assert.notDeepEqual(traces(cluster, namespaces), []);
    await cluster.stop();
    await eventually(() => traces(cluster, namespaces).length === 0).catch(() => undefined);
    assert.deepEqual(traces(cluster, namespaces), []);
  });
});
