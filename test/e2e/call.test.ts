import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { eventually, type Fleet, type FleetNode } from '#test/fleet/mod.ts';
import { TcpProxy } from '#test/integration/tcp-proxy.ts';
import type { BrowserParticipant } from './browser.ts';
import { closeAll, nodeOf, Party, plays, stops } from './party.ts';

/** A fleet of three real nodes, real Chromium, the unmodified SDK: what people do in a call. */
let party: Party;
let fleet: Fleet;

before(async () => {
  party = await Party.start('call', {
    nodes: [
      { name: 'sfu-a', region: 'eu-west' },
      { name: 'sfu-b', region: 'eu-west' },
      { name: 'sfu-c', region: 'eu-west' },
    ],
  });
  ({ fleet } = party);
});

after(() => party?.close());

const newRoom = () => party.newRoom();
const token: Party['token'] = (...args) => party.token(...args);
const join: Party['join'] = (...args) => party.join(...args);

/** Process ids of a node's media workers. */
async function workersOf(node: FleetNode): Promise<number[]> {
  const { stdout } = await promisify(execFile)('pgrep', ['-P', String(node.pid), '-f', 'mediasoup-worker']);
  return stdout.trim().split('\n').map(Number);
}

test('a Room applied with kubectl becomes a call: two people see and hear each other', async () => {
  await fleet.kubectl.run('apply', '-f', 'examples/room.yaml');
  await fleet.roomReady('standup');
  const [ada, bob] = await Promise.all([join('standup', 'ada'), join('standup', 'bob')]);
  await Promise.all([ada.publish({ camera: true, microphone: true }), bob.publish({ camera: true, microphone: true })]);
  await plays(ada, 'bob', 'camera');
  await plays(ada, 'bob', 'microphone');
  await plays(bob, 'ada', 'camera');
  await plays(bob, 'ada', 'microphone');
  assert.match((await ada.view()).metadata, /Daily stand-up/);
  assert.equal((await ada.view()).serverRegion, 'eu-west', 'the region that the Room asks for');
  await closeAll(ada, bob);
});

test('a client that joins through another node gets the call, relayed over NATS', async () => {
  const room = newRoom();
  const publisher = await join(room, 'ada');
  await publisher.publish({ camera: true });
  const serving = await nodeOf(publisher);
  const others = fleet.nodes.filter(({ name }) => name !== serving);
  assert.equal(others.length, 2);
  for (const [index, node] of others.entries()) {
    const subscriber = await join(room, `sub-${index}`, { node });
    assert.equal(await nodeOf(subscriber), serving, 'the room stays on one node');
    await plays(subscriber, 'ada', 'camera');
    await subscriber.close();
  }
  await closeAll(publisher);
});

test('track settings choose the simulcast layer, and disabling a track disturbs nobody else', async () => {
  const room = newRoom();
  const publisher = await join(room, 'ada');
  await publisher.publish({ camera: true });
  const [low, other] = [await join(room, 'low'), await join(room, 'other')];
  await plays(low, 'ada', 'camera');
  await plays(other, 'ada', 'camera');
  await low.setQuality('ada', 'camera', 'HIGH');
  await eventually(async () => (await low.received('ada', 'camera')).frameWidth === 640, {
    timeoutMs: 90_000,
    what: 'the top layer',
  });
  await low.setQuality('ada', 'camera', 'LOW');
  await eventually(async () => (await low.received('ada', 'camera')).frameWidth === 320, {
    timeoutMs: 20_000,
    what: 'the low layer',
  });
  await low.setEnabled('ada', 'camera', false);
  await stops(low, 'ada', 'camera');
  await plays(other, 'ada', 'camera');
  await closeAll(publisher, low, other);
});

