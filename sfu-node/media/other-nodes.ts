import {
  ConnectionQualityInfo,
  DataPacket,
  DisconnectReason,
  ParticipantInfo_State,
  type ParticipantInfo,
  type SpeakerInfo,
  type TrackInfo,
} from '@livekit/protocol';
import type { Assignment, LinkStatus } from '#proto/weir/control/v1/control.ts';
import type { RoomData, RoomNow } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import type { Logger } from '#platform/log.ts';
import type { Cascade } from '../cascade/cascade.ts';
import type { Feeds } from '../cascade/feed/feeds.ts';
import { RoomFeed } from '../cascade/feed/room-feed.ts';
import type { LinkListen } from '../cascade/link.ts';
import { RoomLinks } from '../cascade/room-links.ts';
import type { NodeMetrics } from '../metrics.ts';
import type { DataKind } from './data-channels.ts';
import { isNewer, RemoteParticipants, type RemoteParticipant } from './remote-participants.ts';
import type { Site } from './site.ts';
import { RemoteSpeakers } from './speakers.ts';
import { PublishedTrack } from './track.ts';

/** What the side of a room that is on this node offers to the side that is on others. */
export interface RoomHere {
  /** A track of the room, published here or elsewhere. */
  findTrack(sid: string): PublishedTrack | undefined;
  isSpeaking(participantSid: string): boolean;
  /** The participant of an identity that is connected here. */
  infoOf(identity: string): ParticipantInfo | undefined;
  /** The identity has joined again on another node: its session here ends. */
  replace(identity: string): void;
  /** Tells clients of a participant of another node. */
  tellOf(info: ParticipantInfo): void;
  tellSpeakers(speakers: SpeakerInfo[]): void;
  tellQualities(qualities: ConnectionQualityInfo[]): void;
  deliver(fromSid: string, kind: DataKind, packet: DataPacket, bytes: Uint8Array): void;
  /** A track came that clients here may want. */
  offer(track: PublishedTrack): void;
  /** A track is gone. */
  end(track: PublishedTrack): void;
  trackFailed(sid: string, error: unknown): void;
  /** State or figures of a link changed. */
  onStatus(): void;
}

export interface OtherNodesOptions {
  /** Name of this node. */
  readonly node: string;
  /** When the room started here, milliseconds since the epoch. */
  readonly startedAt: number;
  readonly assignment: Assignment;
  /** Where links end. */
  readonly site: Site;
  readonly cascade: Cascade;
  readonly feeds: Feeds;
  readonly linkListen: LinkListen;
  readonly newId: (prefix: string) => string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: NodeMetrics;
  readonly here: RoomHere;
}

/** A room as it is on other nodes: their participants and tracks, and the ways to and from them. */
export class OtherNodes {
  readonly #options: OtherNodesOptions;
  readonly #here: RoomHere;
  readonly #feed: RoomFeed;
  readonly #links: RoomLinks;
  readonly #remotes = new RemoteParticipants();
  readonly #speakers: RemoteSpeakers;

