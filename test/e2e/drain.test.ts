import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { eventually, type FleetNode } from '#test/fleet/mod.ts';
import { BrowserParticipant } from './browser.ts';
import { closeAll, nodeOf, Party, plays } from './party.ts';
import { allReceive } from './receiving.ts';

/** Nodes that are told to end while people talk. Clients come by a node that stays, as by a Service. */
let party: Party;
let entry: FleetNode;

before(async () => {
  party = await Party.start('drain', {
    nodes: [
      { name: 'sfu-a', region: 'eu-west' },
      { name: 'sfu-b', region: 'eu-west' },
      { name: 'entry', region: 'nowhere' },
    ],
    nodeEnv: { WEIR_DRAIN_SECONDS: '30' },
  });
  entry = party.fleet.node('entry');
});

after(() => party?.close());

const more = { attributes: { 'weir.dev/region': 'eu-west' } };

async function reconnected(who: BrowserParticipant): Promise<boolean> {
  return (await who.view()).events.includes('reconnected');
}

test(
  'a node that is told to end moves its rooms first, and exits when they are gone',
  { timeout: 120_000 },
  async () => {
    const room = party.newRoom();
    const ada = await party.join(room, 'ada', { node: entry, more });
    const bob = await party.join(room, 'bob', { node: entry, more });
    await ada.publish({ camera: true, microphone: true });
    await plays(bob, 'ada', 'camera');
    const serving = party.fleet.node(await nodeOf(bob));
    assert.match(serving.name, /^sfu-/);
    process.kill(serving.pid, 'SIGTERM');
    for (const who of [ada, bob]) {
      await eventually(() => reconnected(who), { timeoutMs: 30_000, what: 'the client to come back' });
    }
    const { status } = await party.fleet.kubectl.json<{ status: { nodes: string } }>('get', 'room', room);
    assert.notEqual(status.nodes, serving.name);
    await plays(bob, 'ada', 'camera');
    await plays(bob, 'ada', 'microphone');
    await eventually(() => !serving.process.running, { timeoutMs: 20_000, what: 'the node to exit' });
    await closeAll(ada, bob);
    await party.fleet.restart(serving);
  },
);

test('media goes on while nobody can say where the rooms of a node that ends go', { timeout: 120_000 }, async () => {
  const room = party.newRoom();
  const ada = await party.join(room, 'ada', { node: entry, more });
  const bob = await party.join(room, 'bob', { node: entry, more });
  await ada.publish({ camera: true });
  await plays(bob, 'ada', 'camera');
  const serving = party.fleet.node(await nodeOf(bob));
  const operator = await party.fleet.leader();
  await party.fleet.kill(operator);
  process.kill(serving.pid, 'SIGTERM');
  const isDraining = async () => (await (await fetch(`http://${serving.http}/readyz`)).text()).includes('draining');
  await eventually(isDraining, { what: 'the node to say that it drains' });
  await plays(bob, 'ada', 'camera');
  assert.equal(await reconnected(bob), false);
  await party.fleet.restart(operator);
  await eventually(() => reconnected(bob), { timeoutMs: 30_000, what: 'the client to come back' });
  await plays(bob, 'ada', 'camera');
  await eventually(() => !serving.process.running, { timeoutMs: 20_000, what: 'the node to exit' });
  await closeAll(ada, bob);
  await party.fleet.restart(serving);
});

test(
  'applications are told of every track after each move, and who has been here for longer than the token lasts may come back',
  { timeout: 180_000 },
  async () => {
    const room = party.newRoom();
    const people = { ada: await BrowserParticipant.alone(), bob: await BrowserParticipant.alone() };
    try {
      const tokens: string[] = [];
      for (const [identity, person] of Object.entries(people)) {
        const token = await party.token(room, identity, { ...more, expiresIn: 8 });
        await person.connect(entry.url, token);
        await person.publish({ camera: true, microphone: true });
        tokens.push(token);
      }
      await allReceive(people, ['ada', 'bob']);
      const validate = (token: string) =>
        fetch(`${entry.url.replace('ws', 'http')}/rtc/validate?access_token=${token}`);
      const areExpired = async () => (await Promise.all(tokens.map(validate))).every(({ status }) => status === 401);
      await eventually(areExpired, { timeoutMs: 20_000, what: 'the tokens to expire' });
      for (let move = 1; move <= 3; move += 1) {
        const { status } = await party.fleet.kubectl.json<{ status: { nodes: string } }>('get', 'room', room);
        await party.fleet.drain(status.nodes, true);
        for (const [identity, person] of Object.entries(people)) {
          const isTold = async () => {
            const { events } = await person.view();
            const moves = events.filter((event) => event === 'reconnected').length;
            const since = events.slice(events.lastIndexOf('reconnecting'));
            return moves === move && since.filter((event) => event === 'trackSubscribed').length === 2;
          };
          await eventually(isTold, {
            timeoutMs: 30_000,
            what: `${identity} to be told of two tracks after move ${move}`,
          });
        }
        await allReceive(people, ['ada', 'bob']);
        await party.fleet.drain(status.nodes, false);
      }
    } finally {
      await closeAll(...Object.values(people));
    }
  },
);
