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

/** The room's name of a key of {@link routeKey}. */
export function roomNameOfKey(key: string): string {
  return Buffer.from(key, 'base64url').toString('utf8');
}

export const subjects = {
  /**
   * An entry of the routing table, from the leading operator to all nodes while it is being written (Route). The table takes
   * writes only when its servers agree, which after the loss of one may be seconds later.
   */
  route: 'weir.route',
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
  /** Request to a node: open your half of a cascade link (LinkOffer). */
  linkOffer: (node: string) => `weir.cascade.${node}.offer`,
  /** Request to the sending end of a link: what is wanted of a track (TrackRequest). */
  linkTrack: (node: string) => `weir.cascade.${node}.track`,
  /** To the other end of a link: it is closed (LinkClose). */
  linkClose: (node: string) => `weir.cascade.${node}.close`,
  /** To the receiving end of a link: a track comes as another stream (TrackChanged). */
  linkStream: (node: string) => `weir.cascade.${node}.stream`,
  /** What happened to participants of a room, from each of its nodes to the others (FeedEntries). */
  roomFeed: (roomUid: string) => `weir.room.${roomUid}.feed`,
  /** What of a room changes all the time, from each of its nodes to the others (RoomNow). */
  roomNow: (roomUid: string) => `weir.room.${roomUid}.now`,
  /** Request to a node: its feed of a room (FeedRequest). */
  feed: (node: string) => `weir.feed.${node}`,
} as const;
