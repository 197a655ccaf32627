/**
 * Names on NATS, in one place. Node names are DNS labels, so they are safe as subject tokens; room names are free text
 * and only ever stand base64url-encoded in KV keys.
 */

/** JetStream KV bucket of the routing table: one {@link Route} a room name. Written by the operator alone. */
export const ROUTES_BUCKET = 'weir_routes';

/** Key of a room's entry in the routing table. */
export function routeKey(roomName: string): string {
  return Buffer.from(roomName, 'utf8').toString('base64url');
}

export const subjects = {
  /** Heartbeats of one node. */
  heartbeat: (node: string) => `weir.heartbeat.${node}`,
  /** Heartbeats of all nodes. */
  allHeartbeats: 'weir.heartbeat.*',
  /** Request to the leading operator: place a room (EnsureRoomRequest). */
  ensureRoom: 'weir.operator.ensure-room',
  /** Request to a serving node: take a relayed client (SignalOpen). */
  signalOpen: (node: string) => `weir.signal.${node}.open`,
  /** Frames of a relayed session from the holder of the WebSocket to the serving node. */
  signalUp: (servingNode: string, session: string) => `weir.signal.${servingNode}.up.${session}`,
  /** Frames of a relayed session from the serving node to the holder. */
  signalDown: (holderNode: string, session: string) => `weir.signal.${holderNode}.down.${session}`,
} as const;
