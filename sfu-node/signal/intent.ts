import { z } from 'zod';
import type { Claims, JoinIntent } from './claims.ts';

/** Longest value of a join parameter that is kept. */
const MAX_PARAM = 128;

/** A client's join from the query parameters of its `/rtc` request, or of the same as another node relayed them. */
export function intentFromParams(
  claims: Claims,
  region: string,
  params: { get(name: string): string | null | undefined },
): JoinIntent {
  const text = (name: string) => (params.get(name) ?? '').slice(0, MAX_PARAM);
  const flag = (name: string) => text(name) === '1' || text(name) === 'true';
  const protocol = Number(text('protocol'));
  return {
    claims,
    region,
    // Absent means yes: old SDKs do not send it.
    autoSubscribe: text('auto_subscribe') === '' || flag('auto_subscribe'),
    adaptiveStream: flag('adaptive_stream'),
    reconnect: flag('reconnect'),
    participantSid: text('sid'),
    protocol: Number.isInteger(protocol) && protocol > 0 ? protocol : 0,
    sdk: text('sdk'),
    sdkVersion: text('version'),
  };
}

/** The parameters that give the same intent again; `region` is one more. */
export function paramsFromIntent(intent: JoinIntent): Record<string, string> {
  return {
    auto_subscribe: intent.autoSubscribe ? '1' : '0',
    adaptive_stream: intent.adaptiveStream ? '1' : '0',
    reconnect: intent.reconnect ? '1' : '0',
    sid: intent.participantSid,
    protocol: String(intent.protocol),
    sdk: intent.sdk,
    version: intent.sdkVersion,
    region: intent.region,
  };
}

/** Claims as another node of the fleet passes them on; it has verified the token. */
export const claimsSchema = z.object({
  apiKey: z.string(),
  identity: z.string().min(1),
  name: z.string(),
  metadata: z.string(),
  attributes: z.record(z.string(), z.string()),
  room: z.string().min(1),
  canPublish: z.boolean(),
  canSubscribe: z.boolean(),
  canPublishData: z.boolean(),
  canPublishSources: z.array(z.string()),
  canUpdateOwnMetadata: z.boolean(),
  hidden: z.boolean(),
  roomAdmin: z.boolean(),
  kind: z.string(),
  mayCreateRoom: z.boolean(),
  // Older nodes do not pass these on.
  expiresAt: z.number().default(0),
  session: z.string().default(''),
}) satisfies z.ZodType<Claims>;
