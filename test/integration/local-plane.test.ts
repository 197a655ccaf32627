import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { connect, PermissionViolationError } from '@nats-io/transport-node';
import { Kvm } from '@nats-io/kv';
import { routeKey, ROUTES_BUCKET } from '#platform/subjects.ts';
import { eventually } from '#tools/local/eventually.ts';
import { LocalControlPlane } from '#tools/local/control-plane.ts';
import { LocalNats, type NatsUser } from '#tools/local/nats.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';

const dir = temporaryDirectory('local-plane');
let plane: LocalControlPlane;
let nats: LocalNats;

before(async () => {
  [plane, nats] = await Promise.all([
    LocalControlPlane.start({ dir: `${dir}/kube` }),
    LocalNats.start({ dir: `${dir}/nats` }),
  ]);
});

after(async () => {
  await Promise.all([plane?.stop(), nats?.stop()]);
});

const login = ({ user, password }: NatsUser) => connect({ servers: nats.url, user, pass: password, reconnect: false });

test('a Room is accepted, defaulted and printed by the local API server', async () => {
  await plane.kubectl.run('apply', '--server-side', '-f', 'examples/');
  const table = await plane.kubectl.run('get', 'rooms');
  assert.match(table, /^NAME +READY +NODES +PARTICIPANTS +STREAMS +REGIONS +EPOCH +AGE\n/);
  const room = await plane.kubectl.json<{ spec: { topology: string } }>('get', 'room', 'standup');
  assert.equal(room.spec.topology, 'Auto');
});

test('kubectl explain has a text for every field of both kinds', async () => {
  for (const kind of ['rooms', 'sfunodes']) {
    // OpenAPI is published a moment after the kind is served.
    const text = await eventually(() => plane.kubectl.run('explain', `${kind}.spec`));
    assert.doesNotMatch(text, /<no description>/);
    assert.doesNotMatch(await plane.kubectl.run('explain', `${kind}.status`), /<no description>/);
  }
});

test('the API server comes back on its port with its data', async () => {
  const { url } = plane.apiserver;
  await plane.apiserver.process.kill();
  await plane.restartApiServer();
  assert.equal(plane.apiserver.url, url);
  assert.match(await plane.kubectl.run('get', 'rooms', 'standup'), /standup/);
});

test('wrong NATS credentials are refused', async () => {
  await assert.rejects(login({ user: 'operator', password: 'wrong' }), /Authorization Violation/i);
});

test('an sfu-node may read and watch the routing table but not write it', async () => {
  const operator = await login(nats.users.operator);
  const node = await login(nats.users['sfu-node']);
  try {
    const table = await new Kvm(operator).create(ROUTES_BUCKET);
    await table.put(routeKey('daily'), 'first');
    const copy = await new Kvm(node).open(ROUTES_BUCKET);
    assert.equal((await copy.get(routeKey('daily')))?.string(), 'first');
    const watch = await copy.watch();
    const seen: string[] = [];
    for await (const entry of watch) {
      seen.push(entry.string());
      if (seen.length === 1) await table.put(routeKey('daily'), 'second');
      if (seen.length === 2) break;
    }
    assert.deepEqual(seen, ['first', 'second']);
    const refused = (async () => {
      for await (const status of node.status()) {
        if (status.type === 'error') return status.error;
      }
      return undefined;
    })();
    node.publish(`$KV.${ROUTES_BUCKET}.${routeKey('daily')}`, 'forged');
    assert.ok((await refused) instanceof PermissionViolationError);
    assert.equal((await table.get(routeKey('daily')))?.string(), 'second');
  } finally {
    await Promise.all([operator.close(), node.close()]);
  }
});
