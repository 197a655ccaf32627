import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { eventually } from '#test/fleet/mod.ts';
import { closeAll, nodeOf, Party, plays } from './party.ts';

/** Two small nodes of one region, each with two workers for six streams. */
let party: Party;

before(async () => {
  party = await Party.start('full', {
    nodes: [
      { name: 'sfu-a', region: 'eu-west', workers: 2, env: { WEIR_CAPACITY_STREAMS: '12' } },
      { name: 'sfu-b', region: 'eu-west', workers: 2, env: { WEIR_CAPACITY_STREAMS: '12' } },
    ],
  });
});

after(() => party?.close());

test(
  'a room that outgrows a worker takes another, and one that outgrows its node another node',
  { timeout: 180_000 },
  async () => {
    const room = party.newRoom();
    const node = party.fleet.node('sfu-a');
    await party.apply({ name: room, spec: { expectedStreams: 4 } });
    const ada = await party.join(room, 'ada', { node });
    const serving = await nodeOf(ada);
    const other = serving === 'sfu-a' ? 'sfu-b' : 'sfu-a';
    const bob = await party.join(room, 'bob', { node });
    await Promise.all([ada, bob].map((person) => person.publish({ camera: true, microphone: true })));
    await plays(ada, 'bob', 'camera');
    await plays(bob, 'ada', 'camera');
    const cyd = await party.join(room, 'cyd', { node });
    await cyd.publish({ microphone: true });
    for (const name of ['ada', 'bob']) await plays(cyd, name, 'camera');
    for (const who of [ada, bob]) await plays(who, 'cyd', 'microphone');
    // Four streams of ada and bob each and five of cyd: the node has its fill.
    const dan = await party.join(room, 'dan', { node });
    assert.equal(await nodeOf(dan), other, 'whom the node has no room for goes to another');
    for (const name of ['ada', 'bob']) await plays(dan, name, 'camera');
    await plays(dan, 'cyd', 'microphone');
    await dan.publish({ microphone: true });
    for (const who of [ada, bob, cyd]) await plays(who, 'dan', 'microphone');
    const log = await readFile(join(party.fleet.dir, 'logs', `${serving}.log`), 'utf8');
    assert.match(log, /Room takes another worker/);
    await eventually(async () => (await party.fleet.kubectl.run('get', 'room', room)).includes(other), {
      what: 'both nodes in the placement',
    });
    await closeAll(ada, bob, cyd, dan);
  },
);
