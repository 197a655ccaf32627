import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { WeirError } from '#platform/errors.ts';
import { FakeClock } from '#platform/fake-clock.ts';
import { Role } from '#proto/weir/control/v1/control.ts';
import { EnsureRoomRequest, EnsureRoomResponse } from '#proto/weir/fleet/v1/fleet.ts';
import { RoomRequests } from './ensure.ts';

let clock: FakeClock;
let asked: EnsureRoomRequest[];
let answer: () => EnsureRoomResponse['result'];
let requests: RoomRequests;

const room = { uid: 'u', namespace: 'n', name: 'r', roomName: 'r' };
const routeIn = (...regions: string[]): EnsureRoomResponse['result'] => ({
  $case: 'route',
  value: { room, epoch: 1, nodes: regions.map((region) => ({ node: `in-${region}`, region, role: Role.EDGE })) },
});

beforeEach(() => {
  clock = new FakeClock();
  asked = [];
  answer = () => routeIn('eu-west');
  const request = (_subject: string, data: Uint8Array) => {
    asked.push(EnsureRoomRequest.decode(data));
    return new Promise<Uint8Array>((resolve) => resolve(EnsureRoomResponse.encode({ result: answer() }).finish()));
  };
  requests = new RoomRequests({ request }, clock);
});

const wish = { create: true, region: 'eu-west', full: [] };

test('joins that ask the same at once share one request, and others do not', async () => {
  await Promise.all([requests.ensure('r', wish), requests.ensure('r', wish)]);
  assert.equal(asked.length, 1);
  await Promise.all([
    requests.ensure('r', wish),
    requests.ensure('r', { ...wish, region: 'us-east' }),
    requests.ensure('r', { ...wish, full: ['a'] }),
    requests.ensure('other', wish),
  ]);
  assert.equal(asked.length, 5);
});

test('full nodes in another order are the same question', async () => {
  const ask = (...full: string[]) => requests.extend('r', { region: 'eu-west', full });
  await Promise.all([ask('a', 'b'), ask('b', 'a')]);
  assert.equal(asked.length, 1);
});

test('a room that cannot get a nearer node is not asked about again for ten seconds', async () => {
  const extend = () => requests.extend('r', { region: 'us-east', full: [] });
  assert.ok(await extend(), 'the route as it is');
  assert.equal(await extend(), undefined);
  await clock.run(9999);
  assert.equal(await extend(), undefined);
  assert.equal(asked.length, 1);
  await clock.run(1);
  answer = () => routeIn('eu-west', 'us-east');
  assert.equal((await extend())?.nodes.length, 2);
  assert.ok(await extend(), 'a yes is not remembered: the routing table has it');
  assert.equal(asked.length, 3);
});

test('an operator that does not answer keeps nobody from a room that is served', async () => {
  answer = () => {
    throw new WeirError('NoResponders', 'nobody leads');
  };
  assert.equal(await requests.extend('r', { region: 'us-east', full: [] }), undefined);
  await assert.rejects(requests.ensure('r', wish), { code: 'OperatorUnavailable' });
});

test('a fleet without room for the client is told in the words of the operator', async () => {
  answer = () => ({ $case: 'error', value: { code: 'NoCapacity', message: '0 of 2 nodes fit' } });
  const extend = requests.extend('r', { region: 'eu-west', full: ['a'] });
  await assert.rejects(extend, { code: 'NoCapacity', message: '0 of 2 nodes fit' });
});