test('data goes both ways, reliable and lossy, to all or to one', async () => {
  const room = newRoom();
  const [ada, bob, eve] = [await join(room, 'ada'), await join(room, 'bob'), await join(room, 'eve')];
  const texts = async (who: BrowserParticipant, kind: string) =>
    (await who.view()).data.filter((packet) => packet.kind === kind).map(({ from, text }) => `${from}: ${text}`);
  for (let index = 0; index < 20; index += 1) await ada.send(`${index}`, { reliable: true });
  await bob.send('only eve', { reliable: true, to: ['eve'] });
  const wanted = Array.from({ length: 20 }, (_, index) => `ada: ${index}`);
  await eventually(async () => (await texts(eve, 'RELIABLE')).length === 21, { what: 'reliable data at eve' });
  await eventually(async () => (await texts(bob, 'RELIABLE')).length === 20, { what: 'reliable data at bob' });
  assert.deepEqual(await texts(bob, 'RELIABLE'), wanted, 'in order');
  assert.deepEqual(
    (await texts(eve, 'RELIABLE')).filter((text) => text.startsWith('bob')),
    ['bob: only eve'],
  );
  assert.deepEqual(await texts(ada, 'RELIABLE'), [], 'nothing comes back to the sender, nor what is for another');
  // Lossy may lose: sent until one arrives.
  await eventually(
    async () => {
      await bob.send('maybe', { reliable: false });
      return (await texts(ada, 'LOSSY')).includes('bob: maybe');
    },
    { what: 'lossy data' },
  );
  await closeAll(ada, bob, eve);
});

test('mute, unmute, unpublish, unsubscribe and leave are seen by the others', async () => {
  const room = newRoom();
  const [ada, bob] = [await join(room, 'ada'), await join(room, 'bob')];
  await ada.publish({ camera: true, microphone: true });
  await plays(bob, 'ada', 'camera');
  const muted = async () => (await bob.view()).remotes[0]?.tracks.find(({ source }) => source === 'camera')?.muted;
  await ada.setCamera(false);
  await eventually(async () => (await muted()) === true, { what: 'mute' });
  await ada.setCamera(true);
  await eventually(async () => (await muted()) === false, { what: 'unmute' });
  await plays(bob, 'ada', 'camera');

  const subscribed = async () =>
    (await bob.view()).remotes[0]?.tracks.find(({ source }) => source === 'camera')?.subscribed;
  await bob.setSubscribed('ada', 'camera', false);
  await eventually(async () => (await subscribed()) === false, { what: 'unsubscribe' });
  await plays(bob, 'ada', 'microphone');
  await bob.setSubscribed('ada', 'camera', true);
  await plays(bob, 'ada', 'camera');

  await ada.unpublish('camera');
  await eventually(async () => (await bob.view()).remotes[0]?.tracks.every(({ source }) => source !== 'camera'), {
    what: 'unpublish',
  });
  await plays(bob, 'ada', 'microphone');
  await ada.leave();
  await eventually(async () => (await bob.view()).remotes.length === 0, { what: 'leave' });
  // And in again, under the same name.
  await ada.connect(fleet.node('sfu-a').url, await token(room, 'ada'));
  await ada.publish({ camera: true });
  await plays(bob, 'ada', 'camera');
  await closeAll(ada, bob);
});

for (const videoCodec of ['h264', 'vp9', 'av1'] as const) {
  test(`video in ${videoCodec} is published and decoded`, async () => {
    const room = newRoom();
    const [ada, bob] = [await join(room, 'ada'), await join(room, 'bob')];
    await ada.publish({ camera: true, videoCodec, simulcast: false });
    await plays(bob, 'ada', 'camera');
    await closeAll(ada, bob);
  });
}

test('the same identity joining again replaces the first', async () => {
  const room = newRoom();
  const first = await join(room, 'ada');
  const second = await join(room, 'ada');
  await eventually(async () => (await first.view()).disconnectReason === 'DUPLICATE_IDENTITY', {
    what: 'the first to leave',
  });
  assert.equal((await second.view()).state, 'connected');
  await closeAll(first, second);
});

