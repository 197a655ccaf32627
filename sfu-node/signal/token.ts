import { decodeJwt, decodeProtectedHeader, errors, jwtVerify, type JWTPayload } from 'jose';
import { z } from 'zod';
import { WeirError } from '#platform/errors.ts';
import type { ApiKey } from './api-keys.ts';
import type { Claims } from './claims.ts';

/** Limits of what a token may carry, in UTF-8 bytes. Metadata is bounded by the token. */
export const TOKEN_LIMITS = { token: 16 * 1024, identity: 256, name: 256, room: 256, attributes: 8 * 1024 } as const;

/** Clocks of token makers may be this many seconds ahead of ours. */
const NOT_BEFORE_TOLERANCE_SECONDS = 5;

export interface TokenKeys {
  get(key: string): ApiKey | undefined;
}

const payloadSchema = z.object({
  exp: z.number(),
  sub: z.string().default(''),
  name: z.string().default(''),
  metadata: z.string().default(''),
  attributes: z.record(z.string(), z.string()).default({}),
  kind: z.string().default('standard'),
  video: z
    .object({
      room: z.string().default(''),
      roomJoin: z.boolean().default(false),
      roomAdmin: z.boolean().default(false),
      canPublish: z.boolean().default(true),
      canSubscribe: z.boolean().default(true),
      canPublishData: z.boolean().optional(),
      canPublishSources: z.array(z.string()).default([]),
      canUpdateOwnMetadata: z.boolean().default(false),
      hidden: z.boolean().default(false),
    })
    .optional(),
  weir: z.object({ session: z.string().default('') }).default({ session: '' }),
});

/**
 * Verifies a LiveKit access token and maps its grant.
 * @param now milliseconds since the epoch
 * @throws WeirError Token... (HTTP 401: who are you) or GrantMissing (HTTP 403: you may not)
 */
export async function verifyToken(token: string, keys: TokenKeys, now: number): Promise<Claims> {
  if (token === '') {
    const words = 'no access token: pass it as access_token in the query or in the Authorization header as Bearer';
    throw new WeirError('TokenMissing', words);
  }
  if (Buffer.byteLength(token) > TOKEN_LIMITS.token) {
    const words = `the access token is longer than ${TOKEN_LIMITS.token} bytes: put less into its metadata`;
    throw new WeirError('TokenTooLarge', words);
  }
  const key = signingKey(token, keys);
  const payload = await verifiedPayload(token, key, now);
  const parsed = payloadSchema.safeParse(payload);
  if (!parsed.success) {
    const wrong = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ');
    throw new WeirError('TokenInvalid', `the access token has a claim of the wrong shape: ${wrong}`);
  }
  // The tolerance is for not-before alone.
  if (parsed.data.exp * 1000 <= now) throw expired();
  return toClaims(parsed.data, key);
}

function signingKey(token: string, keys: TokenKeys): ApiKey {
  let issuer: string | undefined;
  let algorithm: string | undefined;
  try {
    algorithm = decodeProtectedHeader(token).alg;
    issuer = decodeJwt(token).iss;
  } catch {
    throw new WeirError('TokenMalformed', 'the access token is no JWT');
  }
  if (algorithm !== 'HS256') {
    const words = `the access token is signed with ${String(algorithm)}: sign it with HS256 and the API key's secret`;
    throw new WeirError('TokenBadSignature', words);
  }
  const key = typeof issuer === 'string' ? keys.get(issuer) : undefined;
  if (!key) {
    const words = 'the access token names an API key (iss) that this fleet does not know';
    throw new WeirError('TokenUnknownKey', words);
  }
  return key;
}

async function verifiedPayload(token: string, key: ApiKey, now: number): Promise<JWTPayload> {
  try {
    const { payload } = await jwtVerify(token, key.secret, {
      algorithms: ['HS256'],
      issuer: key.key,
      requiredClaims: ['exp'],
      currentDate: new Date(now),
      clockTolerance: NOT_BEFORE_TOLERANCE_SECONDS,
    });
    return payload;
  } catch (error) {
    if (error instanceof errors.JWSSignatureVerificationFailed) {
      const words = "the access token's signature does not match the secret of its API key";
      throw new WeirError('TokenBadSignature', words);
    }
    if (error instanceof errors.JWTExpired) throw expired();
    if (error instanceof errors.JWTClaimValidationFailed && error.claim === 'nbf') {
      throw new WeirError('TokenNotYetValid', 'the access token is not valid yet (nbf): check the clock of its maker');
    }
    if (error instanceof errors.JWTClaimValidationFailed && error.claim === 'exp') {
      throw new WeirError('TokenInvalid', 'the access token has no usable expiry (exp): give it one');
    }
    throw new WeirError('TokenInvalid', 'the access token cannot be verified', { cause: error });
  }
}

function expired(): WeirError {
  return new WeirError('TokenExpired', 'the access token has expired: get a new one');
}

function toClaims(payload: z.infer<typeof payloadSchema>, key: ApiKey): Claims {
  const grant = payload.video;
  if (!grant) throw new WeirError('GrantMissing', 'the access token has no video grant: add roomJoin and room');
  if (!grant.roomJoin) throw new WeirError('GrantMissing', 'the access token does not allow to join: add roomJoin');
  if (grant.room === '') throw new WeirError('GrantMissing', 'the access token names no room: add room');
  if (payload.sub === '')
    throw new WeirError('GrantMissing', 'the access token names no participant: set its identity');
  checkSize('identity', payload.sub, TOKEN_LIMITS.identity);
  checkSize('name', payload.name, TOKEN_LIMITS.name);
  checkSize('room', grant.room, TOKEN_LIMITS.room);
  checkSize('attributes', JSON.stringify(payload.attributes), TOKEN_LIMITS.attributes);
  return {
    apiKey: key.key,
    identity: payload.sub,
    name: payload.name,
    metadata: payload.metadata,
    attributes: payload.attributes,
    room: grant.room,
    canPublish: grant.canPublish,
    canSubscribe: grant.canSubscribe,
    canPublishData: grant.canPublishData ?? grant.canPublish,
    canPublishSources: grant.canPublishSources.map((source) => source.toLowerCase()),
    canUpdateOwnMetadata: grant.canUpdateOwnMetadata,
    hidden: grant.hidden,
    roomAdmin: grant.roomAdmin,
    kind: payload.kind,
    mayCreateRoom: key.createRooms,
    expiresAt: payload.exp,
    session: payload.weir.session,
  };
}

function checkSize(claim: string, value: string, limit: number): void {
  if (Buffer.byteLength(value) > limit) {
    throw new WeirError('TokenInvalid', `the ${claim} in the access token is longer than ${limit} bytes`);
  }
}
