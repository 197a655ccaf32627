import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { SignalResponse } from '@livekit/protocol';
import { Kvm } from '@nats-io/kv';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { WebSocket } from 'ws';
import type { Room } from '#crds/room.ts';
import type { SfuNode } from '#crds/sfunode.ts';
import { NodeClient } from '#operator/fleet/node-client.ts';
import { systemClock } from '#platform/clock.ts';
import { createLogger } from '#platform/log.ts';
import { routeKey, ROUTES_BUCKET, subjects } from '#platform/subjects.ts';
import { systemClock as clock } from '#platform/clock.ts';
import { TlsIdentity } from '#platform/tls-identity.ts';
import { EnsureRoomRequest, EnsureRoomResponse, Route } from '#proto/weir/fleet/v1/fleet.ts';
import type { NodeDescription } from '#proto/weir/control/v1/control.ts';
import { createToken, eventually, Fleet } from '#test/fleet/mod.ts';

let fleet: Fleet;
let nats: NatsConnection;
let files = 0;

before(async () => {
  fleet = await Fleet.start({
    operators: 2,
    publicUrl: 'wss://calls.example.org',
    nodes: [
      { name: 'sfu-1', region: 'eu-west' },
      { name: 'sfu-2', region: 'us-east' },
    ],
  });
  const { user, password } = fleet.nats.users.operator;
  nats = await connect({ servers: fleet.nats.url, user, pass: password, maxReconnectAttempts: -1 });
});

after(async () => {
  await nats?.close();
  await fleet?.stop();
});

beforeEach(async () => {
  await fleet.kubectl.run('delete', 'rooms', '--all', '-n', 'default', '--timeout=20s');
});

async function apply(name: string, spec: Room['spec'] = {}): Promise<void> {
  const file = join(fleet.dir, `object-${++files}.json`);
  const object = { apiVersion: 'weir.dev/v1alpha1', kind: 'Room', metadata: { name, namespace: 'default' }, spec };
  await writeFile(file, JSON.stringify(object));
  await fleet.kubectl.run('apply', '--server-side', '-f', file);
}

const getRoom = (name: string) => fleet.kubectl.json<Room>('get', 'room', name);
const getNode = (name: string) => fleet.kubectl.json<SfuNode>('get', 'sfunode', name, '-n', 'weir-system');
const patchNode = (name: string, spec: SfuNode['spec']) =>
  fleet.kubectl.run('patch', 'sfunode', name, '-n', 'weir-system', '--type=merge', '-p', JSON.stringify({ spec }));

function condition(
  object: { status?: { conditions?: { type: string; status: string; reason: string; message: string }[] } },
  type: string,
) {
  return object.status?.conditions?.find((each) => each.type === type);
}

async function routeOf(roomName: string): Promise<Route | undefined> {
  const entry = await (await new Kvm(nats).open(ROUTES_BUCKET)).get(routeKey(roomName));
  return entry?.operation === 'PUT' ? Route.decode(entry.value) : undefined;
}

/** The room as soon as it is Ready on another epoch or generation than before. */
async function readyWhere(name: string, where: (room: Room) => boolean, timeoutMs = 10_000): Promise<Room> {
  const look = async () => {
    const room = await getRoom(name);
    return condition(room, 'Ready')?.status === 'True' && where(room) ? room : undefined;
  };
  return eventually(look, { timeoutMs, what: `Room ${name} Ready as wanted` });
}

/** What a node says of itself to the operator. */
async function describe(name: string): Promise<string[]> {
  const tls = await fleet.credentials('test-operator', {
    subject: 'OU=operator,CN=weir-operator',
    names: ['test-operator'],
  });
  const identity = await TlsIdentity.create(tls, { clock, log: createLogger({ name: 'test', level: 'silent' }) });
  const client = new NodeClient(name, fleet.node(name).control, { identity }, systemClock);
  try {
    const description = await new Promise<NodeDescription>((resolve, reject) => {
      const end = client.watch(
        ({ event }) => {
          if (event?.$case !== 'snapshot') return;
          end();
          resolve(event.value);
        },
        (why) => reject(new Error(why)),
      );
    });
    return description.assignments.map(({ room, epoch }) => `${room?.name}@${epoch}`);
  } finally {
    client.close();
    identity.close();
  }
}

async function ensure(
  roomName: string,
  create = true,
  region = '',
  full: string[] = [],
): Promise<EnsureRoomResponse['result']> {
  const request = EnsureRoomRequest.encode({ roomName, region, create, full }).finish();
  const reply = await nats.request(subjects.ensureRoom, request, { timeout: 6000 });
  return EnsureRoomResponse.decode(reply.data).result;
}

