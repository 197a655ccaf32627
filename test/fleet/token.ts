import { SignJWT } from 'jose';

/** What a token grants. Defaults: join, publish, subscribe, data; valid for an hour from a minute ago. */
export interface TokenOptions {
  apiKey: string;
  apiSecret: string;
  room: string;
  identity: string;
  name?: string;
  metadata?: string;
  attributes?: Record<string, string>;
  /** Merged over the default video grant. */
  grant?: Record<string, unknown>;
  /** Seconds from now; negative for a token that has expired. */
  expiresIn?: number;
  /** Seconds from now before which it is not valid. */
  notBefore?: number;
}

/** A LiveKit access token. Written out with jose so that tests can also make wrong ones. */
export async function createToken(options: TokenOptions): Promise<string> {
  const now = Math.floor(Date.now() / 1000);
  const video = {
    room: options.room,
    roomJoin: true,
    canPublish: true,
    canSubscribe: true,
    canPublishData: true,
    ...options.grant,
  };
  return await new SignJWT({ video, name: options.name, metadata: options.metadata, attributes: options.attributes })
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .setIssuer(options.apiKey)
    .setSubject(options.identity)
    .setNotBefore(now + (options.notBefore ?? -60))
    .setExpirationTime(now + (options.expiresIn ?? 3600))
    .sign(new TextEncoder().encode(options.apiSecret));
}
