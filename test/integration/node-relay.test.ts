import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { LeaveRequest_Action, Pong, SignalResponse } from '@livekit/protocol';
import { Role } from '#proto/weir/control/v1/control.ts';
import { SignalFrame } from '#proto/weir/fleet/v1/fleet.ts';
import { subjects } from '#platform/subjects.ts';
import { eventually } from '#tools/local/eventually.ts';
import { LocalNats } from '#tools/local/nats.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';
import { TcpProxy } from './tcp-proxy.ts';
import { EdgeNode, OperatorHand, refusalOf, roomRef, routeTo, TestClient, token } from './node-edges.ts';

let nats: LocalNats;
let operator: OperatorHand;
let a: EdgeNode;
let b: EdgeNode;
let rooms = 0;
/** A room of its own for every test, served by b. */
let room: string;
const opened: TestClient[] = [];

before(async () => {
  nats = await LocalNats.start({ dir: temporaryDirectory('node-relay') });
  operator = await OperatorHand.start(nats);
});

beforeEach(async () => {
  const login = { url: nats.url, ...nats.users['sfu-node'] };
  [a, b] = await Promise.all([EdgeNode.start('a', login), EdgeNode.start('b', login)]);
  room = `room ${++rooms}`;
  b.serve(room);
  await operator.route(room, 'b', 1);
  await eventually(() => a.coordination.routes.get(room) && b.coordination.routes.get(room));
});

afterEach(async () => {
  for (const client of opened.splice(0)) client.close();
  await Promise.all([a.close(), b.close()]);
});

after(async () => {
  await operator?.close();
  await nats?.stop();
});

async function connect(node: EdgeNode, identity = 'ann', query = ''): Promise<TestClient> {
  const client = await TestClient.connect(node.origin, await token({ room, identity, metadata: 'm' }), query);
  opened.push(client);
  return client;
}

async function held(node: EdgeNode, side: string): Promise<number | undefined> {
  return (await node.metrics.relayedSessions.get()).values.find(({ labels }) => labels.side === side)?.value;
}

