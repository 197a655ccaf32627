import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { eventually, ImpairedLinks, loopbackPair, type LinkedNode } from '#test/fleet/mod.ts';
import type { BrowserParticipant } from './browser.ts';
import { closeAll, Party, plays } from './party.ts';

/** One call over three regions, with bad networks between the nodes. */
const regions: Record<string, string> = { 'sfu-a': 'eu-west', 'sfu-b': 'us-east', 'sfu-c': 'ap-south' };
const ports = { min: 20_000, max: 20_031 };
const nodes: LinkedNode[] = Object.keys(regions).map((name) => ({ name, ports, ...loopbackPair() }));

let party: Party;
let links: ImpairedLinks;

before(async () => {
  links = await ImpairedLinks.start({ seed: 4, nodes });
  party = await Party.start('bad', {
    nodes: nodes.map(({ name, real, announced }) => ({
      name,
      region: regions[name]!,
      env: {
        WEIR_CASCADE_LISTEN_IP: real,
        WEIR_CASCADE_ANNOUNCED_ADDRESS: announced,
        WEIR_CASCADE_PORTS: `${ports.min}-${ports.max}`,
      },
    })),
  });
});

after(async () => {
  await party?.close();
  await links?.close();
});

afterEach(() => {
  for (const [index, { name }] of nodes.entries()) {
    for (const other of nodes.slice(index + 1)) links.heal(name, other.name);
  }
});

interface RoomStatus {
  epoch: number;
  placement: { node: string; role: string }[];
  links?: { from: string; to: string; state: string }[];
  detours?: { source: string; node: string; via: string }[];
}

async function statusOf(room: string): Promise<RoomStatus> {
  return (await party.fleet.kubectl.json<{ status: RoomStatus }>('get', 'room', room)).status;
}

function join(room: string, identity: string, node: string): Promise<BrowserParticipant> {
  return party.join(room, identity, { node: party.fleet.node(node) });
}

/**
 * Waits until all links are up and streams go straight over them. One that came up later than the others was gone around, and
 * streams go back to it after ten seconds at the earliest.
 */
async function linksUp(room: string, count: number): Promise<void> {
  await eventually(
    async () => {
      const { links: all = [], detours = [] } = await statusOf(room);
      return all.length === count && all.every(({ state }) => state === 'Up') && detours.length === 0;
    },
    { timeoutMs: 40_000, what: `${count} links that are up, and no detour` },
  );
}

async function undisturbed(...people: BrowserParticipant[]): Promise<void> {
  for (const { state, events } of await Promise.all(people.map((person) => person.view()))) {
    assert.equal(state, 'connected');
    assert.equal(events.includes('reconnecting'), false, 'nobody reconnects');
    assert.equal(events.includes('trackUnsubscribed'), false, 'no track goes and comes again');
  }
}

test('a link that is cut is gone around by way of the third node', { timeout: 180_000 }, async () => {
  const room = party.newRoom();
  const [ada, bob, cyd] = [
    await join(room, 'ada', 'sfu-a'),
    await join(room, 'bob', 'sfu-b'),
    await join(room, 'cyd', 'sfu-c'),
  ];
  await ada.publish({ camera: true, microphone: true });
  await plays(bob, 'ada', 'camera');
  await linksUp(room, 3);
  const { epoch } = await statusOf(room);
  links.cut('sfu-a', 'sfu-b');
  await eventually(
    async () => (await statusOf(room)).detours?.some(({ source, node }) => source === 'sfu-a' && node === 'sfu-b'),
    { timeoutMs: 30_000, what: 'a detour' },
  );
  await plays(bob, 'ada', 'camera');
  await plays(bob, 'ada', 'microphone');
  await plays(cyd, 'ada', 'camera');
  assert.ok((await statusOf(room)).epoch > epoch, 'declared by epoch');
  await undisturbed(ada, bob, cyd);
  await closeAll(ada, bob, cyd);
});

