import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { pino } from 'pino';
import { systemClock as clock } from '#platform/clock.ts';
import { connectNats } from '#platform/nats.ts';
import { eventually } from '#tools/local/eventually.ts';
import { LocalNats } from '#tools/local/nats.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';
import { TcpProxy } from './tcp-proxy.ts';

let nats: LocalNats;
let proxy: TcpProxy;

before(async () => {
  nats = await LocalNats.start({ dir: temporaryDirectory('nats-connection') });
  proxy = await TcpProxy.start(nats.url);
});

after(async () => {
  await proxy?.close();
  await nats?.stop();
});

const connectThroughProxy = () => {
  const { user, password } = nats.users.operator;
  return connectNats({
    url: `127.0.0.1:${proxy.port}`,
    user,
    password,
    name: 'test',
    clock,
    log: pino({ level: 'silent' }),
  });
};

test('a server that is cut off without a word is left, and what was subscribed is heard again', async () => {
  const connection = await connectThroughProxy();
  try {
    const heard: string[] = [];
    connection.subscribe('weir.test.>', { callback: (_error, message) => void heard.push(message.subject) });
    connection.publish('weir.test.before');
    await eventually(() => heard.includes('weir.test.before'));
    const statuses: string[] = [];
    void (async () => {
      for await (const { type } of connection.status()) statuses.push(type);
    })();
    proxy.stall();
    await eventually(() => statuses.includes('disconnect'), { what: 'the silence to be noticed' });
    proxy.recover();
    await eventually(() => statuses.includes('reconnect'), { what: 'another connection' });
    connection.publish('weir.test.after');
    await eventually(() => heard.includes('weir.test.after'));
  } finally {
    await connection.close();
  }
});

test('a server that answers is not left', async () => {
  const connection = await connectThroughProxy();
  try {
    const { connections } = proxy;
    // Several times as long as a silent one is borne.
    const until = Date.now() + 4000;
    await eventually(() => Date.now() > until, { intervalMs: 200 });
    assert.equal(proxy.connections, connections);
  } finally {
    await connection.close();
  }
});