describe('a client whose room another node serves', () => {
  test('is relayed both ways, with its claims and parameters', async () => {
    const client = await connect(a, 'ann', '&adaptive_stream=1&sdk=js&version=2.23.0');
    assert.equal((await client.got('join')).serverVersion, 'b');
    const intent = b.rooms.intents[0];
    assert.equal(intent?.claims.identity, 'ann');
    assert.equal(intent?.claims.metadata, 'm');
    assert.equal(intent?.claims.room, room);
    assert.deepEqual(
      [intent?.adaptiveStream, intent?.sdk, intent?.sdkVersion, intent?.protocol],
      [true, 'js', '2.23.0', 16],
    );
    assert.equal(b.rooms.channels.get('ann')?.holder, 'a');
    for (let i = 1; i <= 50; i++) client.ping(i);
    await client.got('pongResp', 50);
    const echoes = client.messages.flatMap((m) => (m.case === 'pongResp' ? [Number(m.value.lastPingTimestamp)] : []));
    assert.deepEqual(
      echoes,
      Array.from({ length: 50 }, (_, i) => i + 1),
    );
    assert.equal(await held(a, 'holder'), 1);
    assert.equal(await held(b, 'server'), 1);
  });

  test('is served in the region that its token names', async () => {
    const attributes = { 'weir.dev/region': 'ap-south' };
    operator.answer = () => ({ $case: 'route', value: routeTo(room, 'b', 1) });
    const client = await TestClient.connect(a.origin, await token({ room, identity: 'ann', attributes }));
    opened.push(client);
    await client.got('join');
    assert.equal(b.rooms.intents[0]?.region, 'ap-south');
    assert.deepEqual(operator.asked.at(-1), { roomName: room, region: 'ap-south', create: false, full: [] });
  });

  test('is refused by a full node, and served by the one that the room gets for it', async () => {
    b.rooms.streams = 1000;
    const placed = (node: string) => ({ node, region: 'test', role: Role.EDGE });
    const route = { room: roomRef(room), epoch: 2, nodes: [placed('b'), placed('a')] };
    operator.answer = () => {
      a.serve(room, 2);
      return { $case: 'route', value: route };
    };
    const client = await connect(a);
    assert.equal((await client.got('join')).serverVersion, 'a');
    assert.deepEqual(operator.asked.at(-1)?.full, ['b']);
  });

  test('is refused in the words of the operator when no node has room for it, and one that resumes is not', async () => {
    b.rooms.streams = 1000;
    const words = '0 of 2 nodes fit: 2 are full.';
    operator.answer = () => ({ $case: 'error', value: { code: 'NoCapacity', message: words } });
    const refused = await refusalOf(connect(a));
    assert.equal(refused.status, 503);
    assert.equal(refused.body, words);
    const resumed = await connect(a, 'ann', '&reconnect=1&sid=PA_1');
    await resumed.got('join');
  });

  test('ends on both nodes when it closes its WebSocket', async () => {
    const client = await connect(a);
    await client.got('join');
    client.close();
    await eventually(() => b.rooms.ends.length === 1);
    await eventually(async () => (await held(a, 'holder')) === 0 && (await held(b, 'server')) === 0);
  });

  test('is closed with the words of the session that ended', async () => {
    const client = await connect(a);
    await client.got('join');
    client.send({ case: 'leave', value: undefined as never });
    b.rooms.channels.get('ann')?.close(4000, 'enough');
    assert.deepEqual(await client.closed, { code: 4000, reason: 'enough' });
    await eventually(async () => (await held(a, 'holder')) === 0);
  });

  test('stays when NATS loses what is on its way, and gets all of it', async () => {
    const proxy = await TcpProxy.start(nats.url);
    const { user, password } = nats.users['sfu-node'];
    const c = await EdgeNode.start('c', { url: `127.0.0.1:${proxy.port}`, user, password });
    try {
      c.serve('lossy');
      await operator.route('lossy', 'c', 1);
      await eventually(() => a.coordination.routes.get('lossy'));
      const client = await TestClient.connect(a.origin, await token({ room: 'lossy', identity: 'ann' }));
      opened.push(client);
      await client.got('join');
      // What NATS and the node send one another now goes nowhere, and for longer than a node may be silent.
      proxy.stall();
      for (const n of [1, 2, 3]) client.ping(n);
      const pong = new Pong({ lastPingTimestamp: 0n });
      c.rooms.channels.get('ann')?.send(new SignalResponse({ message: { case: 'pongResp', value: pong } }));
      await operator.connection.flush();
      proxy.refuse();
      const cutAt = Date.now();
      await eventually(() => Date.now() - cutAt > 2500);
      proxy.recover();
      await client.got('pongResp', 4);
      const echoes = client.messages.flatMap((m) => (m.case === 'pongResp' ? [Number(m.value.lastPingTimestamp)] : []));
      assert.deepEqual(echoes, [0, 1, 2, 3]);
      assert.deepEqual(c.rooms.ends, []);
    } finally {
      await c.close();
      await proxy.close();
    }
  });

  test('stays when somebody sends frames out of the order', async () => {
    const client = await connect(a);
    await client.got('join');
    const session = await sessionSubject(b);
    const message = { $case: 'message', value: Buffer.from([]) } as const;
    for (const sequence of [9, 1]) {
      operator.connection.publish(session, SignalFrame.encode({ sequence, frame: message, acknowledged: 0 }).finish());
    }
    client.ping(2);
    await client.got('pongResp', 2);
    assert.deepEqual(b.rooms.ends, []);
  });

  test('is told to join anew when the serving node does not know its session any more', async () => {
    const client = await connect(a);
    await client.got('join');
    const session = await sessionSubject(b);
    const close = { $case: 'close', value: { code: 1012, reason: 'unknown' } } as const;
    const stray = SignalFrame.encode({ sequence: 0, frame: close, acknowledged: 0 }).finish();
    operator.connection.publish(subjects.signalDown('a', session.slice(session.lastIndexOf('.') + 1)), stray);
    assert.equal((await client.got('leave')).action, LeaveRequest_Action.RECONNECT);
    assert.equal((await client.closed).code, 1012);
  });

  test('is told to join anew when the serving node is gone, also when no operator says so', async () => {
    const client = await connect(a);
    await client.got('join');
    await b.vanish();
    assert.equal((await client.got('leave')).action, LeaveRequest_Action.RECONNECT);
    await client.closed;
  });

  test('is told to join anew when the serving node was restarted', async () => {
    const client = await connect(a);
    await client.got('join');
    await eventually(() => b.nats.connected);
    await b.vanish();
    const again = await EdgeNode.start('b', { url: nats.url, ...nats.users['sfu-node'] });
    try {
      assert.equal((await client.got('leave')).action, LeaveRequest_Action.RECONNECT);
    } finally {
      await again.close();
    }
  });

  test('ends on the serving node when its holder is gone', async () => {
    const client = await connect(a);
    await client.got('join');
    await a.vanish();
    await eventually(() => b.rooms.ends.length === 1);
  });

  test('is told to join anew when the room moves to another node: at once, or when it has been here for two seconds', async () => {
    const old = await connect(a, 'ann');
    await old.got('join');
    const joinedAt = Date.now();
    await eventually(() => Date.now() - joinedAt > 2000);
    const fresh = await connect(a, 'bob');
    await fresh.got('join');
    const movedAt = Date.now();
    await operator.route(room, 'c', 2);
    assert.equal((await old.got('leave')).action, LeaveRequest_Action.RECONNECT);
    fresh.ping(1);
    await fresh.got('pongResp');
    assert.equal(fresh.messages.filter(({ case: kind }) => kind === 'leave').length, 0, 'an SDK would lose the word');
    assert.equal((await fresh.got('leave')).action, LeaveRequest_Action.RECONNECT);
    assert.ok(Date.now() - movedAt >= 1500);
    await eventually(() => b.rooms.ends.length === 2);
  });

  test('stays when the placement changes and its node is still in it', async () => {
    const client = await connect(a);
    await client.got('join');
    await operator.route(room, 'b', 2);
    await eventually(() => a.coordination.routes.get(room)?.epoch === 2);
    client.ping(1);
    await client.got('pongResp');
  });

  test('that sends an oversized message is closed, and its session on the other node ends', async () => {
    const client = await connect(a);
    await client.got('join');
    client.socket.send(Buffer.alloc(1024 * 1024 + 1));
    assert.equal((await client.got('leave')).action, LeaveRequest_Action.DISCONNECT);
    await eventually(() => b.rooms.ends.length === 1);
  });
});