test('a link that is cut one way only is gone around as well', { timeout: 180_000 }, async () => {
  const room = party.newRoom();
  const people = [
    await join(room, 'ada', 'sfu-a'),
    await join(room, 'bob', 'sfu-b'),
    await join(room, 'cyd', 'sfu-c'),
  ] as const;
  const [ada, bob] = people;
  await Promise.all([ada, bob].map((person) => person.publish({ microphone: true })));
  await plays(bob, 'ada', 'microphone');
  await plays(ada, 'bob', 'microphone');
  await linksUp(room, 3);
  links.cut('sfu-a', 'sfu-b', 'one');
  await eventually(async () => ((await statusOf(room)).detours ?? []).length > 0, {
    timeoutMs: 30_000,
    what: 'a detour',
  });
  await plays(bob, 'ada', 'microphone');
  await plays(ada, 'bob', 'microphone');
  await undisturbed(...people);
  await closeAll(...people);
});

test('two nodes whose link is cut get a third one as a relay', { timeout: 180_000 }, async () => {
  const room = party.newRoom();
  const [ada, bob] = [await join(room, 'ada', 'sfu-a'), await join(room, 'bob', 'sfu-b')];
  await ada.publish({ camera: true, microphone: true });
  await plays(bob, 'ada', 'camera');
  await linksUp(room, 1);
  links.cut('sfu-a', 'sfu-b');
  await eventually(async () => (await statusOf(room)).placement.some(({ role }) => role === 'Relay'), {
    timeoutMs: 30_000,
    what: 'a relay',
  });
  await plays(bob, 'ada', 'camera');
  await plays(bob, 'ada', 'microphone');
  await undisturbed(ada, bob);
  await closeAll(ada, bob);
});

for (const { loss, delayMs, jitterMs } of [
  { loss: 0.01, delayMs: 0, jitterMs: 0 },
  { loss: 0.05, delayMs: 50, jitterMs: 10 },
]) {
  const what = `${loss * 100} % loss and ${2 * delayMs} ms there and back`;
  test(`a call goes on over ${what}`, { timeout: 180_000 }, async () => {
    links.impair('sfu-a', 'sfu-b', { loss, delayMs, jitterMs });
    const room = party.newRoom();
    const [ada, bob] = [await join(room, 'ada', 'sfu-a'), await join(room, 'bob', 'sfu-b')];
    await Promise.all([ada, bob].map((person) => person.publish({ camera: true, microphone: true })));
    for (const source of ['camera', 'microphone'] as const) {
      await plays(bob, 'ada', source);
      await plays(ada, 'bob', source);
    }
    // Hundreds of frames, of which lost packets would break every other one if nobody sent them again.
    await eventually(async () => (await bob.received('ada', 'camera')).framesDecoded > 200, {
      timeoutMs: 60_000,
      what: 'frames',
    });
    assert.ok(links.stats('sfu-a', 'sfu-b').dropped.loss > 0, 'packets were lost');
    await undisturbed(ada, bob);
    await closeAll(ada, bob);
  });
}

test('on a link that is too narrow video loses its top layer, and sound goes on', { timeout: 180_000 }, async () => {
  const room = party.newRoom();
  const [ada, bob] = [await join(room, 'ada', 'sfu-a'), await join(room, 'bob', 'sfu-b')];
  await ada.publish({ camera: true, microphone: true });
  await plays(bob, 'ada', 'microphone');
  await eventually(async () => (await bob.received('ada', 'camera')).frameWidth === 640, {
    timeoutMs: 90_000,
    what: 'the top layer',
  });
  links.impair('sfu-a', 'sfu-b', { mbps: 0.25 });
  await eventually(async () => (await statusOf(room)).links?.[0]?.state === 'Degraded', {
    timeoutMs: 30_000,
    what: 'the link to be told as degraded',
  });
  await eventually(async () => (await bob.received('ada', 'camera')).frameWidth === 320, {
    timeoutMs: 60_000,
    what: 'the low layer',
  });
  await plays(bob, 'ada', 'microphone');
  await plays(bob, 'ada', 'camera');
  links.heal('sfu-a', 'sfu-b');
  await eventually(async () => (await bob.received('ada', 'camera')).frameWidth === 640, {
    timeoutMs: 120_000,
    what: 'the top layer again',
  });
  await undisturbed(ada, bob);
  await closeAll(ada, bob);
});
