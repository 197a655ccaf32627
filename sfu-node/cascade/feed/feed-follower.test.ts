import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DisconnectReason, ParticipantInfo } from '@livekit/protocol';
import type { FeedEntries, FeedEntry, FeedSnapshot } from '#proto/weir/fleet/v1/fleet.ts';
import { FeedFollower, type FeedChange } from './feed-follower.ts';
import { feedLimits } from './feed-log.ts';

const node = 'a';

function encoded(sid: string, version = 1): Buffer {
  return Buffer.from(new ParticipantInfo({ sid, version }).toBinary());
}

const joined = (sid: string, version?: number): FeedEntry => ({
  entry: { $case: 'participant', value: encoded(sid, version) },
});
const left = (sid: string): FeedEntry => ({
  entry: { $case: 'left', value: { sid, reason: DisconnectReason.CLIENT_INITIATED } },
});
const data = (text: string): FeedEntry => ({
  entry: { $case: 'data', value: { sid: 'ann', packet: Buffer.from(text) } },
});

function run(first: number, ...entries: FeedEntry[]): FeedEntries {
  return { node, incarnation: 1, first, entries };
}

function snapshot(next: number, sids: string[], rest: Partial<FeedSnapshot> = {}): FeedSnapshot {
  const participants = sids.map((sid) => encoded(sid));
  const state = { node, incarnation: 1, next, participants, offset: 0, total: sids.length, oldest: 1, packets: 0 };
  return { ...state, ...rest };
}

/** Changes in few words. */
function words(changes: FeedChange[]): string[] {
  return changes.map((change) => {
    if (change.kind === 'participant') return `+${change.info.sid}`;
    if (change.kind === 'left') return `-${change.sid} ${DisconnectReason[change.reason]}`;
    if (change.kind === 'data') return Buffer.from(change.data.packet).toString();
    return change.kind === 'lost' ? `lost ${change.packets}` : change.kind;
  });
}

/** A follower that has a snapshot without entries still to come. */
function following(sids: string[] = [], next = sids.length + 1): FeedFollower {
  const follower = new FeedFollower();
  follower.snapshot(snapshot(next, sids));
  return follower;
}