test('a token without the grant, for another room, expired or badly signed is refused with a reason', async () => {
  const room = newRoom();
  const cases: [string, string][] = [
    ['expired', await token(room, 'x', { expiresIn: -120 })],
    ['badly signed', await token(room, 'x', { apiSecret: 'another-secret-that-is-not-the-key-at-all' })],
    ['without the join grant', await token(room, 'x', { grant: { roomJoin: false } })],
  ];
  const participant = await party.browser.participant();
  for (const [name, bad] of cases) {
    await assert.rejects(
      participant.connect(fleet.node('sfu-a').url, bad),
      /token|grant|signature|expired|allow/i,
      name,
    );
  }
  await participant.close();
});

test('a publish beyond the grant is refused, and the participant stays', async () => {
  const room = newRoom();
  const listener = await join(room, 'ada', { more: { grant: { canPublish: false } } });
  await assert.rejects(listener.publish({ microphone: true }), /permission|allow/i);
  assert.equal((await listener.view()).state, 'connected');
  await closeAll(listener);
});

test('a client whose signalling is cut resumes, its media going on, and nobody sees it leave', async () => {
  const room = newRoom();
  const node = fleet.node('sfu-a');
  const proxy = await TcpProxy.start(`http://${node.signal}`);
  try {
    const bob = await join(room, 'bob');
    const ada = await party.browser.participant();
    await ada.connect(`ws://127.0.0.1:${proxy.port}`, await token(room, 'ada'));
    await ada.publish({ camera: true });
    await plays(bob, 'ada', 'camera');
    const { sid } = await ada.view();
    proxy.cut();
    await eventually(async () => (await ada.view()).events.includes('reconnected'), {
      timeoutMs: 20_000,
      what: 'the resume',
    });
    await plays(bob, 'ada', 'camera');
    assert.equal((await ada.view()).sid, sid, 'the same session, not a new join');
    assert.equal((await ada.view()).events.includes('reconnecting'), false, 'no full reconnect');
    assert.equal((await bob.view()).events.includes('participantDisconnected'), false);
    // Signalling works again: what is published now is seen.
    await ada.publish({ microphone: true });
    await plays(bob, 'ada', 'microphone');
    await closeAll(ada, bob);
  } finally {
    await proxy.close();
  }
});

test('a worker that dies is replaced, and its clients come back', async () => {
  const room = newRoom();
  const [ada, bob] = [await join(room, 'ada'), await join(room, 'bob')];
  await ada.publish({ camera: true });
  await plays(bob, 'ada', 'camera');
  const serving = fleet.node(await nodeOf(bob));
  const [pid] = await workersOf(serving);
  assert.ok(pid, 'the node has a worker');
  process.kill(pid, 'SIGKILL');
  await eventually(async () => (await bob.view()).events.includes('reconnected'), {
    timeoutMs: 30_000,
    what: 'the client to come back',
  });
  await plays(bob, 'ada', 'camera');
  assert.ok(serving.process.running, 'the node stays up');
  await closeAll(ada, bob);
});

test('a node that is killed loses its rooms to others, and the call comes back', { timeout: 120_000 }, async () => {
  const room = newRoom();
  const first = await join(room, 'first');
  const serving = fleet.node(await nodeOf(first));
  // Clients know the fleet's one address; here that of a node that survives stands in for it.
  const entry = fleet.nodes.find(({ name }) => name !== serving.name);
  assert.ok(entry);
  const [eve, dan] = [await join(room, 'eve', { node: entry }), await join(room, 'dan', { node: entry })];
  await eve.publish({ camera: true, microphone: true });
  await plays(dan, 'eve', 'camera');
  await fleet.kill(serving);
  const reconnected = async (who: BrowserParticipant) => (await who.view()).events.includes('reconnected');
  await eventually(async () => (await reconnected(eve)) && (await reconnected(dan)), {
    timeoutMs: 30_000,
    what: 'the clients to come back',
  });
  await plays(dan, 'eve', 'camera');
  await plays(dan, 'eve', 'microphone');
  const { status } = await fleet.kubectl.json<{ status: { primaryNode: string; epoch: number } }>('get', 'room', room);
  assert.notEqual(status.primaryNode, serving.name);
  assert.ok(status.epoch > 1, 'at the next epoch');
  await closeAll(first, eve, dan);
  await fleet.restart(serving);
});