describe('a client that comes while its room moves', () => {
  test('gets in when the dead node is replaced at the next epoch', async () => {
    await b.vanish();
    const joining = connect(a);
    // The first attempt finds nobody; then the operator's verdict comes.
    await new Promise((resolve) => setTimeout(resolve, 100));
    a.serve(room, 2);
    await operator.route(room, 'a', 2);
    assert.equal((await (await joining).got('join')).serverVersion, 'a');
  });

  test('is told to join anew at once when it tries to resume on a dead node', async () => {
    await b.vanish();
    const client = await connect(a, 'ann', '&reconnect=1&sid=PA_1');
    assert.equal((await client.got('leave')).action, LeaveRequest_Action.RECONNECT);
  });

  test('waits for a node that is about to serve the room', async () => {
    b.rooms.served.delete(room);
    const joining = connect(a);
    await new Promise((resolve) => setTimeout(resolve, 100));
    b.serve(room);
    assert.equal((await (await joining).got('join')).serverVersion, 'b');
  });

  test('is relayed to the node that the operator answers, before the routing table says so', async () => {
    b.serve('not routed');
    operator.answer = () => ({ $case: 'route', value: routeTo('not routed', 'b', 1) });
    const client = await TestClient.connect(a.origin, await token({ room: 'not routed' }));
    opened.push(client);
    assert.equal((await client.got('join')).serverVersion, 'b');
  });

  test('shares one request to the operator with all that come at once', async () => {
    const asked = operator.asked.length;
    operator.answer = ({ roomName }) => {
      a.serve(roomName);
      return { $case: 'route', value: routeTo(roomName, 'a', 1) };
    };
    const tokens = await Promise.all([1, 2, 3, 4, 5].map((n) => token({ room: 'rush', identity: `p${n}` })));
    const clients = await Promise.all(tokens.map((text) => TestClient.connect(a.origin, text)));
    opened.push(...clients);
    await Promise.all(clients.map((client) => client.got('join')));
    assert.equal(operator.asked.length - asked, 1);
  });

  test('that leaves while it waits is forgotten', async () => {
    await b.vanish();
    const { WebSocket } = await import('ws');
    const socket = new WebSocket(`ws://${a.origin}/rtc?access_token=${await token({ room })}`);
    socket.on('error', () => {});
    await new Promise((resolve) => setTimeout(resolve, 100));
    socket.terminate();
    await eventually(async () => {
      const { values } = await a.metrics.joins.get();
      return values.some(({ labels }) => labels.result === 'JoinAborted');
    });
  });
});

describe('without NATS', () => {
  test('a room that is served here is joined all the same', async () => {
    const alone = await EdgeNode.start('alone', { url: 'nats://127.0.0.1:1' });
    try {
      alone.serve(room);
      const client = await TestClient.connect(alone.origin, await token({ room }));
      assert.equal((await client.got('join')).serverVersion, 'alone');
      client.close();
    } finally {
      await alone.close();
    }
  });

  test('routes stay known, and are up to date again after NATS came back', async () => {
    await operator.route('kept', 'b', 1);
    await eventually(() => a.coordination.routes.get('kept'));
    await nats.process.kill();
    await eventually(() => !a.nats.connected);
    assert.equal(a.coordination.routes.get('kept')?.epoch, 1);
    await nats.restart();
    await eventually(() => a.nats.connected && b.nats.connected);
    await eventually(() => operator.route('kept', 'b', 2), { timeoutMs: 10_000 });
    await eventually(() => a.coordination.routes.get('kept')?.epoch === 2);
    const client = await connect(a);
    assert.equal((await client.got('join')).serverVersion, 'b');
    assert.equal(roomRef(room).uid, a.coordination.routes.get(room)?.room?.uid);
  });

  test('a room that is not known here is refused with a way out', { timeout: 20_000 }, async () => {
    const alone = await EdgeNode.start('alone', { url: 'nats://127.0.0.1:1' });
    try {
      const refused = await refusalOf(TestClient.connect(alone.origin, await token({ room: 'far' })));
      assert.equal(refused.status, 503);
      assert.equal(refused.headers['retry-after'], '1');
      assert.match(refused.body, /NATS/);
    } finally {
      await alone.close();
    }
  });
});

/** The subject of the frames from the holder to the one session that b serves, learnt by listening. */
async function sessionSubject(serving: EdgeNode): Promise<string> {
  const subscription = operator.connection.subscribe(subjects.signalUp(serving.name, '*'), { max: 1 });
  await operator.connection.flush();
  opened.at(-1)?.ping(1);
  for await (const message of subscription) return message.subject;
  throw new Error('no frame came');
}