describe('who follows a feed', () => {
  it('asks for the state first, as of the first entry that was heard', () => {
    const follower = new FeedFollower();
    const nothing = { incarnation: 0, from: 0, state: true, snapshot: 0, have: 0 };
    assert.deepEqual(follower.missing(), nothing);
    assert.deepEqual(follower.entries(run(6, data('six'))), []);
    assert.deepEqual(follower.missing(), { ...nothing, incarnation: 1, from: 6 });
    assert.deepEqual(words(follower.snapshot(snapshot(6, ['ann']))), ['+ann', 'six']);
    assert.equal(follower.missing(), undefined);
  });

  it('misses nothing that was heard while its snapshot was on the way', () => {
    const follower = new FeedFollower();
    follower.entries(run(6, data('six')));
    assert.deepEqual(follower.snapshot(snapshot(7, ['ann'])), [], 'asked for before entry 6 was heard');
    assert.equal(follower.missing()?.from, 6);
    assert.deepEqual(words(follower.snapshot(snapshot(6, ['ann']))), ['+ann', 'six']);
  });

  it('takes a later snapshot than it asked for when what it heard is kept no more', () => {
    const follower = new FeedFollower();
    follower.entries(run(6, data('six'), data('seven')));
    assert.deepEqual(words(follower.snapshot(snapshot(7, ['ann'], { oldest: 7 }))), ['+ann', 'seven']);
  });

  it('applies entries in order, each once', () => {
    const follower = following();
    assert.deepEqual(words(follower.entries(run(1, joined('ann'), data('one')))), ['+ann', 'one']);
    assert.deepEqual(follower.entries(run(1, joined('ann'), data('one'))), []);
    assert.deepEqual(words(follower.entries(run(2, data('one'), data('two'), left('ann')))), [
      'two',
      '-ann CLIENT_INITIATED',
    ]);
    assert.equal(follower.participants.size, 0);
  });

  it('holds what comes after a gap until it is filled', () => {
    const follower = following();
    assert.deepEqual(words(follower.entries(run(3, left('ann')))), ['gap']);
    assert.deepEqual(follower.entries(run(2, data('two'))), []);
    assert.deepEqual(follower.missing(), { incarnation: 1, from: 1, state: false, snapshot: 0, have: 0 });
    assert.deepEqual(words(follower.entries(run(1, joined('ann')))), ['+ann', 'two', '-ann CLIENT_INITIATED']);
    assert.equal(follower.missing(), undefined);
  });

  it('learns from a digest that the last entries were lost', () => {
    const follower = following(['ann']);
    assert.deepEqual(follower.entries(run(2)), []);
    assert.equal(follower.missing(), undefined);
    assert.deepEqual(words(follower.entries(run(4))), ['gap']);
    assert.equal(follower.missing()?.from, 2);
  });

  it('asks again for what it had no room to hold', () => {
    const follower = new FeedFollower({ ...feedLimits, entries: 2 });
    follower.snapshot(snapshot(1, []));
    follower.entries(run(2, data('two'), data('three'), data('four')));
    assert.deepEqual(words(follower.entries(run(1, data('one')))), ['one', 'two', 'three']);
    assert.equal(follower.missing()?.from, 4);
  });

  it('takes from a snapshot in place of lost entries what is different, and counts the data that is lost', () => {
    const follower = following(['ann', 'bob']);
    follower.entries(run(3, data('three')));
    follower.entries(run(9));
    const participants = [encoded('bob'), encoded('eve')];
    const changes = follower.snapshot(snapshot(8, [], { participants, total: 2, packets: 3, oldest: 8 }));
    assert.deepEqual(words(changes), ['-ann UNKNOWN_REASON', '+eve', 'lost 2']);
    assert.equal(follower.missing()?.from, 8);
  });

  it('takes from a snapshot a participant of another version', () => {
    const follower = following(['ann']);
    const participants = [encoded('ann', 2)];
    assert.deepEqual(words(follower.snapshot(snapshot(5, [], { participants, total: 1, oldest: 5 }))), ['+ann']);
    assert.equal(follower.participants.get('ann')?.version, 2);
  });

  it('ignores a snapshot of what it has applied already', () => {
    const follower = following(['ann']);
    follower.entries(run(2, left('ann')));
    assert.deepEqual(follower.snapshot(snapshot(2, ['ann'])), []);
    assert.deepEqual(follower.snapshot(snapshot(3, ['ann'])), []);
    assert.equal(follower.participants.size, 0);
  });

  it('ignores a snapshot while the entries that are missing can be asked for: data is in them', () => {
    const follower = following(['ann']);
    follower.entries(run(4));
    assert.deepEqual(follower.snapshot(snapshot(4, [], { oldest: 2 })), []);
    assert.equal(follower.missing()?.from, 2);
    assert.deepEqual(words(follower.entries(run(2, data('two'), data('three')))), ['two', 'three']);
  });

  it('takes a snapshot of several messages as a whole, once all are there', () => {
    const follower = new FeedFollower();
    const page = (offset: number, sid: string) => snapshot(4, [sid], { offset, total: 2 });
    assert.deepEqual(follower.snapshot(page(1, 'bob')), [], 'the first is not there');
    assert.deepEqual(follower.snapshot(page(0, 'ann')), []);
    assert.deepEqual(follower.missing(), { incarnation: 1, from: 0, state: true, snapshot: 4, have: 1 });
    assert.deepEqual(words(follower.snapshot(page(1, 'bob'))), ['+ann', '+bob']);
    assert.deepEqual(follower.snapshot(page(1, 'bob')), []);
  });

  it('begins a snapshot anew when the peer does', () => {
    const follower = new FeedFollower();
    follower.snapshot(snapshot(4, ['ann'], { total: 2 }));
    follower.snapshot(snapshot(9, ['bob'], { total: 2 }));
    assert.deepEqual(follower.snapshot(snapshot(4, ['eve'], { offset: 1, total: 2 })), []);
    assert.deepEqual(words(follower.snapshot(snapshot(9, ['eve'], { offset: 1, total: 2 }))), ['+bob', '+eve']);
  });

  it('gives up a snapshot when something before it is heard', () => {
    const follower = new FeedFollower();
    follower.snapshot(snapshot(8, ['ann'], { total: 2 }));
    follower.entries(run(6, data('six')));
    assert.deepEqual(follower.snapshot(snapshot(8, ['bob'], { offset: 1, total: 2 })), []);
    assert.deepEqual(follower.missing(), { incarnation: 1, from: 6, state: true, snapshot: 0, have: 0 });
  });

  it('gives up a snapshot that entries have overtaken', () => {
    const follower = following(['ann']);
    follower.snapshot(snapshot(3, ['ann'], { total: 2, oldest: 3 }));
    assert.deepEqual([follower.missing()?.snapshot, follower.missing()?.have], [3, 1]);
    follower.entries(run(2, left('ann')));
    assert.equal(follower.missing(), undefined);
    assert.deepEqual(follower.snapshot(snapshot(3, ['bob'], { offset: 1, total: 2, oldest: 3 })), []);
  });

  it('replaces all when the peer began anew, and keeps what was known until then', () => {
    const follower = following(['ann', 'bob']);
    assert.deepEqual(follower.entries({ ...run(2, joined('eve')), incarnation: 2 }), []);
    assert.equal(follower.participants.size, 2);
    assert.deepEqual(follower.missing(), { incarnation: 2, from: 2, state: true, snapshot: 0, have: 0 });
    const changes = follower.snapshot(snapshot(2, ['bob'], { incarnation: 2 }));
    assert.deepEqual(words(changes), ['-ann SERVER_SHUTDOWN', '+bob', '+eve']);
  });

  it('ignores what an earlier incarnation says late', () => {
    const follower = following(['ann']);
    follower.snapshot(snapshot(1, [], { incarnation: 2 }));
    assert.deepEqual(follower.entries(run(2, joined('bob'))), []);
    assert.deepEqual(follower.snapshot(snapshot(5, ['bob'])), []);
    assert.equal(follower.now(1, 100), false);
    assert.equal(follower.missing(), undefined);
  });

  it('takes of passing things only the newest', () => {
    const follower = following();
    assert.deepEqual(
      [1, 3, 2, 3, 4].map((sequence) => follower.now(1, sequence)),
      [true, true, false, false, true],
    );
    assert.equal(follower.now(2, 1), true, 'a later incarnation counts from the start');
    assert.equal(follower.missing()?.incarnation, 2);
  });

  it('passes over what it cannot read, and goes on', () => {
    const follower = following();
    const torn: FeedEntry = { entry: { $case: 'participant', value: Buffer.from([255, 255]) } };
    const nobody = joined('');
    const unknown: FeedEntry = { entry: undefined };
    const changes = follower.entries(run(1, torn, nobody, unknown, joined('ann')));
    assert.deepEqual(words(changes), ['malformed', 'malformed', 'malformed', '+ann']);
    const participants = [Buffer.from([255]), encoded('bob')];
    const replaced = follower.snapshot(snapshot(9, [], { participants, total: 2, oldest: 9 }));
    assert.deepEqual(words(replaced), ['-ann UNKNOWN_REASON', 'malformed', '+bob']);
  });

  it('drops messages without an incarnation or a sequence', () => {
    const follower = following(['ann']);
    assert.deepEqual(words(follower.entries(run(0, left('ann')))), ['malformed']);
    assert.deepEqual(words(follower.entries({ ...run(1), incarnation: 0 })), ['malformed']);
    assert.deepEqual(words(follower.snapshot(snapshot(0, []))), ['malformed']);
    assert.equal(follower.now(0, 1), false);
    assert.equal(follower.participants.size, 1);
  });

  it('lets all participants go at its end', () => {
    const follower = following(['ann', 'bob']);
    assert.deepEqual(words(follower.end(DisconnectReason.MIGRATION)), ['-ann MIGRATION', '-bob MIGRATION']);
    assert.equal(follower.participants.size, 0);
  });
});
