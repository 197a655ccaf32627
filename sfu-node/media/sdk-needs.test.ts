import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { JoinIntent } from '../signal/claims.ts';
import { firstOfferDelayMs, publishesFast, settlesInMs } from './sdk-needs.ts';

function intent(sdk: string, claims: { canPublish?: boolean; session?: string } = {}): JoinIntent {
  return { sdk, claims: { canPublish: true, session: '', ...claims } } as JoinIntent;
}

test('SDKs on the Rust core that may publish connect for it at once, others do not', () => {
  for (const sdk of ['node', 'python', 'rust', 'cpp', 'unity']) assert.equal(publishesFast(intent(sdk)), true, sdk);
  for (const sdk of ['js', 'swift', 'android', '']) assert.equal(publishesFast(intent(sdk)), false, sdk);
  assert.equal(publishesFast(intent('node', { canPublish: false })), false);
});

test('livekit-client waits for its first offer when it comes back with tracks of its own, and nobody else ever', () => {
  const session = 'PA_before';
  assert.ok(firstOfferDelayMs(intent('js', { session })) > 0);
  assert.equal(firstOfferDelayMs(intent('js')), 0);
  assert.equal(firstOfferDelayMs(intent('js', { session, canPublish: false })), 0);
  assert.equal(firstOfferDelayMs(intent('node', { session })), 0);
});

test('a client can be told to join anew two seconds after its session began', () => {
  assert.equal(settlesInMs(10_000, 10_000), 2000);
  assert.equal(settlesInMs(10_000, 11_500), 500);
  assert.equal(settlesInMs(10_000, 60_000), 0);
});
