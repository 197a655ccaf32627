import {
  ConnectionQualityUpdate,
  DisconnectReason,
  ParticipantInfo_State,
  ParticipantUpdate,
  ReconnectResponse,
  RoomUpdate,
  SignalResponse,
  SpeakersChanged,
  SubscriptionError,
  SubscriptionResponse,
  TrackPublishedResponse,
  TrackSubscribed,
  type ConnectionQualityInfo,
  type DataPacket,
  type ParticipantInfo,
  type Room as RoomInfo,
  type SpeakerInfo,
  type TrackInfo,
} from '@livekit/protocol';
import type { Producer } from 'mediasoup/types';
import type { Assignment, AssignmentStatus } from '#proto/weir/control/v1/control.ts';
import type { Clock } from '#platform/clock.ts';
import { WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import type { Cascade } from '../cascade/cascade.ts';
import type { Feeds } from '../cascade/feed/feeds.ts';
import type { LinkListen } from '../cascade/link.ts';
import type { NodeMetrics } from '../metrics.ts';
import type { SignalChannel } from '../signal/channel.ts';
import type { JoinIntent } from '../signal/claims.ts';
import { closeCodes, leaveAndReconnect, leaveForGood } from '../signal/leave.ts';
import { Session } from '../signal/session.ts';
import type { Bearer } from '../signal/token-refresh.ts';
import { codecsOf, type CodecName } from './codecs.ts';
import { qualityIntervalMs, qualityOf } from './connection-quality.ts';
import type { DataKind } from './data-channels.ts';
import { LocalOrigin } from './local-origin.ts';
import { subscribedQualities } from './dynacast.ts';
import { OtherNodes, type RoomHere } from './other-nodes.ts';
import { ParticipantNews } from './participant-news.ts';
import { Participant } from './participant.ts';
import { Publisher } from './publisher.ts';
import { RoomSites } from './room-sites.ts';
import { firstOfferDelayMs, settlesInMs } from './sdk-needs.ts';
import { Subscriber } from './subscriber.ts';
import { LocalTrack, type PublishedTrack } from './track.ts';
import { joinResponse, roomInfo, serverInfo, type IceServers } from './welcome.ts';
import type { MediaWorker, WorkerPool } from './worker-pool.ts';

export interface RoomContext {
  /** Name of this node. */
  node: string;
  region: string;
  version: string;
  workers: WorkerPool;
  /** Streams of all rooms that one worker is to carry: a room that goes beyond takes another worker of the node as well. */
  streamsPerWorker: number;
  /** The way to the other nodes of rooms. */
  cascade: Cascade;
  feeds: Feeds;
  /** Where cascade links listen. */
  linkListen: LinkListen;
  clock: Clock;
  /** A new id with a prefix, such as PA_ for participants. */
  newId: (prefix: string) => string;
  iceServers: IceServers;
  /** A token with which a client can come back; undefined when there is none for it. */
  freshToken: (bearer: Bearer) => Promise<string | undefined>;
  /** How long a client has for its media to come up, milliseconds. Default 60,000. */
  mediaDeadlineMs?: number;
  log: Logger;
  metrics: NodeMetrics;
  /** Participants or streams changed. */
  onCounts: (room: MediaRoom) => void;
}

/** A client whose media has not come up for so long is sent through a new join, milliseconds. */
const mediaDeadlineMs = 60_000;

/** A client gets a new token this often, milliseconds: half of what one is good for. */
const tokenIntervalMs = 300_000;

/** A first offer that waits for a client's own tracks waits no longer than this, milliseconds. */
const longestOfferDelayMs = 5000;

/** How long media goes on without signalling, milliseconds: time for the client to resume. */
const signalGraceMs = 15_000;

/** Tracks that ended and are remembered, a room. */
const rememberedTracks = 1000;

/**
 * A room on this node: sites (routers on workers), the participants that are connected here with their tracks, those of
 * other nodes as the room's feed tells of them, and the cascade links by which tracks come and go.
 */
export class MediaRoom {
  readonly #context: RoomContext;
  readonly #sites: RoomSites;
  readonly #others: OtherNodes;
  readonly #news: ParticipantNews;
  readonly #log: Logger;
  readonly #participants = new Map<string, Participant>();
  /** Participants who speak now, here or on another node. */
  readonly #speaking = new Set<string>();
  readonly #createdAt: number;
  /** Sids of tracks that ended, the newest of them. */
  readonly #ended = new Set<string>();
  #assignment: Assignment;
  #streams = 0;
  #cancelQuality: () => void = () => undefined;
  #closed = false;

  private constructor(context: RoomContext, assignment: Assignment, sites: RoomSites) {
    this.#context = context;
    this.#assignment = assignment;
    this.#sites = sites;
    this.#createdAt = context.clock.now();
    this.#news = new ParticipantNews(context.clock, (infos) => this.#broadcast(updateOf(infos)));
    this.#log = context.log.child({ room: assignment.room?.uid, roomName: assignment.room?.roomName });
    const { node, clock, cascade, feeds, linkListen, newId, metrics } = context;
    this.#others = new OtherNodes({
      ...{ node, assignment, site: sites.main, cascade, feeds, linkListen, newId, clock, metrics },
      ...{ startedAt: this.#createdAt, log: this.#log, here: this.#here() },
    });
    sites.listen((changed) => {
      this.#tellSpeakers(changed);
      this.#others.speakers(changed);
    });
    this.#others.follow(assignment);
    this.#tellQuality();
  }

  /** @throws WeirError NoWorker */
  static async create(context: RoomContext, assignment: Assignment): Promise<MediaRoom> {
    return new MediaRoom(context, assignment, await RoomSites.create(context.workers, codecsFor(assignment)));
  }

  get assignment(): Assignment {
    return this.#assignment;
  }

  /** Workers that carry the room. */
  get workers(): MediaWorker[] {
    return this.#sites.workers;
  }

  get participants(): readonly Participant[] {
    return [...this.#participants.values()];
  }

  get log(): Logger {
    return this.#log;
  }

  get newId(): RoomContext['newId'] {
    return this.#context.newId;
  }

  get clock(): Clock {
    return this.#context.clock;
  }

  get metrics(): NodeMetrics {
    return this.#context.metrics;
  }

  get status(): AssignmentStatus {
    const { room, epoch, generation } = this.#assignment;
    const { links } = this.#others;
    return { room, epoch, generation, participants: this.#participants.size, streams: this.#streams, links };
  }

  /** Milliseconds until everybody here can be told to join anew; 0 when they can. See {@link settlesInMs}. */
  get settlesInMs(): number {
    const now = this.#context.clock.now();
    const connected = this.participants.filter(({ signalLost }) => !signalLost);
    return Math.max(0, ...connected.map(({ channelSince }) => settlesInMs(channelSince, now)));
  }

  /** Takes a newer assignment of the same room: settings apply to what happens from now on. */
  update(assignment: Assignment): void {
    const before = this.#assignment;
    this.#assignment = assignment;
    this.#others.follow(assignment);
    const settings = assignment.settings;
    if (!settings) return;
    this.#sites.allow(codecsOf(settings));
    if (before.settings?.metadata !== settings.metadata) {
      this.#broadcast({ case: 'roomUpdate', value: new RoomUpdate({ room: this.#roomInfo() }) });
    }
  }

  /** Takes a client in; its channel is this room's from here on. */
  async join(intent: JoinIntent, channel: SignalChannel): Promise<void> {
    const { claims } = intent;
    const same = this.participants.find(({ identity }) => identity === claims.identity);
    if (intent.reconnect) {
      if (same?.sid === intent.participantSid && same.resumable) return this.#resume(same, channel);
      // What it would resume is not here, or not yet: a full join makes it anew.
      channel.send(leaveAndReconnect(DisconnectReason.STATE_MISMATCH));
      channel.close(closeCodes.restart, 'nothing to resume');
      return;
    }
    const limit = this.#assignment.settings?.maxParticipants ?? 0;
    if (!same && limit > 0 && this.#participants.size + this.#others.participants.length >= limit) {
      this.#log.info({ participant: claims.identity, limit }, 'Join refused: the room is full');
      channel.send(leaveForGood(DisconnectReason.JOIN_FAILURE));
      channel.close(closeCodes.tryLater, `RoomFull: the room has its ${limit} participants`);
      throw new WeirError('RoomFull', `Room ${claims.room} has its ${limit} participants; raise spec.maxParticipants.`);
    }
    if (same) {
      same.dismiss(DisconnectReason.DUPLICATE_IDENTITY, 'the same identity joined again');
      this.remove(same, DisconnectReason.DUPLICATE_IDENTITY);
    }
    const sid = this.#context.newId('PA_');
    const participant = new Participant(sid, intent, channel, this.#context.region, this.#context.clock.now());
    this.#others.supersede(claims.identity);
    this.#participants.set(sid, participant);
    // The client sets its connections up while ours are made.
    participant.send({
      case: 'join',
      value: joinResponse(this.#context, this.#assignment, this.#roomInfo(), participant, this.#visibleTo(participant)),
    });
    Session.start(this, participant, channel);
    this.#announce(participant);
    this.refreshToken(participant);
    this.#context.onCounts(this);
    this.#log.info(
      { participant: claims.identity, sid, sdk: intent.sdk, holder: channel.holder },
      'Participant joined',
    );
    try {
      await this.#connect(participant);
    } catch (error) {
      // The room or its worker ended meanwhile; a new join finds what is there then.
      participant.sendAway(DisconnectReason.JOIN_FAILURE, 'media could not be set up');
      this.remove(participant, DisconnectReason.JOIN_FAILURE);
      throw error;
    }
  }

  /** The track of a section that a participant sends since. */
  localTrack(participant: Participant, info: TrackInfo, producer: Producer): LocalTrack {
    const { clock } = this.#context;
    const site = this.#sites.of(participant);
    const origin = new LocalOrigin(site, producer, clock, (highest) =>
      participant.send({ case: 'subscribedQualityUpdate', value: subscribedQualities(info, highest) }),
    );
    return new LocalTrack(participant, info, origin, (error) => this.#trackFailed(info.sid, error));
  }

  /** Publishes a track that is being sent to everybody who wants it. */
  publish(participant: Participant, track: LocalTrack): void {
    participant.tracks.set(track.sid, track);
    if (track.kind === 'audio') this.#sites.of(participant).speakers.add(track);
    this.#announce(participant);
    this.#offerTrack(track);
    this.countStreams();
    this.#log.info(
      { participant: participant.identity, track: track.sid, kind: track.kind, codec: track.info.mimeType },
      'Track published',
    );
  }

  unpublish(participant: Participant, track: LocalTrack): void {
    if (!participant.tracks.delete(track.sid)) return;
    this.#endTrack(track);
    track.producer.close();
    this.#announce(participant);
    this.countStreams();
    this.#log.info({ participant: participant.identity, track: track.sid }, 'Track unpublished');
  }

  /** Tells everybody of a change in a participant's info. */
  changed(participant: Participant): void {
    this.#announce(participant);
  }

  /** Sends a participant a token with which it can come back, and the next ones while it is here. */
  refreshToken(participant: Participant): void {
    const { clock, freshToken } = this.#context;
    participant.cancelToken();
    participant.cancelToken = clock.after(tokenIntervalMs, () => this.refreshToken(participant));
    freshToken(participant).then(
      (token) => {
        if (token !== undefined && !participant.removed) participant.send({ case: 'refreshToken', value: token });
      },
      (error: unknown) => this.#log.error({ err: error, participant: participant.identity }, 'No fresh token'),
    );
  }

  findTrack(sid: string): PublishedTrack | undefined {
    for (const participant of this.#participants.values()) {
      const track = participant.tracks.get(sid);
      if (track) return track;
    }
    return this.#others.findTrack(sid);
  }

  /** The node that a participant is connected to, this one or another. */
  nodeOf(participantSid: string): string | undefined {
    return this.#participants.has(participantSid) ? this.#context.node : this.#others.nodeOf(participantSid);
  }

  /** Whether a track was here a while ago: a request about it may have been on its way when it ended. */
  hasEnded(sid: string): boolean {
    return this.#ended.has(sid);
  }

  /** Hands a data packet of a participant to those that it is for (all when it names nobody), here and on other nodes. */
  deliver(from: Participant, kind: DataKind, packet: DataPacket): void {
    const bytes = packet.toBinary();
    this.#deliverHere(from.sid, kind, packet, bytes);
    const here = new Set(this.participants.map(({ identity }) => identity));
    const to = packet.destinationIdentities;
    if (to.length > 0 && to.every((identity) => here.has(identity))) return;
    this.#others.send(from.sid, kind, bytes);
  }

  /** Ends a participant here and tells the others. Its channel is not touched. */
  remove(participant: Participant, reason: DisconnectReason): void {
    if (participant.removed) return;
    participant.close();
    this.#participants.delete(participant.sid);
    for (const track of participant.tracks.values()) {
      this.#sites.of(participant).speakers.remove(track);
      this.#endTrack(track);
    }
    participant.tracks.clear();
    participant.info.state = ParticipantInfo_State.DISCONNECTED;
    participant.info.disconnectReason = reason;
    this.#announce(participant);
    if (!participant.claims.hidden) this.#others.left(participant.sid, reason);
    this.countStreams();
    this.#context.onCounts(this);
    this.#log.info({ participant: participant.identity, reason: DisconnectReason[reason] }, 'Participant left');
  }

  /** The channel of a participant is gone: its media goes on for a while, for it may resume. */
  channelLost(participant: Participant): void {
    if (participant.removed) return;
    const connected = participant.info.state === ParticipantInfo_State.ACTIVE;
    if (!connected) return this.remove(participant, DisconnectReason.SIGNAL_CLOSE);
    participant.signalLost = true;
    participant.cancelGrace();
    participant.cancelGrace = this.#context.clock.after(signalGraceMs, () =>
      this.remove(participant, DisconnectReason.SIGNAL_CLOSE),
    );
  }

  /** Counts published and subscribed tracks anew. */
  countStreams(): void {
    const streams = this.#sites.count(this.#participants.values());
    if (streams === this.#streams) return;
    this.#streams = streams;
    this.#context.onCounts(this);
  }

  /**
   * Ends the room here. With `comeBack` clients join again at once (the room moved or its worker died), otherwise
   * their session is over (the room was deleted).
   */
  close(reason: DisconnectReason, comeBack: boolean): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelQuality();
    this.#news.close();
    for (const participant of this.#participants.values()) {
      if (comeBack) participant.sendAway(reason, 'the room is served elsewhere');
      else participant.dismiss(reason, 'the room was closed');
      participant.close();
    }
    this.#participants.clear();
    this.#others.close();
    this.#sites.close();
    this.#streams = 0;
    this.#context.onCounts(this);
  }

  async #connect(participant: Participant): Promise<void> {
    const log = this.#log.child({ participant: participant.identity });
    const { streamsPerWorker } = this.#context;
    const codecs = codecsFor(this.#assignment);
    const site = (participant.site = await this.#sites.forOneMore({ streamsPerWorker, codecs, log: this.#log }));
    const base = { site, log };
    const onLost = (why: string) => {
      if (participant.removed) return;
      log.info({ why }, 'Media connection lost');
      participant.sendAway(DisconnectReason.CONNECTION_TIMEOUT, 'media connection lost');
      this.remove(participant, DisconnectReason.CONNECTION_TIMEOUT);
    };
    const [subscriber, publisher] = await Promise.all([
      Subscriber.create({
        ...base,
        sendOffer: (sdp, id) => participant.sendOffer(sdp, id),
        onConnected: () => this.#activate(participant),
        onRefused: (track) =>
          participant.send({
            case: 'subscriptionResponse',
            value: new SubscriptionResponse({ trackSid: track.sid, err: SubscriptionError.SE_CODEC_UNSUPPORTED }),
          }),
        onSubscribed: (track) => this.#tellPublisher(track),
        onStreams: () => this.countStreams(),
        onLost,
      }),
      Publisher.create({
        ...base,
        maxBitrateKbps: this.#assignment.settings?.maxVideoBitrateKbps ?? 0,
        onData: (received) => Session.of(participant)?.handleData(received),
        onLost,
      }),
    ]);
    participant.subscriber = subscriber;
    participant.publisher = publisher;
    if (participant.removed) return participant.close();
    for (const track of this.#tracks()) if (participant.wants(track)) subscriber.want(track);
    participant.cancelGrace = this.#context.clock.after(this.#context.mediaDeadlineMs ?? mediaDeadlineMs, () => {
      if (participant.removed) return;
      log.info('Media was never connected: can the client reach this node on its media port by UDP or TCP?');
      participant.sendAway(DisconnectReason.CONNECTION_TIMEOUT, 'media was never connected');
      this.remove(participant, DisconnectReason.CONNECTION_TIMEOUT);
    });
    this.#startSubscriber(participant, subscriber, firstOfferDelayMs(participant.intent));
    Session.of(participant)?.ready();
  }

  /** Makes the first offer of tracks; one that waits, waits for tracks that the client is publishing as well. */
  #startSubscriber(participant: Participant, subscriber: Subscriber, delayMs: number): void {
    if (delayMs === 0) return subscriber.start();
    const startedAt = this.clock.now();
    const look = () => {
      if (participant.removed) return;
      const waited = this.clock.now() - startedAt;
      if (participant.announced.size === 0 || waited >= longestOfferDelayMs) return subscriber.start();
      this.clock.after(100, look);
    };
    this.clock.after(delayMs, look);
  }

  #activate(participant: Participant): void {
    if (participant.removed || participant.info.state === ParticipantInfo_State.ACTIVE) return;
    participant.cancelGrace();
    participant.info.state = ParticipantInfo_State.ACTIVE;
    this.#announce(participant);
  }

  /** The first subscriber of a track: its publisher may wait for that. */
  #tellPublisher(track: PublishedTrack): void {
    if (!(track instanceof LocalTrack) || track.heard) return;
    track.heard = true;
    this.#participants
      .get(track.publisherSid)
      ?.send({ case: 'trackSubscribed', value: new TrackSubscribed({ trackSid: track.sid }) });
  }

  async #resume(participant: Participant, channel: SignalChannel): Promise<void> {
    participant.cancelGrace();
    participant.signalLost = false;
    const old = participant.channel;
    participant.channel = channel;
    participant.channelSince = this.#context.clock.now();
    old.close(closeCodes.normal, 'resumed on another connection');
    const value = new ReconnectResponse({
      serverInfo: serverInfo(this.#context),
      iceServers: this.#context.iceServers(participant.identity),
    });
    participant.send({ case: 'reconnect', value });
    Session.start(this, participant, channel);
    const participants = this.#visibleTo(participant);
    participant.send({
      case: 'update',
      value: new ParticipantUpdate({ participants: [participant.info, ...participants] }),
    });
    // The answer to an announcement may have been on its way when the channel was lost.
    for (const [cid, track] of participant.announced) {
      participant.send({ case: 'trackPublished', value: new TrackPublishedResponse({ cid, track }) });
    }
    this.#log.info({ participant: participant.identity, holder: channel.holder }, 'Participant resumed');
    await participant.subscriber?.restartIce();
    Session.of(participant)?.ready();
  }

  #roomInfo(): RoomInfo {
    const all = [...this.participants.map(({ info }) => info), ...this.#others.participants];
    return roomInfo(this.#assignment, all, this.#createdAt);
  }

  /** Participants that one may see: those of this node and of others, without itself. */
  #visibleTo(participant: Participant): ParticipantInfo[] {
    const here = this.participants.filter((other) => other !== participant && !other.claims.hidden);
    return [...here.map(({ info }) => info), ...this.#others.participants];
  }

  #announce(participant: Participant): void {
    const info = participant.touch();
    if (participant.claims.hidden) return participant.send(updateOf([info]));
    this.#news.take(info);
    if (!participant.removed) this.#others.announce(info);
  }

  /** What the room's side on other nodes asks of the one here. */
  #here(): RoomHere {
    const named = (identity: string) => this.participants.find((participant) => participant.identity === identity);
    return {
      findTrack: (sid) => this.findTrack(sid),
      isSpeaking: (sid) => this.#speaking.has(sid),
      infoOf: (identity) => named(identity)?.info,
      replace: (identity) => {
        const participant = named(identity);
        if (!participant) return;
        participant.dismiss(DisconnectReason.DUPLICATE_IDENTITY, 'the same identity joined again on another node');
        this.remove(participant, DisconnectReason.DUPLICATE_IDENTITY);
      },
      tellOf: (info) => this.#news.take(info),
      tellSpeakers: (speakers) => this.#tellSpeakers(speakers),
      tellQualities: (qualities) => this.#tellQualities(qualities),
      deliver: (fromSid, kind, packet, bytes) => this.#deliverHere(fromSid, kind, packet, bytes),
      offer: (track) => this.#offerTrack(track),
      end: (track) => this.#endTrack(track),
      trackFailed: (sid, error) => this.#trackFailed(sid, error),
      onStatus: () => this.#context.onCounts(this),
    };
  }

  #tellQuality(): void {
    this.#cancelQuality = this.#context.clock.after(qualityIntervalMs, () => {
      const qualities = this.participants
        .filter(({ info, claims }) => info.state === ParticipantInfo_State.ACTIVE && !claims.hidden)
        .map(({ sid, publisher, subscriber, signalLost }) =>
          qualityOf(sid, [...(publisher?.scores ?? []), ...(subscriber?.scores ?? [])], signalLost),
        );
      this.#tellQualities(qualities);
      this.#others.qualities(qualities);
      this.#tellQuality();
    });
  }

  #tellQualities(updates: ConnectionQualityInfo[]): void {
    if (updates.length > 0)
      this.#broadcast({ case: 'connectionQuality', value: new ConnectionQualityUpdate({ updates }) });
  }

  #tellSpeakers(speakers: SpeakerInfo[]): void {
    for (const { sid, active } of speakers) {
      if (active) this.#speaking.add(sid);
      else this.#speaking.delete(sid);
    }
    this.#broadcast({ case: 'speakersChanged', value: new SpeakersChanged({ speakers }) });
  }

  /** Every track that is here or on another node. */
  *#tracks(): Iterable<PublishedTrack> {
    for (const participant of this.#participants.values()) yield* participant.tracks.values();
    yield* this.#others.tracks();
  }

  #offerTrack(track: PublishedTrack): void {
    // Clients find a track's owner among those that they know.
    this.#news.flush();
    for (const other of this.#participants.values()) if (other.wants(track)) other.subscriber?.want(track);
  }

  #endTrack(track: PublishedTrack): void {
    this.#rememberEnded(track.sid);
    for (const other of this.#participants.values()) {
      other.subscriber?.unwant(track.sid);
      other.choices.delete(track.sid);
    }
    track.close();
    this.#others.forget(track.sid);
  }

  #trackFailed(sid: string, error: unknown): void {
    if (!this.#closed) this.#log.warn({ err: error, track: sid }, 'Track could not be brought to another worker');
  }

  #deliverHere(fromSid: string, kind: DataKind, packet: DataPacket, bytes: Uint8Array): void {
    const identities = new Set(packet.destinationIdentities);
    for (const other of this.#participants.values()) {
      if (other.sid === fromSid || !other.subscriber) continue;
      if (identities.size > 0 && !identities.has(other.identity)) continue;
      other.subscriber.sendData(kind, bytes);
    }
  }

  #rememberEnded(sid: string): void {
    this.#ended.add(sid);
    const [oldest] = this.#ended;
    if (this.#ended.size > rememberedTracks && oldest !== undefined) this.#ended.delete(oldest);
  }

  #broadcast(message: SignalResponse['message']): void {
    // Once for all: encoded for each, one who joins a room of hundreds would cost as many encodings.
    const bytes = new SignalResponse({ message }).toBinary();
    for (const { channel } of this.#participants.values()) channel.sendEncoded(bytes);
  }
}

function updateOf(participants: ParticipantInfo[]): SignalResponse['message'] {
  return { case: 'update', value: new ParticipantUpdate({ participants }) };
}

function codecsFor({ settings }: Assignment): CodecName[] {
  return codecsOf(settings ?? { codecs: [], audioOnly: false });
}
