import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { BrowserParticipant } from '#test/e2e/browser.ts';
import { allReceive } from '#test/e2e/receiving.ts';
import { RtcParticipant } from '#test/e2e/rtc-participant.ts';
import { clusterProblem } from '#tools/cluster/problem.ts';
import { eventually } from '#tools/local/eventually.ts';
import { WeirCluster, type Pod } from './weir-cluster.ts';

describe('calls in a cluster', { skip: clusterProblem(), timeout: 590_000 }, () => {
  let weir: WeirCluster;
  /** Where clients connect to. Its SFU node serves the region us-east, in which no call is but the first. */
  let url: string;
  const open = new Set<BrowserParticipant | RtcParticipant>();

  before(async () => {
    // A Node counts as lost early, as this is waited for.
    weir = await WeirCluster.start({ nodeGraceSeconds: 12 });
    const inRegion = (region: string) => ({ nodeSelector: { 'topology.kubernetes.io/region': region } });
    await weir.install({
      signal: { service: { type: 'NodePort' } },
      nats: { replicas: 3 },
      sfuNode: {
        resources: { requests: { cpu: '50m', memory: '64Mi' } },
        autoscaling: { targetStreams: 12, scaleDownStabilizationSeconds: 0 },
      },
      pools: {
        eu: { ...inRegion('eu-west'), autoscaling: { minReplicas: 2, maxReplicas: 3 } },
        us: { ...inRegion('us-east'), autoscaling: { minReplicas: 1, maxReplicas: 1 } },
      },
    });
    url = await weir.signalUrl('us-1');
  });

  afterEach(() => leave(...open));

  after(async () => {
    await weir?.stop();
    await RtcParticipant.end();
  });

  /** Somebody who shows a camera. */
  async function inBrowser(room: string, identity: string, region: string): Promise<BrowserParticipant> {
    const participant = await BrowserParticipant.alone();
    open.add(participant);
    await participant.connect(url, await weir.token(room, identity, region));
    await participant.publish({ camera: true });
    return participant;
  }

  /** A program on rtc-node that makes a sound. */
  async function onServer(room: string, identity: string, region: string): Promise<RtcParticipant> {
    const participant = new RtcParticipant({ watches: false });
    open.add(participant);
    await participant.connect(url, await weir.token(room, identity, region));
    await participant.publishAudio();
    return participant;
  }

  async function leave(...participants: (BrowserParticipant | RtcParticipant)[]): Promise<void> {
    for (const participant of participants) open.delete(participant);
    await Promise.all(participants.map((participant) => participant.close()));
  }

  /** A call in eu-west: two windows of Chromium that see, and two programs that hear each other. */
  async function call(room: string) {
    const [ada, bob] = await Promise.all(['ada', 'bob'].map((name) => inBrowser(room, name, 'eu-west')));
    const servers = { cyd: await onServer(room, 'cyd', 'eu-west'), dan: await onServer(room, 'dan', 'eu-west') };
    const browsers = { ada: ada!, bob: bob! };
    const goesOn = async () => {
      await allReceive(browsers, ['ada', 'bob']);
      await allReceive(servers, ['cyd', 'dan']);
    };
    await goesOn();
    return { ada: browsers.ada, goesOn };
  }

  /** The pod of the node that serves a room. */
  async function podOf(room: string): Promise<Pod> {
    const serving = await weir.servingNodes(room);
    const pod = (await weir.pods('sfu-node')).find(({ metadata }) => serving.includes(metadata.name));
    assert.ok(pod, `no pod serves ${room}: ${serving.join()}`);
    return pod;
  }

  async function nodesIn(region: string): Promise<string[]> {
    const nodes = (await weir.readySfuNodes()).filter(({ spec }) => spec?.region === region);
    return nodes.map(({ metadata }) => metadata?.name ?? '');
  }

  /** Waits until a room has left a node. */
  async function hasLeft(room: string, node: string): Promise<void> {
    const isGone = async () => {
      const serving = await weir.servingNodes(room);
      return serving.length > 0 && !serving.includes(node);
    };
    await eventually(isGone, { timeoutMs: 60_000, intervalMs: 250, what: `${room} to leave ${node}` });
  }

  test('people in two regions meet, from Chromium and from a server', async () => {
    const ada = await inBrowser('abroad', 'ada', 'eu-west');
    const cyd = await inBrowser('abroad', 'cyd', 'us-east');
    const bot = await onServer('abroad', 'bot', 'us-east');
    const dan = await onServer('abroad', 'dan', 'eu-west');
    await allReceive({ ada, cyd }, ['ada', 'cyd']);
    await allReceive({ bot, dan }, ['bot', 'dan']);
    const serving = await weir.servingNodes('abroad');
    const regions = (await weir.sfuNodes())
      .filter(({ metadata }) => serving.includes(metadata?.name ?? ''))
      .map(({ spec }) => spec?.region);
    assert.deepEqual(regions.sort(), ['eu-west', 'us-east']);
  });

  test('the fleet grows with streams and shrinks again, and calls go on', async () => {
    // A call on every node, whichever will go.
    const first = await nodesIn('eu-west');
    assert.equal(first.length, 2);
    await weir.applyRoomOn(first[0]!, 'small');
    await weir.applyRoomOn(first[1]!, 'crowd');
    const small = await call('small');
    const crowd: RtcParticipant[] = [];
    for (const name of ['c1', 'c2', 'c3', 'c4']) crowd.push(await onServer('crowd', name, 'eu-west'));
    // Two in eu-west and one in us-east at first.
    await weir.settled('sfu-node', 4);
    const grown = await nodesIn('eu-west');
    await weir.applyRoomOn(
      grown.find((node) => !first.includes(node))!,
      'late',
    );
    const late = [await onServer('late', 'e', 'eu-west'), await onServer('late', 'f', 'eu-west')] as const;
    await allReceive({ e: late[0], f: late[1] }, ['e', 'f']);
    const rooms = ['small', 'crowd', 'late'];
    const before = await Promise.all(rooms.map((room) => weir.servingNodes(room)));
    assert.equal(new Set(before.flat()).size, 3, `each on a node of its own: ${before.join(' ')}`);
    await leave(...crowd.splice(2));
    const left = (await weir.settled('sfu-node', 3)).map(({ metadata }) => metadata.name);
    const after = await Promise.all(rooms.map((room) => weir.servingNodes(room)));
    assert.ok(after.flat().every((node) => left.includes(node)));
    await small.goesOn();
    await allReceive({ c1: crowd[0]!, c2: crowd[1]! }, ['c1', 'c2']);
    await allReceive({ e: late[0], f: late[1] }, ['e', 'f']);
  });

  test('a Node that kubectl drains lets its calls go first', async () => {
    const { ada, goesOn } = await call('drained');
    const pod = await podOf('drained');
    const node = pod.spec.nodeName ?? '';
    await weir.kubectl('drain', node, '--ignore-daemonsets', '--delete-emptydir-data', '--timeout=80s');
    await hasLeft('drained', pod.metadata.name);
    assert.deepEqual(
      (await weir.pods('sfu-node')).filter(({ spec }) => spec.nodeName === node),
      [],
    );
    await goesOn();
    assert.ok((await ada.view()).events.includes('reconnected'));
    await weir.kubectl('uncordon', node);
    await weir.settled('sfu-node', 3);
  });

  test('a machine that is reclaimed at short notice lets its calls go first', async () => {
    const { goesOn } = await call('reclaimed');
    const { metadata } = await podOf('reclaimed');
    // What a spot instance leaves a pod of its 30 s.
    await weir.kubectl('delete', 'pod', metadata.name, '--grace-period=25', '--wait=false');
    await hasLeft('reclaimed', metadata.name);
    await goesOn();
    await weir.settled('sfu-node', 3);
  });

  test('calls go on while every pod is replaced by a new version', async () => {
    const { goesOn } = await call('upgraded');
    const counts = { 'sfu-node': 3, operator: 2, nats: 3 } as const;
    const components = Object.keys(counts) as (keyof typeof counts)[];
    const before = new Set((await Promise.all(components.map((name) => weir.pods(name)))).flat().map(uidOf));
    const podAnnotations = { version: 'next' };
    await weir.install({ sfuNode: { podAnnotations }, operator: { podAnnotations }, nats: { podAnnotations } });
    for (const name of components) {
      for (const pod of await weir.settled(name, counts[name])) assert.ok(!before.has(uidOf(pod)), pod.metadata.name);
    }
    await goesOn();
    // Those that are gone are not counted as lost.
    for (const { status } of await weir.pods('operator')) {
      const isForgotten = async () => {
        const text = await (await fetch(`http://${status.podIP}:8081/metrics`)).text();
        return /^weir_nodes\{ready="false"\} 0$/m.test(text) && /^weir_nodes\{ready="true"\} 3$/m.test(text);
      };
      await eventually(isForgotten, { timeoutMs: 20_000, what: 'the operator to count three nodes and none lost' });
    }
  });

  test('calls go on while operators and NATS are gone, and new ones begin when they are back', async () => {
    const { goesOn } = await call('headless');
    await weir.kubectl('delete', 'pods', '-l', 'app.kubernetes.io/component in (operator, nats)', '--wait=false');
    await goesOn();
    await weir.settled('nats', 3);
    await weir.settled('operator', 2);
    await goesOn();
    await weir.applyRoom('fresh');
  });

  test('the calls of a Node that is cut off go on elsewhere, and stay there when it is back', async () => {
    // In by a pod that is alive, as with a load balancer that looks: kube-proxy goes on sending connections to a dead pod
    // until its Node counts as lost, and some SDKs wait for minutes for one of these.
    await weir.install({ signal: { service: { externalTrafficPolicy: 'Local' } } });
    const { goesOn } = await call('cut');
    const pod = await podOf('cut');
    const node = weir.cluster.node(pod.spec.nodeName ?? '');
    await weir.cluster.cut(node);
    try {
      await hasLeft('cut', pod.metadata.name);
      await goesOn();
    } finally {
      await weir.cluster.heal(node);
    }
    await eventually(() => weir.cluster.isReady(node), { timeoutMs: 90_000, what: `${node.name} to be Ready again` });
    // The autoscaler may have another pod by now, and take this one away.
    const isBack = async () => {
      const pods = await weir.pods('sfu-node');
      if (!pods.some(({ metadata }) => metadata.name === pod.metadata.name)) return true;
      return (await weir.readySfuNodes()).some(({ metadata }) => metadata?.name === pod.metadata.name);
    };
    await eventually(isBack, { timeoutMs: 60_000, what: `${pod.metadata.name} to be heard again, or gone` });
    await goesOn();
    assert.ok(!(await weir.servingNodes('cut')).includes(pod.metadata.name));
  });
});

function uidOf({ metadata }: Pod): string {
  return metadata.uid;
}