test('a Room that is applied is placed, served, in the routing table, and Ready', async () => {
  await apply('daily', { regions: ['us-east'], roomName: 'Daily stand-up' });
  await fleet.roomReady('daily');
  const room = await getRoom('daily');
  assert.equal(room.status?.nodes, 'sfu-2');
  assert.equal(room.status.regions, 'us-east');
  assert.equal(room.status.epoch, 1);
  assert.equal(room.status.url, 'wss://calls.example.org');
  assert.equal(room.status.observedGeneration, room.metadata.generation);
  assert.deepEqual(room.metadata.finalizers, ['weir.dev/room']);
  const route = await routeOf('Daily stand-up');
  assert.equal(route?.room?.uid, room.metadata.uid);
  assert.deepEqual(
    route?.nodes.map(({ node }) => node),
    ['sfu-2'],
  );
  assert.deepEqual(await describe('sfu-2'), ['daily@1']);
  const table = await fleet.kubectl.run('get', 'rooms');
  assert.match(table, /daily +True +sfu-2 +0 +0 +us-east +1 /);
});

test('a Room at rest is not written to', async () => {
  await apply('rest');
  await fleet.roomReady('rest');
  const before = (await getRoom('rest')).metadata.resourceVersion;
  await apply('other');
  await fleet.roomReady('other');
  assert.equal((await getRoom('rest')).metadata.resourceVersion, before);
});

test('a changed spec is confirmed by the node without a new epoch', async () => {
  await apply('changed');
  await fleet.roomReady('changed');
  await apply('changed', { maxParticipants: 3 });
  const room = await readyWhere(
    'changed',
    ({ status, metadata }) => status?.observedGeneration === metadata.generation,
  );
  assert.equal(room.metadata.generation, 2);
  assert.equal(room.status?.epoch, 1);
});

test('a Room that fits nowhere says what is missing and is placed the moment a node fits', async () => {
  await apply('picky', { nodeSelector: { disk: 'fast' } });
  const said = await eventually(async () => condition(await getRoom('picky'), 'Scheduled'));
  assert.equal(said.status, 'False');
  assert.match(said.message, /0 of 2 nodes fit: 2 are without label disk=fast/);
  const events = await eventually(() => fleet.kubectl.run('get', 'events', '--field-selector=reason=FailedScheduling'));
  assert.match(events, /picky/);
  const node = await fleet.addNode({ name: 'sfu-3', region: 'eu-west', labels: { disk: 'fast' } });
  await fleet.roomReady('picky');
  assert.equal((await getRoom('picky')).status?.nodes, 'sfu-3');
  await fleet.kubectl.run('delete', 'room', 'picky', '--timeout=20s');
  await node.process.stop();
});

test('of two Rooms with one roomName the older is served, and the newer after it', async () => {
  await apply('older', { roomName: 'shared' });
  await fleet.roomReady('older');
  await apply('newer', { roomName: 'shared' });
  const said = await eventually(async () => condition(await getRoom('newer'), 'Scheduled'));
  assert.equal(said.reason, 'RoomNameTaken');
  assert.match(said.message, /default\/older/);
  await fleet.kubectl.run('delete', 'room', 'older', '--timeout=20s');
  await fleet.roomReady('newer');
  const route = await eventually(() => routeOf('shared'));
  assert.equal(route.room?.name, 'newer');
});

test('a deleted Room leaves nothing on its node or in the routing table', async () => {
  await apply('gone', { regions: ['eu-west'] });
  await fleet.roomReady('gone');
  await fleet.kubectl.run('delete', 'room', 'gone', '--timeout=20s');
  assert.equal(await routeOf('gone'), undefined);
  assert.deepEqual(await describe('sfu-1'), []);
});

test('no new room goes to an unschedulable node, and what is there stays', async () => {
  await apply('stays', { regions: ['eu-west'] });
  await fleet.roomReady('stays');
  await patchNode('sfu-1', { unschedulable: true });
  try {
    await apply('elsewhere', { regions: ['eu-west'] });
    const said = await eventually(async () => condition(await getRoom('elsewhere'), 'Scheduled'));
    assert.match(said.message, /1 is marked unschedulable/);
    assert.equal((await getRoom('stays')).status?.nodes, 'sfu-1');
  } finally {
    await patchNode('sfu-1', { unschedulable: false });
  }
  await fleet.roomReady('elsewhere');
});

