import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ParticipantInfo } from '@livekit/protocol';
import { FakeClock } from '#platform/fake-clock.ts';
import { gatherMs, ParticipantNews } from './participant-news.ts';

function setUp() {
  const clock = new FakeClock();
  const told: string[][] = [];
  const news = new ParticipantNews(clock, (infos) => told.push(infos.map(({ sid, version }) => `${sid} ${version}`)));
  const take = (sid: string, version = 1) => news.take(new ParticipantInfo({ sid, version }));
  return { clock, told, news, take };
}

test('a change after a quiet time is told at once', () => {
  const { clock, told, take } = setUp();
  take('ada');
  assert.deepEqual(told, [['ada 1']]);
  clock.advance(gatherMs);
  take('bob');
  assert.deepEqual(told, [['ada 1'], ['bob 1']]);
});

test('many changes at once are told together, each participant as it is last', () => {
  const { clock, told, take } = setUp();
  for (const sid of ['ada', 'bob', 'cyd']) take(sid);
  take('bob', 2);
  assert.deepEqual(told, [['ada 1']]);
  clock.advance(gatherMs);
  assert.deepEqual(told.splice(0), [['ada 1'], ['bob 2', 'cyd 1']]);
  take('dan');
  assert.deepEqual(told, [], 'it goes on gathering for as long as changes come');
  clock.advance(gatherMs);
  assert.deepEqual(told, [['dan 1']]);
});

test('what was gathered can be told early, and is told once', () => {
  const { clock, told, news, take } = setUp();
  take('ada');
  take('bob');
  news.flush();
  clock.advance(gatherMs);
  assert.deepEqual(told, [['ada 1'], ['bob 1']]);
});

test('nothing is told after the end', () => {
  const { clock, told, news, take } = setUp();
  take('ada');
  take('bob');
  news.close();
  clock.advance(gatherMs);
  assert.deepEqual(told, [['ada 1']]);
});
