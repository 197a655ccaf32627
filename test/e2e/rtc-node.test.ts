import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { createToken, eventually, FarAway, Fleet, namespaceProblem, NetworkNamespace } from '#test/fleet/mod.ts';
import { Browser } from './browser.ts';
import { allReceive } from './receiving.ts';
import { RtcParticipant } from './rtc-participant.ts';

const skip = namespaceProblem();
suite('the rtc-node SDK, with nodes in a network namespace', { skip }, () => {
  let namespace: NetworkNamespace;
  let fleet: Fleet;

  before(async () => {
    namespace = await NetworkNamespace.create();
    const node = { address: namespace.address, wrapper: namespace.wrapper };
    fleet = await Fleet.start({
      address: namespace.hostAddress,
      nodes: [
        { name: 'ns-a', region: 'eu-west', ...node },
        { name: 'ns-b', region: 'us-east', ...node },
        { name: 'ns-c', region: 'ap-south', ...node },
      ],
    });
  });

  after(async () => {
    await fleet?.stop();
    await namespace?.close();
    await RtcParticipant.end();
  });

  const joinAt = async (url: string, room: string, identity: string, region?: string) => {
    const participant = new RtcParticipant();
    const attributes = region === undefined ? undefined : { 'weir.dev/region': region };
    const { apiKey, apiSecret } = fleet;
    await participant.connect(url, await createToken({ apiKey, apiSecret, room, identity, attributes }));
    return participant;
  };

  const join = (room: string, identity: string, node = 'ns-a') => joinAt(fleet.node(node).url, room, identity);

  test('hears, sees and exchanges data in a room over three nodes', async () => {
    const ada = await join('native', 'ada');
    const bob = await join('native', 'bob', 'ns-b');
    const cyd = await join('native', 'cyd', 'ns-c');
    await ada.publishVideo();
    await ada.publishAudio();
    await bob.publishAudio();
    for (const [name, who] of Object.entries({ bob, cyd })) {
      await eventually(() => who.videoFrames > 20, { timeoutMs: 20_000, what: `video at ${name}` });
    }
    for (const [name, who] of Object.entries({ ada, bob, cyd })) {
      await eventually(() => who.audioEnergy > 1e9, { timeoutMs: 20_000, what: `audio at ${name}` });
    }
    const { status } = await fleet.kubectl.json<{ status: { nodes: string } }>('get', 'room', 'native');
    assert.deepEqual(status.nodes.split(',').sort(), ['ns-a', 'ns-b', 'ns-c']);
    const text = new TextEncoder();
    await ada.room.localParticipant!.publishData(text.encode('hello'), { reliable: true });
    await bob.room.localParticipant!.publishData(text.encode('hello back'), {
      reliable: true,
      destination_identities: ['ada'],
    });
    await eventually(() => bob.data.includes('ada: hello') && ada.data.includes('bob: hello back'), {
      what: 'data both ways',
    });
    await Promise.all([ada.close(), bob.close(), cyd.close()]);
  });

  test('shares a call with a browser', async () => {
    const browser = await Browser.launch();
    try {
      const ada = await join('mixed', 'ada');
      await ada.publishVideo();
      await ada.publishAudio();
      const bob = await browser.participant();
      const token = await createToken({
        apiKey: fleet.apiKey,
        apiSecret: fleet.apiSecret,
        room: 'mixed',
        identity: 'bob',
      });
      await bob.connect(fleet.node('ns-b').url, token);
      await bob.publish({ camera: true, microphone: true });
      await eventually(async () => (await bob.received('ada', 'camera')).framesDecoded > 20, {
        timeoutMs: 20_000,
        what: 'video at the browser',
      });
      await eventually(async () => (await bob.received('ada', 'microphone')).totalAudioEnergy > 0, {
        timeoutMs: 20_000,
        what: 'audio at the browser',
      });
      await eventually(() => ada.videoFrames > 20 && ada.audioEnergy > 0, {
        timeoutMs: 30_000,
        what: 'the browser at rtc-node',
      });
      await ada.close();
      await eventually(async () => (await bob.view()).remotes.length === 0, { what: 'leave' });
    } finally {
      await browser.close();
    }
  });

  test('comes back from far away when its room moves, and publishes again', { timeout: 120_000 }, async () => {
    const { hostname, port } = new URL(fleet.node('ns-b').url);
    const far = await FarAway.start({ host: hostname, port: Number(port) }, 100);
    try {
      const ada = await joinAt(far.url, 'moved', 'ada', 'eu-west');
      const bob = await joinAt(far.url, 'moved', 'bob', 'eu-west');
      await ada.publishAudio();
      await bob.publishAudio();
      await allReceive({ ada, bob }, ['ada', 'bob']);
      await fleet.drain('ns-a', true);
      const nodes = async () => {
        const { status } = await fleet.kubectl.json<{ status: { nodes: string } }>('get', 'room', 'moved');
        return status.nodes;
      };
      await eventually(async () => !(await nodes()).includes('ns-a'), { what: 'the room to leave ns-a' });
      await allReceive({ ada, bob }, ['ada', 'bob']);
      await fleet.drain('ns-a', false);
      await Promise.all([ada.close(), bob.close()]);
    } finally {
      await far.close();
    }
  });
});
