import {
  ParticipantInfo,
  ParticipantInfo_Kind,
  ParticipantInfo_State,
  ParticipantPermission,
  SessionDescription,
  SignalResponse,
  TrackSource,
} from '@livekit/protocol';
import type { Claims, JoinIntent } from '../signal/claims.ts';
import type { SignalChannel } from '../signal/channel.ts';
import { closeCodes, leaveAndReconnect, leaveForGood } from '../signal/leave.ts';
import type { Publisher } from './publisher.ts';
import { publishesFast } from './sdk-needs.ts';
import type { Subscriber } from './subscriber.ts';
import type { Site } from './site.ts';
import type { LocalTrack, PublishedTrack } from './track.ts';
import type { DisconnectReason, TrackInfo } from '@livekit/protocol';

/** One client in a room on this node: who it is, its signalling, its two connections and its tracks. */
export class Participant {
  readonly sid: string;
  readonly identity: string;
  readonly claims: Claims;
  readonly intent: JoinIntent;
  readonly info: ParticipantInfo;
  /** Tracks announced by AddTrack and not yet sent, by client id. */
  readonly announced = new Map<string, TrackInfo>();
  /** Tracks that are sent, by sid. */
  readonly tracks = new Map<string, LocalTrack>();
  /** Tracks that the client subscribed to (true) or unsubscribed from (false) itself; otherwise autoSubscribe decides. */
  readonly choices = new Map<string, boolean>();
  /** Where its connections are, once they are made. */
  site: Site | undefined;
  publisher: Publisher | undefined;
  subscriber: Subscriber | undefined;
  /** Fate of the signalling channel: it may be replaced by a resumed session. */
  channel: SignalChannel;
  /** Ends the wait for its media to come up, or for a lost channel to come back. */
  cancelGrace: () => void = () => undefined;
  /** Ends the wait for its next token. */
  cancelToken: () => void = () => undefined;
  /** When its channel began, milliseconds since the epoch. */
  channelSince: number;
  /** Its channel is gone and not yet back. */
  signalLost = false;
  removed = false;

  constructor(sid: string, intent: JoinIntent, channel: SignalChannel, region: string, now: number) {
    const { claims } = intent;
    this.sid = sid;
    this.identity = claims.identity;
    this.claims = claims;
    this.intent = intent;
    this.channel = channel;
    this.channelSince = now;
    this.info = new ParticipantInfo({
      sid,
      identity: claims.identity,
      name: claims.name,
      metadata: claims.metadata,
      attributes: { ...claims.attributes },
      state: ParticipantInfo_State.JOINED,
      joinedAt: BigInt(Math.floor(now / 1000)),
      joinedAtMs: BigInt(now),
      region,
      version: 1,
      kind: participantKinds[claims.kind] ?? ParticipantInfo_Kind.STANDARD,
      permission: new ParticipantPermission({
        canPublish: claims.canPublish,
        canSubscribe: claims.canSubscribe,
        canPublishData: claims.canPublishData,
        canPublishSources: claims.canPublishSources.map((source) => trackSources[source] ?? TrackSource.UNKNOWN),
        canUpdateMetadata: claims.canUpdateOwnMetadata,
        hidden: claims.hidden,
      }),
    });
  }

  /** Published plus subscribed tracks. */
  get streams(): number {
    return this.tracks.size + (this.subscriber?.streams ?? 0);
  }

  /**
   * Whether it can go on where it was, with other signalling. Not while its first offer, or our answer, may have been lost
   * with the signalling before: SDKs go on waiting for that one, with nothing to fall back to.
   */
  get resumable(): boolean {
    if (this.publisher?.connected) return true;
    return !this.publisher?.offered && this.announced.size === 0 && !publishesFast(this.intent);
  }

  send(message: SignalResponse['message']): void {
    this.channel.send(new SignalResponse({ message }));
  }

  sendOffer(sdp: string, id: number): void {
    this.send({ case: 'offer', value: new SessionDescription({ type: 'offer', sdp, id }) });
  }

  /** Whether a track of this source may be published under the token's grant. */
  mayPublish(source: TrackSource): boolean {
    if (!this.claims.canPublish) return false;
    const allowed = this.claims.canPublishSources;
    return allowed.length === 0 || allowed.some((name) => trackSources[name] === source);
  }

  /** Whether a track is to be sent to this participant. */
  wants(track: PublishedTrack): boolean {
    if (!this.claims.canSubscribe || track.publisherSid === this.sid) return false;
    return this.choices.get(track.sid) ?? this.intent.autoSubscribe;
  }

  /** Marks a change of the participant's info, so that clients take it for the newer one. */
  touch(): ParticipantInfo {
    this.info.tracks = [...this.tracks.values()].map(({ info }) => info);
    this.info.isPublisher = this.tracks.size > 0;
    this.info.version += 1;
    return this.info;
  }

  /** Ends the client's session for good: it will not come back by itself. */
  dismiss(reason: DisconnectReason, why: string): void {
    this.channel.send(leaveForGood(reason));
    this.channel.close(closeCodes.normal, why);
  }

  /** Sends the client through a new join, to whichever node serves the room by then. */
  sendAway(reason: DisconnectReason, why: string): void {
    this.channel.send(leaveAndReconnect(reason));
    this.channel.close(closeCodes.restart, why);
  }

  close(): void {
    this.removed = true;
    this.cancelGrace();
    this.cancelToken();
    this.publisher?.close();
    this.subscriber?.close();
  }
}

const trackSources: Record<string, TrackSource> = {
  camera: TrackSource.CAMERA,
  microphone: TrackSource.MICROPHONE,
  screen_share: TrackSource.SCREEN_SHARE,
  screen_share_audio: TrackSource.SCREEN_SHARE_AUDIO,
};

const participantKinds: Record<string, ParticipantInfo_Kind> = {
  standard: ParticipantInfo_Kind.STANDARD,
  ingress: ParticipantInfo_Kind.INGRESS,
  egress: ParticipantInfo_Kind.EGRESS,
  sip: ParticipantInfo_Kind.SIP,
  agent: ParticipantInfo_Kind.AGENT,
};
