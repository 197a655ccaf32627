import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { eventually, type Fleet } from '#test/fleet/mod.ts';
import type { BrowserParticipant } from './browser.ts';
import { closeAll, nodeOf, Party, plays, stops } from './party.ts';

/** Three real nodes in three regions: one call over all of them. */
let party: Party;
let fleet: Fleet;

before(async () => {
  party = await Party.start('span', {
    nodes: [
      { name: 'sfu-a', region: 'eu-west' },
      { name: 'sfu-b', region: 'us-east' },
      { name: 'sfu-c', region: 'ap-south' },
    ],
  });
  ({ fleet } = party);
});

after(() => party?.close());

interface RoomStatus {
  epoch: number;
  nodes: string;
  placement: { node: string; role: string }[];
  topology?: { kind: string; reason: string };
  links?: { from: string; to: string; state: string }[];
}

async function statusOf(room: string): Promise<RoomStatus> {
  return (await fleet.kubectl.json<{ status: RoomStatus }>('get', 'room', room)).status;
}

/** A participant at each of the three nodes. */
async function three(room: string): Promise<[BrowserParticipant, BrowserParticipant, BrowserParticipant]> {
  const ada = await party.join(room, 'ada', { node: fleet.node('sfu-a') });
  const bob = await party.join(room, 'bob', { node: fleet.node('sfu-b') });
  const cyd = await party.join(room, 'cyd', { node: fleet.node('sfu-c') });
  assert.deepEqual([await nodeOf(ada), await nodeOf(bob), await nodeOf(cyd)], ['sfu-a', 'sfu-b', 'sfu-c']);
  return [ada, bob, cyd];
}