  constructor(options: OtherNodesOptions) {
    const { node, startedAt, assignment, site, cascade, feeds, linkListen, newId, clock, log, metrics, here } = options;
    this.#options = options;
    this.#here = here;
    this.#speakers = new RemoteSpeakers(clock, (changed) => here.tellSpeakers(changed));
    this.#links = new RoomLinks({
      ...{ cascade, node, site, listen: linkListen, assignment, newId, clock, log, metrics },
      track: (sid) => here.findTrack(sid),
      nodeOf: (sid) => this.#remotes.track(sid)?.remote.node,
      isSpeaking: (sid) => here.isSpeaking(sid),
      onStatus: () => here.onStatus(),
    });
    this.#feed = RoomFeed.create({
      roomUid: assignment.room?.uid ?? '',
      ...{ node, incarnation: startedAt, feeds, clock, log },
      events: {
        participant: (from, info) => this.#changed(from, info),
        left: (_from, sid, reason) => this.#left(sid, reason),
        reliable: (_from, data) => this.#deliver('reliable', data),
        now: (_from, now) => this.#now(now),
      },
    });
  }

  /** Participants that clients see. */
  get participants(): ParticipantInfo[] {
    return this.#remotes.shown.map(({ info }) => info);
  }

  *tracks(): Iterable<PublishedTrack> {
    for (const { tracks } of this.#remotes.shown) yield* tracks.values();
  }

  /** The node that a participant is connected to. */
  nodeOf(participantSid: string): string | undefined {
    return this.#remotes.get(participantSid)?.node;
  }

  findTrack(sid: string): PublishedTrack | undefined {
    return this.#remotes.track(sid)?.track;
  }

  /** Status of the links to this node's neighbours. */
  get links(): LinkStatus[] {
    return this.#links.statuses;
  }

  /** Takes where the room is, and how its nodes are linked, from an assignment. */
  follow(assignment: Assignment): void {
    this.#feed.setPeers(
      assignment.placement.map((placed) => placed.node).filter((name) => name !== this.#options.node),
    );
    this.#links.update(assignment);
  }

  /** A participant of this node joined or changed. */
  announce(info: ParticipantInfo): void {
    this.#feed.participant(info);
  }

  /** A participant of this node left. */
  left(sid: string, reason: DisconnectReason): void {
    this.#feed.left(sid, reason);
  }

  /** A participant of this node sent data. */
  send(fromSid: string, kind: DataKind, packet: Uint8Array): void {
    const { buffer, byteOffset, byteLength } = packet;
    const data: RoomData = { sid: fromSid, packet: Buffer.from(buffer, byteOffset, byteLength) };
    if (kind === 'reliable') this.#feed.reliable(data);
    else this.#feed.now({ speakers: [], qualities: [], data: [data] });
  }

  speakers(changed: readonly SpeakerInfo[]): void {
    this.#feed.now({ speakers: changed.map(({ sid, level }) => ({ sid, level })), qualities: [], data: [] });
  }

  qualities(infos: readonly ConnectionQualityInfo[]): void {
    const qualities = infos.map(({ participantSid, quality, score }) => ({ sid: participantSid, quality, score }));
    if (qualities.length > 0) this.#feed.now({ speakers: [], qualities, data: [] });
  }

  /** An identity joins here: clients see its session here from now on. */
  supersede(identity: string): void {
    for (const remote of this.#remotes.of(identity)) this.#supersede(remote);
  }

  /** A track, of this node or another, has ended. */
  forget(trackSid: string): void {
    this.#links.forget(trackSid);
  }

  close(): void {
    this.#speakers.close();
    this.#feed.close();
    this.#links.close();
  }

  /** A participant of another node joined or changed. */
  #changed(node: string, info: ParticipantInfo): void {
    const known = this.#remotes.get(info.sid);
    const remote = known ?? this.#remotes.add(node, info);
    remote.info = info;
    if (!known) this.#settleIdentity(remote);
    if (remote.superseded) return;
    const named = new Set(info.tracks.map(({ sid }) => sid));
    for (const [sid, track] of remote.tracks) {
      if (named.has(sid)) continue;
      remote.tracks.delete(sid);
      this.#here.end(track);
    }
    this.#here.tellOf(info);
    for (const trackInfo of info.tracks) {
      const track = remote.tracks.get(trackInfo.sid);
      if (track) track.info = trackInfo;
      else this.#addTrack(remote, trackInfo);
    }
  }

  #addTrack(remote: RemoteParticipant, info: TrackInfo): void {
    const origin = this.#links.origin(info.sid, remote.node, () => track.refresh());
    const track: PublishedTrack = new PublishedTrack(remote.info, info, origin, (error) =>
      this.#here.trackFailed(info.sid, error),
    );
    remote.tracks.set(info.sid, track);
    this.#here.offer(track);
  }

  #left(sid: string, reason: DisconnectReason): void {
    const remote = this.#remotes.get(sid);
    if (!remote) return;
    this.#remotes.delete(sid);
    if (!remote.superseded) this.#hide(remote, reason);
  }

  /** Clients see one session of an identity: the newest, wherever it is. */
  #settleIdentity(remote: RemoteParticipant): void {
    const { identity } = remote.info;
    const here = this.#here.infoOf(identity);
    if (here && isNewer(remote.info, here)) this.#here.replace(identity);
    else if (here) remote.superseded = true;
    for (const other of this.#remotes.of(identity)) {
      if (other === remote || other.superseded) continue;
      this.#supersede(isNewer(other.info, remote.info) ? remote : other);
    }
  }

  #supersede(remote: RemoteParticipant): void {
    if (remote.superseded) return;
    remote.superseded = true;
    this.#hide(remote, DisconnectReason.DUPLICATE_IDENTITY);
  }

  /** Ends what clients of this node have of a participant of another. */
  #hide({ info, tracks }: RemoteParticipant, reason: DisconnectReason): void {
    for (const track of tracks.values()) this.#here.end(track);
    tracks.clear();
    const gone = info.clone();
    gone.state = ParticipantInfo_State.DISCONNECTED;
    gone.disconnectReason = reason;
    gone.tracks = [];
    gone.version += 1;
    this.#here.tellOf(gone);
  }

  #now({ speakers, qualities, data }: RoomNow): void {
    if (speakers.length > 0) this.#speakers.take(speakers);
    this.#here.tellQualities(
      qualities.map(({ sid, quality, score }) => new ConnectionQualityInfo({ participantSid: sid, quality, score })),
    );
    for (const each of data) this.#deliver('lossy', each);
  }

  #deliver(kind: DataKind, { sid, packet }: RoomData): void {
    let decoded: DataPacket;
    try {
      decoded = DataPacket.fromBinary(packet);
    } catch (error) {
      return this.#options.log.warn({ err: error }, 'Another node sent a data message that cannot be read');
    }
    this.#here.deliver(sid, kind, decoded, packet);
  }
}
