/** What a verified LiveKit access token allows its bearer. */
export interface Claims {
  /** API key that signed the token. */
  readonly apiKey: string;
  /** Identity of the participant (the token's `sub`). */
  readonly identity: string;
  readonly name: string;
  readonly metadata: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly room: string;
  readonly canPublish: boolean;
  readonly canSubscribe: boolean;
  readonly canPublishData: boolean;
  /** Lower-case source names (camera, microphone, screen_share, screen_share_audio); empty for all. */
  readonly canPublishSources: readonly string[];
  readonly canUpdateOwnMetadata: boolean;
  readonly hidden: boolean;
  readonly roomAdmin: boolean;
  /** participant kind as LiveKit names it: standard, ingress, egress, sip, agent. */
  readonly kind: string;
  /** The key's policy allows a first join to make the Room object. */
  readonly mayCreateRoom: boolean;
  /** When the token expires, seconds since the epoch. */
  readonly expiresAt: number;
  /** The session that this fleet made the token for: the client had one and comes back. Empty for anybody's first token. */
  readonly session: string;
}

/** One client's wish to join, checked and ready for the node that serves the room. */
export interface JoinIntent {
  readonly claims: Claims;
  /** Where the client is; empty when it is not known. */
  readonly region: string;
  /** Subscribe to everything that is published. */
  readonly autoSubscribe: boolean;
  readonly adaptiveStream: boolean;
  /** The client tries to resume a session (`reconnect=1`), with the participant sid it had. */
  readonly reconnect: boolean;
  readonly participantSid: string;
  /** LiveKit protocol version that the client speaks. */
  readonly protocol: number;
  readonly sdk: string;
  readonly sdkVersion: string;
}
