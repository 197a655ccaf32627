import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DisconnectReason, ParticipantInfo } from '@livekit/protocol';
import { FeedReply, type FeedRequest } from '#proto/weir/fleet/v1/fleet.ts';
import { FakeClock } from '#platform/fake-clock.ts';
import { FeedLog, feedLimits, type FeedLimits } from './feed-log.ts';

const roomUid = 'room';
const incarnation = 7;
const packet = Buffer.from('hello');

function info(sid: string, metadata = ''): ParticipantInfo {
  return new ParticipantInfo({ sid, identity: sid, metadata });
}

function create(limits: Partial<FeedLimits> = {}) {
  const clock = new FakeClock();
  return { clock, log: new FeedLog({ node: 'a', incarnation, clock, limits: { ...feedLimits, ...limits } }) };
}

function ask(log: FeedLog, request: Partial<FeedRequest>) {
  const whole = { roomUid, incarnation, from: 0, state: false, snapshot: 0, have: 0, ...request };
  const bytes = FeedReply.encode(log.answer(whole)).finish();
  const { result } = FeedReply.decode(bytes);
  return { bytes: bytes.length, result };
}

function entriesOf(log: FeedLog, from: number) {
  const { result } = ask(log, { from });
  assert.equal(result?.$case, 'entries');
  return result?.$case === 'entries' ? result.value : assert.fail();
}

function snapshotOf(log: FeedLog, request: Partial<FeedRequest>) {
  const { result } = ask(log, request);
  return result?.$case === 'snapshot' ? result.value : assert.fail(`${result?.$case} in place of a snapshot`);
}

describe("a node's feed of a room", () => {
  it('numbers its entries from 1, and its digest says which comes next', () => {
    const { log } = create();
    assert.deepEqual(log.digest(), { node: 'a', incarnation, first: 1, entries: [] });
    assert.equal(log.participant(info('ann'))?.first, 1);
    assert.equal(log.reliable({ sid: 'ann', packet }).first, 2);
    assert.equal(log.left('ann', DisconnectReason.CLIENT_INITIATED)?.first, 3);
    assert.equal(log.digest().first, 4);
  });

  it('has no entry for a participant that did not change, nor for one that leaves without having been there', () => {
    const { log } = create();
    log.participant(info('ann'));
    assert.equal(log.participant(info('ann')), undefined);
    assert.equal(log.left('bob', DisconnectReason.CLIENT_INITIATED), undefined);
    assert.equal(log.next, 2);
  });

  it('answers with the entries from a sequence on', () => {
    const { log } = create();
    for (const sid of ['ann', 'bob', 'eve']) log.participant(info(sid));
    assert.equal(entriesOf(log, 2).entries.length, 2);
    assert.deepEqual([entriesOf(log, 4).first, entriesOf(log, 4).entries.length], [4, 0]);
  });

  it('answers with the state just before any entry that it keeps', () => {
    const { log } = create();
    log.participant(info('ann'));
    log.participant(info('bob'));
    log.reliable({ sid: 'ann', packet });
    log.left('ann', DisconnectReason.CLIENT_INITIATED);
    const totals = [1, 2, 3, 4, 5].map((from) => snapshotOf(log, { from, state: true })).map(({ total }) => total);
    assert.deepEqual(totals, [0, 1, 2, 2, 1]);
    assert.equal(snapshotOf(log, { from: 4, state: true }).packets, 1);
    assert.equal(snapshotOf(log, { state: true }).next, 5, 'without a sequence: as it is now');
  });

  it('answers a node that knows another incarnation with the state as it is now', () => {
    const { log } = create();
    log.participant(info('ann'));
    for (const other of [0, incarnation - 1, incarnation + 1]) {
      assert.equal(snapshotOf(log, { incarnation: other, from: 1 }).next, 2);
    }
  });

  it('keeps the newest entries up to a number, and the state that the others led to', () => {
    const { log } = create({ entries: 2 });
    for (const sid of ['ann', 'bob', 'eve']) log.participant(info(sid));
    log.left('ann', DisconnectReason.CLIENT_INITIATED);
    assert.equal(entriesOf(log, 3).entries.length, 2);
    const { next, oldest, total } = snapshotOf(log, { from: 1 });
    assert.deepEqual({ next, oldest, total }, { next: 3, oldest: 3, total: 2 });
    assert.deepEqual([...log.participants.keys()], ['bob', 'eve']);
  });

  it('keeps entries up to a size', () => {
    const { log } = create({ bytes: 1000 });
    for (let i = 0; i < 10; i++) log.reliable({ sid: 'ann', packet: Buffer.alloc(300) });
    assert.equal(snapshotOf(log, { from: 1 }).oldest, 9);
  });

  it('keeps entries up to an age, also when nothing is appended', () => {
    const { clock, log } = create({ ageMs: 1000 });
    log.participant(info('ann'));
    clock.advance(600);
    log.participant(info('bob'));
    clock.advance(600);
    assert.equal(snapshotOf(log, { from: 1 }).next, 2);
    clock.advance(600);
    assert.equal(snapshotOf(log, { from: 1 }).next, 3);
  });

  it('refuses an entry that fits no message', () => {
    const { log } = create();
    assert.throws(() => log.participant(info('ann', 'm'.repeat(512 * 1024))), { code: 'FeedEntryTooLarge' });
    assert.throws(() => log.reliable({ sid: 'ann', packet: Buffer.alloc(512 * 1024) }), { code: 'FeedEntryTooLarge' });
    assert.equal(log.next, 1);
    assert.equal(log.participants.size, 0);
  });

  it('says in one message what fits, of entries and of a snapshot: 500 participants with 16 KiB of metadata each', () => {
    const { log } = create();
    for (let i = 0; i < 500; i++) log.participant(info(`PA_${i}`, 'm'.repeat(16 * 1024)));
    const { oldest } = snapshotOf(log, { from: 1 });
    const run = ask(log, { from: oldest });
    assert.ok(run.bytes <= feedLimits.messageBytes && run.bytes > feedLimits.messageBytes / 2);
    const sids = new Set<string>();
    for (let have = 0; have < 500;) {
      const page = ask(log, { state: true, snapshot: have === 0 ? 0 : log.next, have });
      assert.ok(page.bytes <= feedLimits.messageBytes);
      const { value } = page.result?.$case === 'snapshot' ? page.result : assert.fail();
      assert.deepEqual([value.offset, value.total, value.next], [have, 500, log.next]);
      for (const encoded of value.participants) sids.add(ParticipantInfo.fromBinary(encoded).sid);
      have += value.participants.length;
    }
    assert.equal(sids.size, 500);
  });

  it('goes on with a snapshot as it was begun, whatever happens meanwhile, until nobody asked for 10 s', () => {
    const { clock, log } = create({ messageBytes: 2048, entries: 1 });
    for (let i = 0; i < 10; i++) log.participant(info(`PA_${i}`, 'm'.repeat(300)));
    const first = snapshotOf(log, { state: true });
    assert.ok(first.participants.length < 10);
    for (let i = 0; i < 10; i++) log.left(`PA_${i}`, DisconnectReason.CLIENT_INITIATED);
    const rest = { state: true, snapshot: first.next, have: first.participants.length };
    const second = snapshotOf(log, rest);
    assert.deepEqual([second.next, second.offset, second.total], [11, first.participants.length, 10]);
    clock.advance(10_001);
    const anew = snapshotOf(log, rest);
    assert.deepEqual([anew.next, anew.offset, anew.total], [21, 0, 0]);
  });
});
