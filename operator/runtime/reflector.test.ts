import assert from 'node:assert/strict';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';
import { KubeConfig } from '@kubernetes/client-node';
import { FakeClock } from '#platform/fake-clock.ts';
import { createLogger } from '#platform/log.ts';
import { eventually } from '#tools/local/eventually.ts';
import type { KubeObject } from './kube.ts';
import { Reflector } from './reflector.ts';

/**
 * What a real API server does too seldom or too late for a test is scripted here: its bookmarks, its errors in mid-watch,
 * its order of events. The rest is tested on a real one.
 */
type Thing = KubeObject & { n?: number };
const log = createLogger({ name: 'test', level: 'silent' });

function thing(name: string, resourceVersion: number, n = 0, uid = name): Thing {
  return { apiVersion: 'v1', kind: 'Thing', metadata: { name, uid, resourceVersion: String(resourceVersion) }, n };
}

interface Watch {
  query: URLSearchParams;
  response: ServerResponse;
  send(type: string, object: unknown): void;
}

async function setUp(t: TestContext, script: { items?: Thing[]; resourceVersion?: number; random?: number } = {}) {
  const watches: Watch[] = [];
  const api = {
    items: script.items ?? [],
    resourceVersion: script.resourceVersion ?? 10,
    lists: 0,
    watches,
    /** Answers watches with this status, if set, and lets go of them. */
    refuse: undefined as number | undefined,
    last: () => watches.at(-1)!,
  };
  const server = createServer((request, response) => {
    const { searchParams: query } = new URL(request.url!, 'http://x');
    if (query.get('watch') !== 'true') {
      api.lists += 1;
      const metadata = { resourceVersion: String(api.resourceVersion) };
      response.end(JSON.stringify({ apiVersion: 'v1', kind: 'ThingList', metadata, items: api.items }));
      return;
    }
    response.statusCode = api.refuse ?? 200;
    response.flushHeaders();
    const send = (type: string, object: unknown) => void response.write(`${JSON.stringify({ type, object })}\n`);
    watches.push({ query, response, send });
    if (api.refuse) response.end(JSON.stringify({ code: api.refuse, reason: 'Refused', message: 'refused' }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const kubeConfig = new KubeConfig();
  kubeConfig.loadFromClusterAndUser(
    { name: 'c', server: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, skipTLSVerify: true },
    { name: 'u' },
  );
  const clock = new FakeClock();
  const resource = { group: 'test', version: 'v1', plural: 'things' };
  const reflector = new Reflector<Thing>({
    ...resource,
    kubeConfig,
    clock,
    random: () => script.random ?? 0,
    log,
  });
  t.after(async () => {
    await reflector.stop();
    server.closeAllConnections();
    server.close();
  });
  reflector.start();
  await reflector.synced();
  await eventually(() => watches.length === 1);
  // The answer's head was sent; give it the time to arrive.
  await clock.run(0);
  return { api, clock, reflector };
}

const at = (n: number, watches: Watch[]) => eventually(() => watches[n], { what: `watch ${n + 1}` });

test('a watch asks for bookmarks and a length between five and ten minutes', async (t) => {
  for (const [random, seconds] of [
    [0, '300'],
    [0.999, '599'],
  ] as const) {
    const { api } = await setUp(t, { random });
    const { query } = api.last();
    assert.equal(query.get('allowWatchBookmarks'), 'true');
    assert.equal(query.get('timeoutSeconds'), seconds);
    assert.equal(query.get('resourceVersion'), '10');
  }
});

test('a watch goes on from the last bookmark, at once when the server ended it in order', async (t) => {
  const { api, clock, reflector } = await setUp(t);
  api.last().send('ADDED', thing('a', 12));
  api.last().send('BOOKMARK', thing('', 40));
  await eventually(() => reflector.get('a'));
  clock.advance(60_000);
  api.last().response.end();
  const next = await at(1, api.watches);
  assert.equal(next.query.get('resourceVersion'), '40');
  assert.equal(api.lists, 1);
});

test('an event older than what is known changes nothing', async (t) => {
  const { api, reflector } = await setUp(t, { items: [thing('a', 9, 9)] });
  const seen: number[] = [];
  reflector.onChange((_key, current) => seen.push(current?.n ?? -1));
  reflector.observeWrite(thing('a', 20, 20));
  api.last().send('MODIFIED', thing('a', 15, 15));
  api.last().send('MODIFIED', thing('a', 20, 20));
  api.last().send('MODIFIED', thing('a', 100, 100));
  await eventually(() => reflector.get('a')?.n === 100);
  assert.deepEqual(seen, [9, 20, 100]);
});

test('a list older than a write of our own does not take it back', async (t) => {
  const { api, clock, reflector } = await setUp(t);
  reflector.observeWrite(thing('mine', 50));
  reflector.observeWrite(thing('old', 44));
  clock.advance(11_000);
  api.resourceVersion = 45;
  api.last().send('ERROR', { kind: 'Status', code: 410, reason: 'Expired', message: 'too old' });
  await eventually(async () => {
    await clock.run(0);
    return api.watches.length === 2;
  });
  assert.equal(api.lists, 2);
  assert.ok(reflector.get('mine'));
  assert.equal(reflector.get('old'), undefined);
});

test('the deletion of an object is not taken for that of one made later under its name', async (t) => {
  const { api, reflector } = await setUp(t, { items: [thing('a', 9, 1, 'first')] });
  reflector.observeWrite(thing('a', 30, 2, 'second'));
  api.last().send('DELETED', thing('a', 25, 1, 'first'));
  api.last().send('ADDED', thing('marker', 31));
  await eventually(() => reflector.get('marker'));
  assert.equal(reflector.get('a')?.metadata.uid, 'second');
});

test('a watch that is told in its midst that it is too old lists anew at once', async (t) => {
  const { api, clock, reflector } = await setUp(t, { items: [thing('gone', 9)] });
  clock.advance(11_000);
  api.items = [thing('new', 60)];
  api.resourceVersion = 60;
  api.last().send('ERROR', { kind: 'Status', code: 410, reason: 'Expired', message: 'too old' });
  await eventually(async () => {
    await clock.run(0);
    return reflector.get('new');
  });
  assert.equal(reflector.get('gone'), undefined);
  assert.equal((await at(1, api.watches)).query.get('resourceVersion'), '60');
});

test('a server that forgets faster than it lists is not hammered', async (t) => {
  const { api, clock } = await setUp(t);
  api.last().send('ERROR', { kind: 'Status', code: 410, reason: 'Expired', message: 'too old' });
  await eventually(() => clock.pending === 1 && api.last().response.closed);
  await clock.run(799);
  assert.equal(api.lists, 1);
  await clock.run(1);
  await eventually(() => api.lists === 2);
});

test('failures are followed by pauses that double, from 0.8 s to half a minute', async (t) => {
  const { api, clock } = await setUp(t);
  api.refuse = 503;
  api.last().response.destroy();
  for (const pauseMs of [800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]) {
    const before = api.watches.length;
    await eventually(() => clock.pending === 1 && api.watches.every(({ response }) => response.closed));
    await clock.run(pauseMs - 1);
    assert.equal(api.watches.length, before, `not before ${pauseMs} ms`);
    await clock.run(1);
    await at(before, api.watches);
    // Until the refusal was read: the pause after it is the only timer then.
    await eventually(async () => {
      await clock.run(0);
      return clock.pending === 1;
    });
  }
  assert.equal(api.lists, 1);
});

test('a watch without a sign of life for 90 s is started again, and bookmarks are signs of life', async (t) => {
  const { api, clock, reflector } = await setUp(t);
  const bookmark = async (resourceVersion: number) => {
    api.last().send('BOOKMARK', thing('', resourceVersion));
    await eventually(() => reflector.stalenessMs === 0);
  };
  await clock.run(60_000);
  await bookmark(20);
  await clock.run(60_000);
  await bookmark(21);
  await clock.run(89_000);
  assert.equal(api.watches.length, 1);
  assert.equal(reflector.stalenessMs, 89_000);
  await clock.run(1000);
  await eventually(async () => {
    await clock.run(0);
    return api.watches.length === 2;
  });
  assert.equal(api.last().query.get('resourceVersion'), '21');
});

test('a server that ends every watch as soon as it begins is not hammered', async (t) => {
  const { api, clock } = await setUp(t);
  api.last().response.end();
  await eventually(() => api.last().response.closed && clock.pending === 1);
  await clock.run(700);
  assert.equal(api.watches.length, 1);
  await clock.run(100);
  await at(1, api.watches);
});

test('what cannot be read is a failure of the watch, and not its end', async (t) => {
  const { api, clock, reflector } = await setUp(t);
  api.last().response.write('not json\n');
  await eventually(() => api.last().response.closed);
  await eventually(async () => {
    await clock.run(1000);
    return api.watches.length === 2;
  });
  api.last().send('ADDED', thing('a', 11));
  await eventually(() => reflector.get('a'));
});

test('events that arrive in pieces, and several at once, are read', async (t) => {
  const { api, reflector } = await setUp(t);
  const lines = ['ä', 'b', 'c']
    .map((name, n) => `${JSON.stringify({ type: 'ADDED', object: thing(name, 11 + n) })}\n`)
    .join('');
  for (const byte of Buffer.from(lines)) api.last().response.write(Buffer.from([byte]));
  await eventually(() => reflector.list().length === 3);
  assert.ok(reflector.get('ä'));
});

test('a listener that throws does not keep others from hearing', async (t) => {
  const { api, reflector } = await setUp(t);
  const heard: string[] = [];
  reflector.onChange(() => {
    throw new Error('oh');
  });
  reflector.onChange((key) => heard.push(key));
  api.last().send('ADDED', thing('a', 11));
  await eventually(() => heard.length === 1);
});