test('a drained node gives its rooms away and takes them again when the drain is taken back', async () => {
  await apply('moved');
  await fleet.roomReady('moved');
  const from = (await getRoom('moved')).status?.nodes ?? '';
  await patchNode(from, { drain: true });
  try {
    const room = await readyWhere('moved', ({ status }) => status?.nodes !== from);
    assert.equal(room.status?.epoch, 2);
    await eventually(async () => (await describe(from)).length === 0, { what: `${from} let go` });
    await eventually(async () => condition(await getNode(from), 'Draining')?.status === 'True');
  } finally {
    await patchNode(from, { drain: false });
  }
  await eventually(async () => condition(await getNode(from), 'Draining')?.status === 'False', {
    what: 'the drain was taken back',
  });
});

test('a node that dies is NotReady within 2 s, its room is served elsewhere, and it lets go when it is back', async () => {
  await apply('survives');
  await fleet.roomReady('survives');
  const from = (await getRoom('survives')).status?.nodes ?? '';
  const diedAt = Date.now();
  await fleet.kill(fleet.node(from));
  await eventually(async () => condition(await getNode(from), 'Ready')?.status === 'False', { intervalMs: 20 });
  const noticedMs = Date.now() - diedAt;
  assert.ok(noticedMs < 2500, `NotReady after ${noticedMs} ms, as seen through kubectl`);
  const room = await readyWhere('survives', ({ status }) => status?.nodes !== from);
  assert.equal(room.status?.epoch, 2);
  assert.equal((await routeOf('survives'))?.epoch, 2);
  await fleet.restart(fleet.node(from));
  await fleet.nodesReady(from);
  assert.deepEqual(await describe(from), []);
});

test('a node that hung comes back and is told that its room has moved', async () => {
  await apply('paused');
  await fleet.roomReady('paused');
  const from = (await getRoom('paused')).status?.nodes ?? '';
  process.kill(fleet.node(from).pid, 'SIGSTOP');
  try {
    await readyWhere('paused', ({ status }) => status?.nodes !== from);
  } finally {
    process.kill(fleet.node(from).pid, 'SIGCONT');
  }
  await fleet.nodesReady(from);
  await eventually(async () => (await describe(from)).length === 0, { what: `${from} let go of its old epoch` });
  assert.equal((await getRoom('paused')).status?.epoch, 2);
});

test('a node that restarts at once under its name is told its rooms again', async () => {
  await apply('again', { regions: ['us-east'] });
  await fleet.roomReady('again');
  await fleet.restart(fleet.node('sfu-2'));
  await eventually(async () => (await describe('sfu-2')).length === 1, { what: 'sfu-2 serves again' });
  await readyWhere('again', () => true);
});

test('a join to a room that nobody made makes one Room, however many ask at once', async () => {
  const answers = await Promise.all(Array.from({ length: 8 }, () => ensure('Team Ünder/1', true, 'us-east')));
  for (const answer of answers) assert.equal(answer?.$case, 'route', JSON.stringify(answer));
  const { items } = await fleet.kubectl.json<{ items: Room[] }>('get', 'rooms');
  assert.equal(items.length, 1);
  const [room] = items;
  assert.equal(room?.spec.roomName, 'Team Ünder/1');
  assert.equal(room.metadata.annotations?.['weir.dev/created-by'], 'join');
  assert.equal(room.status?.nodes, 'sfu-2', 'near to who asked');
});

test('a room that may not be made, and a name that is none, are refused in words', async () => {
  const refused = await ensure('nobody-made-this', false);
  assert.equal(refused?.$case === 'error' && refused.value.code, 'RoomNotFound');
  const long = await ensure('x'.repeat(500));
  assert.equal(long?.$case === 'error' && long.value.code, 'InvalidRoomName');
});

test('a Room that a join made goes when nobody comes', async () => {
  await ensure('short-lived');
  await fleet.kubectl.run('patch', 'room', 'short-lived', '--type=merge', '-p', '{"spec":{"emptyTimeoutSeconds":1}}');
  const list = () => fleet.kubectl.json<{ items: Room[] }>('get', 'rooms');
  await eventually(async () => (await list()).items.length === 0, { what: 'the Room was deleted' });
  assert.equal(await routeOf('short-lived'), undefined);
});

