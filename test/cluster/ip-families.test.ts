import assert from 'node:assert/strict';
import { isIPv6 } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { BrowserParticipant } from '#test/e2e/browser.ts';
import { allReceive } from '#test/e2e/receiving.ts';
import { clusterProblem } from '#tools/cluster/problem.ts';
import { defaultNodes } from '#tools/cluster/local-cluster.ts';
import { WeirCluster } from './weir-cluster.ts';

describe('the chart in a cluster on IPv6', { skip: clusterProblem(), timeout: 400_000 }, () => {
  let weir: WeirCluster;

  before(async () => {
    weir = await WeirCluster.start({ nodes: defaultNodes.slice(1), ipFamilies: ['IPv6', 'IPv4'] });
  });

  after(() => weir?.stop());

  /** Two windows of Chromium on this machine see each other. */
  async function call(room: string): Promise<void> {
    const url = await weir.signalUrl('us-1');
    assert.match(url, /^ws:\/\/\[/);
    const people = { ada: await BrowserParticipant.alone(), bob: await BrowserParticipant.alone() };
    try {
      for (const [identity, person] of Object.entries(people)) {
        await person.connect(url, await weir.token(room, identity));
        await person.publish({ camera: true });
      }
      await allReceive(people, ['ada', 'bob']);
    } finally {
      await Promise.all(Object.values(people).map((person) => person.close()));
    }
  }

  /** For each SFU node whether its addresses for media are of IPv6. */
  async function announced(): Promise<boolean[][]> {
    await weir.settled('sfu-node', 2);
    return (await weir.readySfuNodes()).map(({ status }) => (status?.addresses ?? []).map(isIPv6));
  }

  test('everything goes over IPv6 alone', async () => {
    await weir.install({
      network: { ipFamily: 'IPv6' },
      nats: { replicas: 3 },
      signal: { service: { type: 'NodePort' } },
    });
    assert.deepEqual(await announced(), [[true], [true]]);
    const services = await weir.list<{ spec: { ipFamilies: string[] } }>('services');
    assert.deepEqual([...new Set(services.flatMap(({ spec }) => spec.ipFamilies))], ['IPv6']);
    await weir.helm('test', 'weir', '--timeout', '2m');
    await call('six');
  });

  test('it can be on both, and clients take what they have', async () => {
    await weir.install({ network: { ipFamily: 'DualStack' } });
    for (const families of await announced()) assert.deepEqual(families.sort(), [false, true]);
    await weir.helm('test', 'weir', '--timeout', '2m');
    await call('both');
  });
});
