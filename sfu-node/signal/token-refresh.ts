import { SignJWT } from 'jose';
import type { Claims } from './claims.ts';
import { type TokenKeys, verifyToken } from './token.ts';

/** A fresh token is good for so long at least, seconds; LiveKit's own figure. */
const FRESH_SECONDS = 600;

/** The session that a token is made for. */
export interface Bearer {
  readonly sid: string;
  readonly claims: Claims;
  /** What it calls itself by now. */
  readonly info: { readonly name: string; readonly metadata: string; readonly attributes: Record<string, string> };
}

/**
 * A token with which a client can come back when its own has expired: with the same grants, with what it changed of
 * itself (when that is not too much for a token), and with the mark of its session.
 * @param now milliseconds since the epoch
 * @returns undefined when there is none that would be taken: the key of the first one is gone, or that one had no room for
 * the mark. The client then comes back with the first one, while it is good
 */
export async function freshToken(bearer: Bearer, keys: TokenKeys, now: number): Promise<string | undefined> {
  const key = keys.get(bearer.claims.apiKey);
  if (!key) return undefined;
  for (const person of [bearer.info, bearer.claims]) {
    const token = await sign(bearer, person, key.secret, now);
    const isTaken = await verifyToken(token, keys, now).then(
      () => true,
      () => false,
    );
    if (isTaken) return token;
  }
  return undefined;
}

function sign(
  { sid, claims }: Bearer,
  { name, metadata, attributes }: Pick<Claims, 'name' | 'metadata' | 'attributes'>,
  secret: Uint8Array,
  now: number,
): Promise<string> {
  const { room, canPublish, canSubscribe, canPublishData, canPublishSources } = claims;
  const { canUpdateOwnMetadata, hidden, roomAdmin, kind } = claims;
  const video = {
    ...{ room, roomJoin: true, canPublish, canSubscribe, canPublishData, canPublishSources },
    ...{ canUpdateOwnMetadata, hidden, roomAdmin },
  };
  const seconds = Math.floor(now / 1000);
  return new SignJWT({ video, name, metadata, attributes, kind, weir: { session: sid } })
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .setIssuer(claims.apiKey)
    .setSubject(claims.identity)
    .setNotBefore(seconds)
    .setExpirationTime(Math.max(claims.expiresAt, seconds + FRESH_SECONDS))
    .sign(secret);
}
