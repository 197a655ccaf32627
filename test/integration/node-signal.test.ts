import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { LeaveRequest_Action } from '@livekit/protocol';
import { SignJWT } from 'jose';
import { eventually } from '#tools/local/eventually.ts';
import { LocalNats } from '#tools/local/nats.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';
import { apiKey, apiSecret, EdgeNode, OperatorHand, refusalOf, TestClient, token } from './node-edges.ts';

let nats: LocalNats;
let operator: OperatorHand;
let a: EdgeNode;

before(async () => {
  nats = await LocalNats.start({ dir: temporaryDirectory('node-signal') });
  operator = await OperatorHand.start(nats);
  a = await EdgeNode.start('a', { url: nats.url, ...nats.users['sfu-node'] });
  a.serve('standup');
  await eventually(() => a.coordination.routes.synced);
});

after(async () => {
  await a?.close();
  await operator?.close();
  await nats?.stop();
});

describe('a client with a good token', () => {
  test('joins a room that is served here', async () => {
    const client = await TestClient.connect(a.origin, await token({ room: 'standup' }));
    const join = await client.got('join');
    assert.equal(join.serverVersion, 'a');
    const intent = a.rooms.intents.at(-1);
    assert.equal(intent?.claims.identity, 'ann');
    assert.equal(intent?.autoSubscribe, true);
    assert.equal(intent?.protocol, 16);
    client.ping(7);
    assert.equal((await client.got('pongResp')).lastPingTimestamp, 7n);
    client.close();
    await eventually(() => a.rooms.ends.some(({ identity }) => identity === 'ann'));
  });

  test('may send its token in the Authorization header', async () => {
    const { WebSocket } = await import('ws');
    const headers = { authorization: `Bearer ${await token({ room: 'standup' })}` };
    const socket = new WebSocket(`ws://${a.origin}/rtc?protocol=9`, { headers });
    await new Promise((resolve, reject) => socket.once('message', resolve).once('error', reject));
    socket.terminate();
  });

  test('is validated over HTTP, with CORS', async () => {
    const good = await fetch(`http://${a.origin}/rtc/validate?access_token=${await token({ room: 'standup' })}`);
    assert.equal(good.status, 200);
    assert.equal(await good.text(), 'success');
    assert.equal(good.headers.get('access-control-allow-origin'), '*');
    const preflight = await fetch(`http://${a.origin}/rtc/validate`, { method: 'OPTIONS' });
    assert.equal(preflight.status, 204);
    assert.equal(preflight.headers.get('access-control-allow-origin'), '*');
  });
});

describe('a client that may not join is refused before the upgrade', () => {
  const cases: [string, () => Promise<string>, number, RegExp][] = [
    ['without a token', () => Promise.resolve(''), 401, /no access token/],
    ['with something that is no JWT', () => Promise.resolve('abc'), 401, /no JWT/],
    [
      'with a bad signature',
      () => token({ room: 'standup', apiSecret: 'another secret of enough length!!' }),
      401,
      /signature/,
    ],
    ['with an unknown key', () => token({ room: 'standup', apiKey: 'nobody' }), 401, /does not know/],
    ['with an expired token', () => token({ room: 'standup', expiresIn: -1 }), 401, /expired/],
    ['before its token is valid', () => token({ room: 'standup', notBefore: 60 }), 401, /not valid yet/],
    ['without the join grant', () => token({ room: 'standup', grant: { roomJoin: false } }), 403, /roomJoin/],
    ['without a room', () => token({ room: '' }), 403, /names no room/],
    ['without an identity', () => token({ room: 'standup', identity: '' }), 403, /identity/],
    [
      'with a token that is too large',
      () => token({ room: 'standup', metadata: 'x'.repeat(17_000) }),
      401,
      /longer than/,
    ],
    [
      'with an identity that is too large',
      () => token({ room: 'standup', identity: 'x'.repeat(257) }),
      401,
      /identity/,
    ],
    ['with an unsigned token', unsigned, 401, /HS256/],
    ['without a video grant', grantless, 403, /video grant/],
  ];
  for (const [name, make, status, words] of cases) {
    test(name, async () => {
      const accessToken = await make();
      const refused = await refusalOf(TestClient.connect(a.origin, accessToken));
      assert.equal(refused.status, status);
      assert.match(refused.body, words);
      const validate = await fetch(`http://${a.origin}/rtc/validate?access_token=${accessToken}`);
      assert.equal(validate.status, status);
      assert.match(await validate.text(), words);
    });
  }

  test('with a token for another room than it asks for', async () => {
    const refused = await refusalOf(TestClient.connect(a.origin, await token({ room: 'standup' }), '&room=other'));
    assert.equal(refused.status, 403);
    assert.match(refused.body, /another room/);
  });

  test('on /rtc/v1, so that SDKs fall back to /rtc', async () => {
    const validate = await fetch(`http://${a.origin}/rtc/v1/validate?access_token=x`);
    assert.equal(validate.status, 404);
    assert.equal(validate.headers.get('access-control-allow-origin'), '*');
    assert.doesNotMatch(await validate.text(), /requested room does not exist/);
  });

  test('to a room that does not exist, when its key may not make rooms', async () => {
    const accessToken = await token({ room: 'nowhere', apiKey: 'joinonly' });
    const refused = await refusalOf(TestClient.connect(a.origin, accessToken));
    assert.equal(refused.status, 404);
    assert.match(refused.body, /requested room does not exist/);
    assert.deepEqual(operator.asked.at(-1), { roomName: 'nowhere', region: 'test', create: false, full: [] });
    const validate = await fetch(`http://${a.origin}/rtc/validate?access_token=${accessToken}`);
    assert.equal(validate.status, 404);
  });

  test('while no node fits its room', async () => {
    operator.answer = () => ({ $case: 'error', value: { code: 'NoNodeFits', message: 'no node has room' } });
    const refused = await refusalOf(TestClient.connect(a.origin, await token({ room: 'too-big' })));
    assert.equal(refused.status, 503);
    assert.match(refused.body, /no node has room/);
    assert.equal(refused.headers['retry-after'], '1');
    assert.equal(operator.asked.at(-1)?.create, true);
  });
});

