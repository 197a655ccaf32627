import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import type { Room } from '#crds/room.ts';
import { subjects } from '#platform/subjects.ts';
import { LinkState, type Assignment } from '#proto/weir/control/v1/control.ts';
import { EnsureRoomRequest, EnsureRoomResponse, type Route } from '#proto/weir/fleet/v1/fleet.ts';
import { eventually, Fleet } from '#test/fleet/mod.ts';
import { ScriptedNode } from './scripted-node.ts';

/** Nodes of three regions; `eu-2` is one more of the first. */
const regions = { 'eu-1': 'eu-west', 'us-1': 'us-east', 'ap-1': 'ap-south' };

let fleet: Fleet;
let nats: NatsConnection;
const nodes = new Map<string, ScriptedNode>();

before(async () => {
  fleet = await Fleet.start({ nodes: [], operatorEnv: { WEIR_IDLE_NODE_SECONDS: '2' } });
  const { user, password } = fleet.nats.users.operator;
  nats = await connect({ servers: fleet.nats.url, user, pass: password });
  for (const [name, region] of Object.entries(regions))
    nodes.set(name, await ScriptedNode.start(fleet, name, { region }));
});

after(async () => {
  for (const node of nodes.values()) await node.close();
  await nats?.close();
  await fleet?.stop();
});

afterEach(async () => {
  for (const node of nodes.values()) node.onLink = () => ({});
  await fleet.kubectl.run('delete', 'rooms', '--all', '-n', 'default', '--timeout=20s');
});

const getRoom = (name: string) => fleet.kubectl.json<Room>('get', 'room', name);
const node = (name: string) => nodes.get(name) ?? assert.fail(`there is no node ${name}`);

/** A Room in eu-west. */
async function applyRoom(name: string): Promise<Room> {
  const spec = { regions: ['eu-west', 'us-east', 'ap-south'] };
  const object = { apiVersion: 'weir.dev/v1alpha1', kind: 'Room', metadata: { name, namespace: 'default' }, spec };
  const file = join(fleet.dir, `${name}.json`);
  await writeFile(file, JSON.stringify(object));
  await fleet.kubectl.run('apply', '--server-side', '-f', file);
  await fleet.roomReady(name);
  return getRoom(name);
}

/** What the operator answers a node with a client of a region. */
async function extend(roomName: string, region: string): Promise<Route> {
  const request = EnsureRoomRequest.encode({ roomName, region, create: false, full: [] }).finish();
  const reply = await nats.request(subjects.ensureRoom, request, { timeout: 6000 });
  const { result } = EnsureRoomResponse.decode(reply.data);
  assert.ok(result?.$case === 'route', JSON.stringify(result));
  return result.value;
}

function told(name: string, uid: string): Assignment {
  return node(name).assignments.get(uid) ?? assert.fail(`${name} was told nothing`);
}

/** Nodes have somebody in the room, so that they stay. */
function populate(uid: string, ...names: string[]): void {
  for (const name of names) node(name).tell(uid, { participants: 1, streams: 2 });
}

function roomWhere(name: string, what: string, where: (room: Room) => boolean): Promise<Room> {
  const look = async () => {
    const room = await getRoom(name);
    return where(room) ? room : undefined;
  };
  return eventually(look, { timeoutMs: 15_000, what });
}

test('clients of three regions get a node each, and all are told of their links and the ways of streams', async () => {
  const { metadata } = await applyRoom('three');
  const uid = metadata.uid ?? '';
  populate(uid, 'eu-1');
  await extend('three', 'us-east');
  populate(uid, 'us-1');
  const route = await extend('three', 'ap-south');
  assert.deepEqual(route.nodes.map((placed) => placed.node).sort(), ['ap-1', 'eu-1', 'us-1']);
  for (const name of nodes.keys()) {
    const { epoch, links, routes } = told(name, uid);
    const others = [...nodes.keys()].filter((other) => other !== name).sort();
    assert.equal(epoch, route.epoch);
    assert.deepEqual(links, others);
    assert.deepEqual(
      routes,
      others.map((other) => ({ source: other, via: other })),
    );
  }
});

test('a node on which nobody is leaves the room, and is told so', async () => {
  const { metadata } = await applyRoom('shrinks');
  const uid = metadata.uid ?? '';
  populate(uid, 'eu-1');
  await extend('shrinks', 'us-east');
  const room = await roomWhere('shrinks', 'us-1 left', ({ status }) => status?.nodes === 'eu-1' && status.epoch === 3);
  assert.deepEqual(room.status?.links, []);
  await eventually(() => node('us-1').released.some(({ room: ref }) => ref?.uid === uid));
  await eventually(() => told('eu-1', uid).epoch === 3);
  assert.deepEqual(told('eu-1', uid).links, []);
});

test('streams go around a link that is down, Degraded tells, and both end when it is up again', async () => {
  const { metadata } = await applyRoom('detour');
  const uid = metadata.uid ?? '';
  populate(uid, 'eu-1');
  await extend('detour', 'us-east');
  populate(uid, 'us-1');
  const { epoch } = await extend('detour', 'ap-south');
  populate(uid, 'ap-1');
  const via = () => told('us-1', uid).routes.find(({ source }) => source === 'eu-1')?.via;
  assert.equal(via(), 'eu-1');

  node('us-1').onLink = (peer) => (peer === 'eu-1' ? { state: LinkState.DOWN } : {});
  node('us-1').tell(uid);
  await eventually(() => via() === 'ap-1', { what: 'streams of eu-1 come by ap-1' });
  assert.ok(told('us-1', uid).epoch > epoch);
  const degraded = await roomWhere('detour', 'Degraded', ({ status }) =>
    Boolean(status?.conditions?.some(({ type, status: is }) => type === 'Degraded' && is === 'True')),
  );
  const condition = degraded.status?.conditions?.find(({ type }) => type === 'Degraded');
  assert.equal(condition?.reason, 'LinkDown');
  assert.match(condition.message, /eu-1 to us-1 is down/);
  assert.deepEqual(degraded.status?.detours, [
    { source: 'eu-1', node: 'us-1', via: 'ap-1' },
    { source: 'us-1', node: 'eu-1', via: 'ap-1' },
  ]);
  await eventually(() =>
    fleet.kubectl.run('get', 'events', '--field-selector=reason=LinkDown').then((out) => /detour/.test(out)),
  );

  node('us-1').onLink = () => ({});
  for (const name of nodes.keys()) node(name).tell(uid);
  await roomWhere('detour', 'Degraded no more', ({ status }) =>
    Boolean(status?.conditions?.some(({ type, status: is }) => type === 'Degraded' && is === 'False')),
  );
  await eventually(() => via() === 'eu-1', { timeoutMs: 20_000, what: 'streams of eu-1 come straight again' });
  const metrics = await (await fetch(`http://${fleet.operators[0]?.http}/metrics`)).text();
  assert.match(metrics, /^weir_links\{state="Up"\} 3$/m);
  assert.match(metrics, /^weir_room_nodes\{nodes="3"\} 1$/m);
});
