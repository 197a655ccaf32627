import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SignJWT } from 'jose';
import { codeOf } from '#platform/errors.ts';
import { parseApiKeys } from './api-keys.ts';
import { verifyToken } from './token.ts';

const secret = 'a secret that is long enough for HS256';
const keys = parseApiKeys(`- { key: k, secret: "${secret}", createRooms: true }`, 'keys.yaml');
const now = 1_800_000_000_000;

function sign(claims: Record<string, unknown>, algorithm = 'HS256'): Promise<string> {
  const payload = { iss: 'k', sub: 'ann', exp: now / 1000 + 60, video: { room: 'r', roomJoin: true }, ...claims };
  return new SignJWT(payload).setProtectedHeader({ alg: algorithm }).sign(new TextEncoder().encode(secret));
}

async function codeFor(claims: Record<string, unknown>, algorithm?: string): Promise<string> {
  return verifyToken(await sign(claims, algorithm), keys, now).then(
    () => 'ok',
    (error: unknown) => codeOf(error),
  );
}

describe('an access token', () => {
  it('grants everything that it does not deny', async () => {
    const claims = await verifyToken(await sign({ name: 'Ann', metadata: 'm', attributes: { a: 'b' } }), keys, now);
    assert.deepEqual(claims, {
      apiKey: 'k',
      identity: 'ann',
      name: 'Ann',
      metadata: 'm',
      attributes: { a: 'b' },
      room: 'r',
      canPublish: true,
      canSubscribe: true,
      canPublishData: true,
      canPublishSources: [],
      canUpdateOwnMetadata: false,
      hidden: false,
      roomAdmin: false,
      kind: 'standard',
      mayCreateRoom: true,
      expiresAt: now / 1000 + 60,
      session: '',
    });
  });

  it('that may not publish may not publish data either, unless it says so', async () => {
    const video = { room: 'r', roomJoin: true, canPublish: false };
    assert.equal((await verifyToken(await sign({ video }), keys, now)).canPublishData, false);
    const data = { ...video, canPublishData: true };
    assert.equal((await verifyToken(await sign({ video: data }), keys, now)).canPublishData, true);
  });

  const cases: [string, Record<string, unknown>, string][] = [
    ['is good until the moment it expires', { exp: now / 1000 + 1 }, 'ok'],
    ['is refused from the moment it expires', { exp: now / 1000 }, 'TokenExpired'],
    ['is refused without an expiry', { exp: undefined }, 'TokenInvalid'],
    ['may be made by a clock that is a little ahead', { nbf: now / 1000 + 4 }, 'ok'],
    ['is refused before its time', { nbf: now / 1000 + 6 }, 'TokenNotYetValid'],
    ['is refused with a key that is not known', { iss: 'other' }, 'TokenUnknownKey'],
    ['is refused without a key', { iss: undefined }, 'TokenUnknownKey'],
    ['is refused without a grant', { video: undefined }, 'GrantMissing'],
    ['is refused without the join grant', { video: { room: 'r' } }, 'GrantMissing'],
    ['is refused without a room', { video: { roomJoin: true } }, 'GrantMissing'],
    ['is refused with a claim of the wrong shape', { video: { room: 1, roomJoin: true } }, 'TokenInvalid'],
    ['is refused with a name beyond the limit', { name: 'é'.repeat(129) }, 'TokenInvalid'],
  ];
  for (const [name, claims, code] of cases) {
    it(name, async () => assert.equal(await codeFor(claims), code));
  }

  it('is refused with another algorithm, even when the signature is right', async () => {
    assert.equal(await codeFor({}, 'HS512'), 'TokenBadSignature');
  });
});

describe('a file of API keys', () => {
  const cases: [string, string][] = [
    ['is refused when it is no YAML', '{'],
    ['is refused when it is no list', 'key: a'],
    ['is refused when a secret is missing', '- key: a'],
    ['is refused when a key stands there twice', '- { key: a, secret: s }\n- { key: a, secret: t }'],
  ];
  for (const [name, text] of cases) {
    it(name, () => assert.throws(() => parseApiKeys(text, 'f'), { code: 'BadApiKeys' }));
  }

  it('never shows a secret in an error', () => {
    assert.throws(
      () => parseApiKeys('- { key: a, secret: hush }\n- { key: a, secret: hush }', 'f'),
      (error: Error) => !error.message.includes('hush'),
    );
  });
});
