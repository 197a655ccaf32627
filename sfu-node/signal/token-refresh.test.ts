import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SignJWT } from 'jose';
import { parseApiKeys } from './api-keys.ts';
import { freshToken, type Bearer } from './token-refresh.ts';
import { verifyToken } from './token.ts';

const secret = 'a secret that is long enough for HS256';
const keys = parseApiKeys(`- { key: k, secret: "${secret}", createRooms: true }`, 'keys.yaml');
const now = 1_800_000_000_000;

async function bearer(validSeconds: number, info: Partial<Bearer['info']> = {}): Promise<Bearer> {
  const token = await new SignJWT({
    name: 'Ann',
    metadata: 'first',
    attributes: { a: 'b' },
    kind: 'agent',
    video: { room: 'r', roomJoin: true, canPublish: true, canPublishSources: ['camera'], hidden: true },
  })
    .setProtectedHeader({ alg: 'HS256' })
    .setIssuer('k')
    .setSubject('ann')
    .setExpirationTime(now / 1000 + validSeconds)
    .sign(new TextEncoder().encode(secret));
  const claims = await verifyToken(token, keys, now);
  return { sid: 'PA_1', claims, info: { name: 'Ann', metadata: 'first', attributes: { a: 'b' }, ...info } };
}

describe('a fresh token', () => {
  it('grants what the first one does, is good for longer, and says which session it is for', async () => {
    const from = await bearer(60);
    const later = now + 50_000;
    const claims = await verifyToken((await freshToken(from, keys, later))!, keys, later + 500_000);
    assert.deepEqual(claims, { ...from.claims, expiresAt: later / 1000 + 600, session: 'PA_1' });
  });

  it('is good for no shorter than the first one', async () => {
    const claims = await verifyToken((await freshToken(await bearer(7200), keys, now))!, keys, now);
    assert.equal(claims.expiresAt, now / 1000 + 7200);
  });

  it('keeps what a client changed of itself', async () => {
    const from = await bearer(60, { name: 'Anna', metadata: 'second', attributes: { c: 'd' } });
    const { name, metadata, attributes } = await verifyToken((await freshToken(from, keys, now))!, keys, now);
    assert.deepEqual({ name, metadata, attributes }, { name: 'Anna', metadata: 'second', attributes: { c: 'd' } });
  });

  for (const [says, info] of [
    ['metadata', { metadata: 'm'.repeat(60_000) }],
    ['a name', { name: 'n'.repeat(300) }],
    ['attributes', { attributes: { a: 'b'.repeat(9000) } }],
  ] as const) {
    it(`leaves out changes with ${says} beyond what a token may carry`, async () => {
      const from = await bearer(60, info);
      const { name, metadata, attributes } = await verifyToken((await freshToken(from, keys, now))!, keys, now);
      assert.deepEqual({ name, metadata, attributes }, { name: 'Ann', metadata: 'first', attributes: { a: 'b' } });
    });
  }

  it('is not made when the first one was so long that there is no room for the mark', async () => {
    const from = await bearer(60);
    const claims = { ...from.claims, metadata: 'm'.repeat(12_000) };
    const long = { ...from, claims, info: { ...from.info, metadata: claims.metadata } };
    assert.equal(await freshToken(long, keys, now), undefined);
  });

  it('is not made with a key that is gone', async () => {
    assert.equal(await freshToken(await bearer(60), new Map(), now), undefined);
  });
});