/** What the node says of its metric, summed over its labels. */
async function metric(node: string, name: string): Promise<number> {
  const text = await (await fetch(`http://${fleet.node(node).http}/metrics`)).text();
  const lines = text.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

test('everybody in a room over three regions sees and hears everybody else', { timeout: 180_000 }, async () => {
  const room = party.newRoom();
  const people = await three(room);
  const names = ['ada', 'bob', 'cyd'];
  await Promise.all(people.map((person) => person.publish({ camera: true, microphone: true })));
  for (const [index, person] of people.entries()) {
    for (const name of names.filter((_, other) => other !== index)) {
      await plays(person, name, 'camera');
      await plays(person, name, 'microphone');
    }
  }
  const links = await eventually(
    async () => {
      const status = await statusOf(room);
      return status.links?.length === 3 && status.links.every(({ state }) => state === 'Up') ? status : undefined;
    },
    { timeoutMs: 20_000, what: 'three links that are up' },
  );
  assert.equal(links.topology?.kind, 'Mesh');
  await closeAll(...people);
});

test('who speaks is seen on every node, for as long as it lasts', async () => {
  const room = party.newRoom();
  const people = await three(room);
  await people[0].publish({ voice: true });
  for (const who of people) {
    await eventually(async () => (await who.view()).speakers.includes('ada'), { what: 'ada to be seen speaking' });
  }
  await people[0].unpublish('microphone');
  for (const who of people) {
    await eventually(async () => !(await who.view()).speakers.includes('ada'), { what: 'ada to be silent' });
  }
  await closeAll(...people);
});

test('who is there, what they say of themselves and what they mute is the same on every node', async () => {
  const room = party.newRoom();
  const [ada, bob, cyd] = await three(room);
  await ada.publish({ camera: true });
  await plays(bob, 'ada', 'camera');
  const seen = async (by: BrowserParticipant) => (await by.view()).remotes.find(({ identity }) => identity === 'ada');
  const muted = async (by: BrowserParticipant) =>
    (await seen(by))?.tracks.find(({ source }) => source === 'camera')?.muted;
  await ada.setCamera(false);
  for (const other of [bob, cyd]) await eventually(async () => (await muted(other)) === true, { what: 'mute' });
  await ada.setCamera(true);
  for (const other of [bob, cyd]) await plays(other, 'ada', 'camera');
  await ada.publish({ screen: true });
  await plays(cyd, 'ada', 'screen_share');
  await ada.unpublish('camera');
  for (const other of [bob, cyd]) {
    await eventually(async () => (await seen(other))?.tracks.every(({ source }) => source !== 'camera'), {
      what: 'unpublish',
    });
  }
  await ada.leave();
  for (const other of [bob, cyd]) await eventually(async () => !(await seen(other)), { what: 'ada to be gone' });
  await ada.connect(fleet.node('sfu-a').url, await party.token(room, 'ada'));
  await ada.publish({ camera: true });
  for (const other of [bob, cyd]) await plays(other, 'ada', 'camera');
  await closeAll(ada, bob, cyd);
});

test('data crosses nodes: reliable in order, to all or to one, and lossy', async () => {
  const room = party.newRoom();
  const [ada, bob, cyd] = await three(room);
  const texts = async (who: BrowserParticipant, kind: string) =>
    (await who.view()).data.filter((packet) => packet.kind === kind).map(({ from, text }) => `${from}: ${text}`);
  // The room's feed has told everybody of everybody.
  for (const who of [ada, bob, cyd]) {
    await eventually(async () => (await who.view()).remotes.length === 2, { what: 'all to be known' });
  }
  for (let index = 0; index < 20; index += 1) await ada.send(`${index}`, { reliable: true });
  await bob.send('only cyd', { reliable: true, to: ['cyd'] });
  const wanted = Array.from({ length: 20 }, (_, index) => `ada: ${index}`);
  await eventually(async () => (await texts(cyd, 'RELIABLE')).length === 21, { what: 'reliable data at cyd' });
  await eventually(async () => (await texts(bob, 'RELIABLE')).length === 20, { what: 'reliable data at bob' });
  assert.deepEqual(await texts(bob, 'RELIABLE'), wanted, 'in order');
  assert.deepEqual(await texts(ada, 'RELIABLE'), []);
  await eventually(
    async () => {
      await bob.send('maybe', { reliable: false });
      return (await texts(ada, 'LOSSY')).includes('bob: maybe');
    },
    { what: 'lossy data' },
  );
  await closeAll(ada, bob, cyd);
});

test('the same identity that joins on another node replaces the first', async () => {
  const room = party.newRoom();
  const first = await party.join(room, 'ada', { node: fleet.node('sfu-a') });
  const bob = await party.join(room, 'bob', { node: fleet.node('sfu-c') });
  const second = await party.join(room, 'ada', { node: fleet.node('sfu-b') });
  await eventually(async () => (await first.view()).disconnectReason === 'DUPLICATE_IDENTITY', {
    what: 'the first to leave',
  });
  const { sid } = await second.view();
  await eventually(
    async () => {
      const { remotes } = await bob.view();
      return remotes.length === 1 && remotes[0]?.sid === sid;
    },
    { what: 'bob to see the second alone' },
  );
  await closeAll(first, second, bob);
});

test(
  'only what somebody shows crosses a link, and a layer that nobody shows is not even uploaded',
  { timeout: 180_000 },
  async () => {
    const room = party.newRoom();
    const ada = await party.join(room, 'ada', { node: fleet.node('sfu-a'), dynacast: true });
    const bob = await party.join(room, 'bob', { node: fleet.node('sfu-b') });
    await ada.publish({ camera: true });
    await plays(bob, 'ada', 'camera');
    await eventually(async () => (await bob.received('ada', 'camera')).frameWidth === 640, {
      timeoutMs: 90_000,
      what: 'the top layer',
    });
    await bob.setQuality('ada', 'camera', 'LOW');
    await eventually(async () => (await bob.received('ada', 'camera')).frameWidth === 320, {
      timeoutMs: 20_000,
      what: 'the low layer',
    });
    const active = async () => (await ada.sending('camera')).filter((layer) => layer.active).length;
    await eventually(async () => (await active()) === 1, { timeoutMs: 20_000, what: 'one layer to be uploaded' });
    await plays(bob, 'ada', 'camera');
    await bob.setEnabled('ada', 'camera', false);
    await stops(bob, 'ada', 'camera');
    await eventually(async () => (await active()) === 0, { timeoutMs: 20_000, what: 'nothing to be uploaded' });
    // Back, and up again.
    await bob.setEnabled('ada', 'camera', true);
    await bob.setQuality('ada', 'camera', 'HIGH');
    await plays(bob, 'ada', 'camera');
    await eventually(async () => (await bob.received('ada', 'camera')).frameWidth === 640, {
      timeoutMs: 90_000,
      what: 'the top layer again',
    });
    await closeAll(ada, bob);
  },
);

test('who subscribes to sound alone gets no picture, and none is sent for that one', { timeout: 180_000 }, async () => {
  const room = party.newRoom();
  const ada = await party.join(room, 'ada', { node: fleet.node('sfu-a'), dynacast: true });
  await ada.publish({ camera: true, microphone: true });
  const bob = await party.join(room, 'bob', { node: fleet.node('sfu-b'), autoSubscribe: false });
  const published = async () => (await bob.view()).remotes[0]?.tracks.length === 2;
  await eventually(published, { what: 'both tracks to be known' });
  await bob.setSubscribed('ada', 'microphone', true);
  await plays(bob, 'ada', 'microphone');
  assert.equal((await bob.received('ada', 'camera')).packetsReceived, 0);
  await eventually(async () => (await ada.sending('camera')).every(({ active }) => !active), {
    timeoutMs: 20_000,
    what: 'no picture to be uploaded',
  });
  await bob.setSubscribed('ada', 'camera', true);
  await plays(bob, 'ada', 'camera');
  await closeAll(ada, bob);
});

for (const videoCodec of ['h264', 'vp9', 'av1'] as const) {
  test(`video in ${videoCodec}, in all the layers that the browser makes, crosses a link`, async () => {
    const room = party.newRoom();
    const ada = await party.join(room, 'ada', { node: fleet.node('sfu-a') });
    const bob = await party.join(room, 'bob', { node: fleet.node('sfu-b') });
    await ada.publish({ camera: true, videoCodec });
    await plays(bob, 'ada', 'camera');
    await closeAll(ada, bob);
  });
}

test('a hub passes on what its neighbours publish: three nodes in a line', { timeout: 180_000 }, async () => {
  const room = party.newRoom();
  await party.apply({ name: room, spec: { topology: 'HubAndSpoke' } });
  const [ada, bob, cyd] = await three(room);
  const { placement, topology, links = [] } = await statusOf(room);
  assert.equal(topology?.kind, 'HubAndSpoke');
  assert.equal(links.length, 2, 'a line has two links');
  const hub = placement.find(({ role }) => role === 'Hub')?.node;
  const ends = [ada, bob, cyd].filter((_, index) => ['sfu-a', 'sfu-b', 'sfu-c'][index] !== hub);
  const [from, to] = ends;
  assert.ok(hub && from && to);
  await from.publish({ camera: true, microphone: true });
  const { identity } = (await to.view()).remotes.find(({ sid }) => sid !== '') ?? { identity: '' };
  assert.notEqual(identity, '');
  const publisher = from === ada ? 'ada' : 'bob';
  await plays(to, publisher, 'camera');
  await plays(to, publisher, 'microphone');
  await closeAll(ada, bob, cyd);
});

test(
  'a node that is killed takes only its own participants out, and they come back elsewhere',
  { timeout: 180_000 },
  async () => {
    const room = party.newRoom();
    const [ada, bob, cyd] = await three(room);
    await Promise.all([ada, bob, cyd].map((person) => person.publish({ camera: true })));
    await plays(bob, 'ada', 'camera');
    await plays(cyd, 'bob', 'camera');
    await fleet.kill(fleet.node('sfu-c'));
    await eventually(async () => !(await statusOf(room)).nodes.includes('sfu-c'), {
      timeoutMs: 30_000,
      what: 'the placement without the dead node',
    });
    await plays(bob, 'ada', 'camera');
    await plays(ada, 'bob', 'camera');
    for (const who of [ada, bob]) {
      assert.equal((await who.view()).events.includes('reconnecting'), false, 'nobody else is disturbed');
    }
    await closeAll(ada, bob, cyd);
    await fleet.restart(fleet.node('sfu-c'));
    assert.equal(await metric('sfu-c', 'sfu_rooms'), 0, 'a node that starts again has no room and no link of before');
  },
);
