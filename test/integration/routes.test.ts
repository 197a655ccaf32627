import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { jetstreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import { pino } from 'pino';
import { RouteTable } from '#operator/fleet/route-table.ts';
import { systemClock as clock } from '#platform/clock.ts';
import { connectNats } from '#platform/nats.ts';
import { ROUTES_BUCKET, subjects } from '#platform/subjects.ts';
import { Route } from '#proto/weir/fleet/v1/fleet.ts';
import { NatsLink } from '#sfu-node/coordination/nats-link.ts';
import { Routes } from '#sfu-node/coordination/routes.ts';
import { eventually } from '#tools/local/eventually.ts';
import { LocalNats } from '#tools/local/nats.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';

const log = pino({ level: 'silent' });
/** All clients are on the first server, which is never the one that gets lost. */
let servers: LocalNats[] = [];
let operator: NatsConnection;
let table: RouteTable;
const nodes: { link: NatsLink; routes: Routes }[] = [];

before(async () => {
  servers = await LocalNats.startCluster({ dir: temporaryDirectory('routes'), size: 3 });
  operator = await connectNats({ ...access('operator'), name: 'operator', clock, log });
  table = new RouteTable({ replicas: servers.length, clock, log });
  table.attach(operator);
  await put(route('first', 1));
});

afterEach(async () => {
  for (const { pid } of servers) process.kill(pid, 'SIGCONT');
  for (const node of nodes.splice(0)) await endNode(node);
});

after(async () => {
  await table?.close();
  await operator?.close();
  await Promise.all(servers.map((server) => server.stop()));
});

function access(role: keyof LocalNats['users']) {
  const [{ url, users }] = servers as [LocalNats];
  return { url, ...users[role] };
}

/** What a node knows of routes, once it has read the table. */
async function startNode(): Promise<Routes> {
  const link = NatsLink.create({ ...access('sfu-node'), name: 'node', clock, log });
  const routes = Routes.create({ nats: link, clock, log });
  nodes.push({ link, routes });
  await eventually(() => routes.synced, { timeoutMs: 30_000, what: 'the table to be made and read' });
  return routes;
}

async function endNode({ link, routes }: (typeof nodes)[number]): Promise<void> {
  await routes.close();
  await link.close();
}

/** A node that is fed by another server than the one that it is connected to, and the index of that server. */
async function startNodeFedByAnother(): Promise<{ routes: Routes; feeder: number }> {
  const feeders = async () => {
    const manager = await jetstreamManager(operator);
    const found = new Map<string, string>();
    for await (const { name, cluster } of manager.consumers.list(`KV_${ROUTES_BUCKET}`)) {
      found.set(name, cluster?.leader ?? '');
    }
    return found;
  };
  for (;;) {
    const before = await feeders();
    const routes = await startNode();
    const [feeder] = [...(await feeders())].filter(([name]) => !before.has(name)).map(([, server]) => server);
    const index = Number(feeder?.slice('weir-local-'.length));
    if (index > 0) return { routes, feeder: index };
    await endNode(nodes.pop()!);
  }
}

/** Has servers stand still, as when their machines are gone: connections to them stay open. */
function freeze(...indices: number[]): void {
  for (const index of indices) process.kill(servers[index]!.pid, 'SIGSTOP');
}

function route(roomName: string, epoch: number): Route {
  const room = { namespace: 'default', name: roomName, uid: `uid-of-${roomName}`, roomName };
  return Route.fromPartial({ room, epoch, nodes: [{ node: `node-${epoch}`, region: 'eu-west' }] });
}

/** Writes as the operator does: again until the table takes it. */
async function put(written: Route): Promise<void> {
  const isTaken = () =>
    table.put(written).then(
      () => true,
      () => false,
    );
  await eventually(isTaken, { timeoutMs: 40_000, what: 'the table to be written' });
}

test('a node whose table came from a server that is lost goes on with another one', async () => {
  const { routes, feeder } = await startNodeFedByAnother();
  await put(route('before', 1));
  await eventually(() => routes.get('before')?.epoch === 1, { what: 'the node to know the route' });
  freeze(feeder);
  // Not one that it knows, whose move it would be told of.
  await put(route('new', 1));
  await eventually(() => routes.get('new')?.epoch === 1, { timeoutMs: 20_000, what: 'the node to know the new route' });
  await table.delete('before');
  await eventually(() => !routes.get('before'), { timeoutMs: 20_000, what: 'the node to know what was removed' });
});

test('where a room moves is known while the table cannot be written', async () => {
  const routes = await startNode();
  await put(route('moved', 1));
  await eventually(() => routes.get('moved')?.epoch === 1, { what: 'the node to know the route' });
  freeze(1, 2);
  await assert.rejects(table.put(route('moved', 2)), { code: 'RoutesUnavailable' });
  assert.equal(routes.get('moved')?.epoch, 2);
  assert.equal(table.get('moved')?.epoch, 1, 'it is to be written again');
  // What is not known yet is not to be known by this: nobody would say when it is gone.
  await assert.rejects(table.put(route('made', 1)), { code: 'RoutesUnavailable' });
  assert.equal(routes.get('made'), undefined);
});

test('a table that is behind what was told does not bring a room back', async () => {
  await put(route('ahead', 1));
  const routes = await startNode();
  operator.publish(subjects.route, Route.encode(route('ahead', 3)).finish());
  await eventually(() => routes.get('ahead')?.epoch === 3, { what: 'the node to be told' });
  await put(route('ahead', 2));
  await put(route('after', 1));
  await eventually(() => routes.get('after')?.epoch === 1, { what: 'the node to have read on' });
  assert.equal(routes.get('ahead')?.epoch, 3);
});

test('a node may not tell others of routes', async () => {
  const routes = await startNode();
  const { connection } = nodes[0]!.link;
  await put(route('guarded', 1));
  await eventually(() => routes.get('guarded')?.epoch === 1, { what: 'the node to know the route' });
  connection!.publish(subjects.route, Route.encode(route('guarded', 7)).finish());
  await connection!.flush();
  await put(route('last', 1));
  await eventually(() => routes.get('last')?.epoch === 1, { what: 'the node to have read on' });
  assert.equal(routes.get('guarded')?.epoch, 1);
});
