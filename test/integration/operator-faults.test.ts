import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connect } from '@nats-io/transport-node';
import type { Room } from '#crds/room.ts';
import type { SfuNode } from '#crds/sfunode.ts';
import { WeirError } from '#platform/errors.ts';
import { eventually, Fleet } from '#test/fleet/mod.ts';
import { ScriptedNode } from './scripted-node.ts';

let fleet: Fleet;
let files = 0;
let nodes: ScriptedNode[] = [];

before(async () => {
  fleet = await Fleet.start({ nodes: [], operatorEnv: { WEIR_NODE_REMOVE_AFTER_SECONDS: '1' } });
});

after(async () => {
  await fleet?.stop();
});

afterEach(async () => {
  for (const node of nodes) node.onApply = () => undefined;
  await fleet.kubectl.run('delete', 'rooms', '--all', '-n', 'default', '--timeout=20s');
  for (const node of nodes) await node.close();
  nodes = [];
  // Nodes without a pod are removed when they are silent for as long as the operator was told.
  const left = () => fleet.kubectl.json<{ items: SfuNode[] }>('get', 'sfunodes', '-n', 'weir-system');
  await eventually(async () => (await left()).items.length === 0, { what: 'SfuNodes of silent nodes were removed' });
});

async function startNode(name: string, certificateName?: string): Promise<ScriptedNode> {
  const node = await ScriptedNode.start(fleet, name, { certificateName });
  nodes.push(node);
  return node;
}

async function apply(name: string, spec: Room['spec'] = {}): Promise<void> {
  const file = join(fleet.dir, `object-${++files}.json`);
  const object = { apiVersion: 'weir.dev/v1alpha1', kind: 'Room', metadata: { name, namespace: 'default' }, spec };
  await writeFile(file, JSON.stringify(object));
  await fleet.kubectl.run('apply', '--server-side', '-f', file);
}

const getRoom = (name: string) => fleet.kubectl.json<Room>('get', 'room', name);

const ready = (room: Room) => room.status?.conditions?.find(({ type }) => type === 'Ready');

test('a room is not Ready before its node has confirmed it', async () => {
  const node = await startNode('slow');
  const gate = Promise.withResolvers<void>();
  node.onApply = () => gate.promise;
  await apply('waits');
  const room = await eventually(async () => {
    const found = await getRoom('waits');
    return found.status?.epoch === 1 ? found : undefined;
  });
  assert.equal(ready(room)?.status, 'False');
  assert.match(ready(room)?.message ?? '', /Waiting for slow to confirm epoch 1/);
  gate.resolve();
  await fleet.roomReady('waits');
});

test('a node that has seen a newer epoch is not argued with: the room climbs past it', async () => {
  const node = await startNode('ahead');
  node.onApply = ({ epoch }) => {
    if (epoch > 7) return;
    throw new WeirError('StaleEpoch', `Room stale was seen at epoch 7; an assignment at epoch ${epoch} is refused.`);
  };
  await apply('stale');
  await fleet.roomReady('stale');
  assert.equal((await getRoom('stale')).status?.epoch, 8);
});

test('a node that cannot be called is named in the status, and served from as soon as it can', async () => {
  const node = await startNode('refuses');
  let refusing = true;
  node.onApply = () => {
    if (refusing) throw new WeirError('CapacityExhausted', 'no worker takes another room');
  };
  await apply('refused');
  const said = await eventually(async () => {
    const condition = ready(await getRoom('refused'));
    return condition?.reason === 'CapacityExhausted' ? condition : undefined;
  });
  assert.match(said.message, /no worker takes another room/);
  refusing = false;
  await fleet.roomReady('refused');
});

test("a node with another node's certificate gets no room", async () => {
  await startNode('impostor', 'somebody-else');
  await apply('safe');
  const said = await eventually(async () => {
    const condition = ready(await getRoom('safe'));
    return condition?.reason === 'NodeUnreachable' ? condition : undefined;
  });
  assert.match(said.message, /impostor/);
});

test('what a node serves of rooms that there are not is released', async () => {
  const node = await ScriptedNode.start(fleet, 'orphaned');
  nodes.push(node);
  const room = { uid: 'no-such-uid', namespace: 'default', name: 'never', roomName: 'never' };
  node.serves.set(room.uid, { room, epoch: 3, generation: 1, participants: 0, streams: 0, links: [] });
  const [release] = await eventually(() => (node.released.length > 0 ? node.released : undefined));
  assert.equal(release?.room?.uid, 'no-such-uid');
  assert.equal(release.epoch, 3);
  assert.equal(release.reason, 'RoomDeleted');
});

test('a Room made again under its name is another room to the node', async () => {
  const node = await startNode('keeper');
  await apply('twice');
  await fleet.roomReady('twice');
  const first = (await getRoom('twice')).metadata.uid;
  await fleet.kubectl.run('delete', 'room', 'twice', '--timeout=20s');
  await apply('twice');
  await fleet.roomReady('twice');
  const second = (await getRoom('twice')).metadata.uid;
  assert.deepEqual([...node.serves.keys()], [second]);
  assert.ok(node.released.some(({ room, reason }) => room?.uid === first && reason === 'RoomDeleted'));
});

test('a node that falls silent with no other to go to keeps its rooms for when it is back', async () => {
  const node = await startNode('flaps');
  await apply('patient');
  await fleet.roomReady('patient');
  node.beating = false;
  const said = await eventually(async () => {
    const condition = ready(await getRoom('patient'));
    return condition?.status === 'False' ? condition : undefined;
  });
  assert.match(said.message, /1 is not ready|No SfuNode has registered/);
  node.beating = true;
  await fleet.roomReady('patient');
  assert.equal((await getRoom('patient')).status?.epoch, 1);
  assert.deepEqual(node.released, []);
});

test('counts that change all the time are written at most every few seconds', async () => {
  const node = await startNode('busy');
  await apply('lively');
  await fleet.roomReady('lively');
  const [status] = [...node.serves.values()];
  assert.ok(status);
  const versions = new Set<string>();
  const end = Date.now() + 7000;
  for (let participants = 1; Date.now() < end; participants += 1) {
    node.say({ ...status, participants, streams: participants * 2 });
    versions.add((await getRoom('lively')).metadata.resourceVersion ?? '');
    await delay(50);
  }
  assert.ok(versions.size >= 2 && versions.size <= 4, `${versions.size} versions in 7 s`);
  assert.ok(((await getRoom('lively')).status?.participants ?? 0) > 0);
});

test('messages that are no heartbeats change nothing', async () => {
  const { user, password } = fleet.nats.users['sfu-node'];
  const nats = await connect({ servers: fleet.nats.url, user, pass: password });
  try {
    for (const data of [new Uint8Array(), new Uint8Array([255, 255, 255, 255]), Buffer.from('hello')]) {
      nats.publish('weir.heartbeat.rogue', data);
    }
    await nats.flush();
  } finally {
    await nats.close();
  }
  await startNode('fine');
  await apply('unmoved');
  await fleet.roomReady('unmoved');
  const { items } = await fleet.kubectl.json<{ items: SfuNode[] }>('get', 'sfunodes', '-n', 'weir-system');
  assert.deepEqual(
    items.map(({ metadata }) => metadata.name),
    ['fine'],
  );
});
