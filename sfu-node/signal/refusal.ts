import { codeOf } from '#platform/errors.ts';

/**
 * HTTP status of a client that is refused before the upgrade, by the error's code. LiveKit SDKs give up on 401, 403 and
 * (with the words "requested room does not exist") 404, and try again on the others.
 */
const statuses: Readonly<Record<string, number>> = {
  TokenMissing: 401,
  TokenTooLarge: 401,
  TokenMalformed: 401,
  TokenUnknownKey: 401,
  TokenBadSignature: 401,
  TokenExpired: 401,
  TokenNotYetValid: 401,
  TokenInvalid: 401,
  GrantMissing: 403,
  RoomMismatch: 403,
  RoomNotFound: 404,
  NotFound: 404,
  MethodNotAllowed: 405,
  UpgradeInvalid: 400,
  InvalidRoomName: 400,
  TooManyRequests: 429,
  RoomFull: 503,
};

/** HTTP status for an error; 503 for what may pass, 500 for what nobody thought of. */
export function statusOf(error: unknown): number {
  const code = codeOf(error);
  return statuses[code] ?? (code === 'Internal' ? 500 : 503);
}

/** Whether a failed join says something about this node: neither what the client sent nor a full or moved room does. */
export function isNodeFault(error: unknown): boolean {
  return statusOf(error) >= 500 && !['RoomFull', 'RoomNotServed', 'NodeFull'].includes(codeOf(error));
}
