import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server } from 'node:net';
import { text } from 'node:stream/consumers';
import { test, type TestContext } from 'node:test';
import { Balancer, type Target } from './balancer.ts';

/** A server that says its name and hangs up. */
async function serve(context: TestContext, name: string): Promise<Target & { server: Server }> {
  const server = createServer((socket) => socket.end(name));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.after(() => server.close());
  return { host: '127.0.0.1', port: (server.address() as AddressInfo).port, server };
}

async function balance(context: TestContext, targets: () => Target[]): Promise<() => Promise<string>> {
  const balancer = await Balancer.listen('127.0.0.1', 0, targets);
  context.after(() => balancer.close());
  return () => text(connect(balancer.port, '127.0.0.1'));
}

test('connections go to the nodes in turn', async (context) => {
  const nodes = await Promise.all(['a', 'b', 'c'].map((name) => serve(context, name)));
  const ask = await balance(context, () => nodes);
  const answers = [await ask(), await ask(), await ask(), await ask(), await ask(), await ask()];
  assert.deepEqual(answers.slice(0, 3).sort(), ['a', 'b', 'c']);
  assert.deepEqual(answers.slice(3), answers.slice(0, 3));
});

test('a node that refuses is passed over', async (context) => {
  const nodes = await Promise.all(['a', 'b'].map((name) => serve(context, name)));
  nodes[0]?.server.close();
  const ask = await balance(context, () => nodes);
  assert.deepEqual([await ask(), await ask(), await ask()], ['b', 'b', 'b']);
});

test('with no node at all the connection is closed', async (context) => {
  const ask = await balance(context, () => []);
  assert.equal(await ask(), '');
});