test('a demand from another region gets the room a node there, linked both ways; others change nothing', async () => {
  await apply('wide', { roomName: 'wide' });
  await fleet.roomReady('wide');
  const [first] = (await getRoom('wide')).status?.placement ?? [];
  const region = first?.region === 'eu-west' ? 'us-east' : 'eu-west';
  const answer = await ensure('wide', false, region);
  assert.equal(answer?.$case, 'route');
  assert.deepEqual(answer.value.nodes.map((node) => node.region).sort(), ['eu-west', 'us-east']);
  assert.equal(answer.value.epoch, 2);
  const { status } = await getRoom('wide');
  assert.equal(status?.topology?.kind, 'Mesh');
  assert.deepEqual(
    status.links?.map(({ from, to }) => [from, to]),
    [['sfu-1', 'sfu-2']],
  );
  assert.deepEqual([await describe('sfu-1'), await describe('sfu-2')], [['wide@2'], ['wide@2']]);
  for (const anywhere of ['ap-south', region]) {
    const again = await ensure('wide', false, anywhere);
    assert.ok(again?.$case === 'route' && again.value.epoch === 2, 'the room stays as it is');
  }
});

/** Joins over a node's WebSocket, and answers with the region that serves the client. */
async function joinThrough(name: string, roomName: string, region: string): Promise<string> {
  const { apiKey, apiSecret } = fleet;
  const token = await createToken({ apiKey, apiSecret, room: roomName, identity: `from-${region}` });
  const query = new URLSearchParams({ access_token: token, protocol: '16', sdk: 'js' });
  const socket = new WebSocket(`${fleet.node(name).url}/rtc?${query.toString()}`, {
    headers: { 'x-weir-region': region },
  });
  try {
    const [data] = (await once(socket, 'message')) as [Buffer];
    const { message } = SignalResponse.fromBinary(data);
    assert.equal(message.case, 'join');
    return message.value.serverInfo?.region ?? '';
  } finally {
    socket.close();
  }
}

test('a client is served in its region, whichever node it reaches; the room gets a node there for it', async () => {
  await apply('global', { roomName: 'global' });
  await fleet.roomReady('global');
  const [first] = (await getRoom('global')).status?.placement ?? [];
  const region = first?.region === 'eu-west' ? 'us-east' : 'eu-west';
  assert.equal(await joinThrough('sfu-1', 'global', region), region);
  assert.equal((await getRoom('global')).status?.epoch, 2);
  assert.equal(await joinThrough('sfu-2', 'global', region), region);
  assert.equal(await joinThrough('sfu-1', 'global', first?.region ?? ''), first?.region);
  assert.ok(await joinThrough('sfu-1', 'global', 'ap-south'), 'served somewhere');
  assert.equal((await getRoom('global')).status?.epoch, 2);
});

test('a room whose nodes are all full, with no other to go to, is refused with what other nodes lack', async () => {
  await apply('crowded', { roomName: 'crowded', regions: ['us-east'] });
  await fleet.roomReady('crowded');
  const answer = await ensure('crowded', false, 'us-east', ['sfu-2']);
  assert.equal(answer?.$case, 'error');
  assert.equal(answer.value.code, 'NoCapacity');
  assert.match(answer.value.message, /1 is full; 1 is not in region us-east/);
});

test('a routing table that NATS lost is written again', async () => {
  await apply('kept');
  await fleet.roomReady('kept');
  await fleet.nats.stop();
  await rm(join(fleet.dir, 'nats/jetstream'), { recursive: true, force: true });
  await fleet.nats.restart();
  const route = await eventually(() => routeOf('kept'), { timeoutMs: 20_000, what: 'the route' });
  assert.equal(route.epoch, 1, 'nobody was declared dead meanwhile');
  assert.equal((await getRoom('kept')).status?.epoch, 1);
});

test('the API server away for a while changes nothing, and work goes on when it is back', async () => {
  await apply('before');
  await fleet.roomReady('before');
  await fleet.plane?.apiserver.process.kill();
  await fleet.plane?.restartApiServer();
  await apply('after');
  await fleet.roomReady('after', 'default', 60_000);
  assert.equal((await getRoom('before')).status?.epoch, 1);
});

test('when the leader ends, the other operator leads at once and rooms stay where they are', async () => {
  await apply('calm');
  await fleet.roomReady('calm');
  const leader = await fleet.leader();
  await leader.process.stop();
  await apply('next');
  await fleet.roomReady('next', 'default', 20_000);
  const calm = await getRoom('calm');
  assert.equal(calm.status?.epoch, 1);
  const other = fleet.operators.find(({ id }) => id !== leader.id)!;
  const metrics = await (await fetch(`http://${other.http}/metrics`)).text();
  assert.match(metrics, /^weir_rooms\{ready="true"\} 2$/m);
  assert.match(metrics, /^leader_election_master_status\{.*\} 1$/m);
  assert.equal((await fetch(`http://${other.http}/readyz`)).status, 200);
});
