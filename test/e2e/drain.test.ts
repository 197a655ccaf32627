import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { eventually, type FleetNode } from '#test/fleet/mod.ts';
import type { BrowserParticipant } from './browser.ts';
import { closeAll, nodeOf, Party, plays } from './party.ts';

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