describe('a client that breaks the rules gets a leave and a close, and nobody else notices', () => {
  const violations: [string, string, number, (client: TestClient) => void][] = [
    ['a text frame', 'TextFrame', 1003, (client) => client.socket.send('{"ping":1}')],
    ['a message over 1 MiB', 'MessageTooBig', 1009, (client) => client.socket.send(Buffer.alloc(1024 * 1024 + 1))],
    [
      'a flood',
      'TooManyRequests',
      1008,
      (client) => {
        for (let i = 0; i < 2_500; i++) client.ping(i);
      },
    ],
  ];
  for (const [name, code, closeCode, act] of violations) {
    test(name, async () => {
      const other = await TestClient.connect(a.origin, await token({ room: 'standup', identity: 'bob' }));
      const client = await TestClient.connect(a.origin, await token({ room: 'standup', identity: 'mallory' }));
      await client.got('join');
      const before = await countOf(code);
      act(client);
      const leave = await client.got('leave');
      assert.equal(leave.action, LeaveRequest_Action.DISCONNECT);
      assert.equal((await client.closed).code, closeCode);
      assert.equal(await countOf(code), before + 1);
      await eventually(() => a.rooms.ends.some(({ identity }) => identity === 'mallory'));
      other.ping(1);
      await other.got('pongResp');
      other.close();
    });
  }

  test('a request before the join response', async () => {
    let open = () => {};
    a.rooms.gate = new Promise((resolve) => (open = resolve));
    const client = await TestClient.connect(a.origin, await token({ room: 'standup', identity: 'hasty' }));
    const before = await countOf('RequestBeforeJoin');
    client.ping(1);
    await client.got('leave');
    assert.equal((await client.closed).code, 1008);
    assert.equal(await countOf('RequestBeforeJoin'), before + 1);
    open();
    a.rooms.gate = Promise.resolve();
    await eventually(() => a.rooms.ends.some(({ identity }) => identity === 'hasty'));
  });

  async function countOf(code: string): Promise<number> {
    const { values } = await a.metrics.violations.get();
    return values.find(({ labels }) => labels.code === code)?.value ?? 0;
  }
});

test('a client whose room is placed by its first join gets in', async () => {
  operator.answer = ({ roomName }) => {
    const room = a.serve(roomName);
    return { $case: 'route', value: { room, epoch: 1, nodes: [{ node: 'a', region: 'test', role: 1 }] } };
  };
  const client = await TestClient.connect(a.origin, await token({ room: 'fresh' }));
  assert.equal((await client.got('join')).serverVersion, 'a');
  client.close();
});

test('a resume attempt is passed on with the sid it had', async () => {
  const client = await TestClient.connect(a.origin, await token({ room: 'standup' }), '&reconnect=1&sid=PA_x');
  await client.got('join');
  assert.equal(a.rooms.intents.at(-1)?.reconnect, true);
  assert.equal(a.rooms.intents.at(-1)?.participantSid, 'PA_x');
  client.close();
});

async function unsigned(): Promise<string> {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const payload = { iss: apiKey, sub: 'ann', exp: 9e9, video: { room: 'standup', roomJoin: true } };
  return Promise.resolve(`${part({ alg: 'none' })}.${part(payload)}.`);
}

async function grantless(): Promise<string> {
  return new SignJWT({})
    .setProtectedHeader({ alg: 'HS256' })
    .setIssuer(apiKey)
    .setSubject('ann')
    .setExpirationTime('1h')
    .sign(new TextEncoder().encode(apiSecret));
}
