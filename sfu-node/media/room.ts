import {
  DisconnectReason,
  ParticipantInfo_State,
  ParticipantUpdate,
  ReconnectResponse,
  RoomUpdate,
  SpeakersChanged,
  SubscriptionError,
  SubscriptionResponse,
  TrackSubscribed,
  type DataPacket,
  type Room as RoomInfo,
  type SignalResponse,
} from '@livekit/protocol';
import type { Router } from 'mediasoup/types';
import type { Assignment, AssignmentStatus } from '#proto/weir/control/v1/control.ts';
import type { Clock } from '#platform/clock.ts';
import { WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import type { NodeMetrics } from '../metrics.ts';
import type { SignalChannel } from '../signal/channel.ts';
import type { JoinIntent } from '../signal/claims.ts';
import { closeCodes, leaveAndReconnect, leaveForGood } from '../signal/leave.ts';
import { Session } from '../signal/session.ts';
import { codecsOf, routerCodecs } from './codecs.ts';
import { DataRouter } from './data-router.ts';
import type { DataKind } from './data-channels.ts';
import { Participant } from './participant.ts';
import { Publisher } from './publisher.ts';
import { Speakers } from './speakers.ts';
import { Subscriber } from './subscriber.ts';
import type { PublishedTrack } from './track.ts';
import { joinResponse, roomInfo, serverInfo } from './welcome.ts';
import type { MediaWorker, WorkerPool } from './worker-pool.ts';

export interface RoomContext {
  /** Name of this node. */
  node: string;
  region: string;
  version: string;
  workers: WorkerPool;
  clock: Clock;
  /** A new id with a prefix, such as PA_ for participants. */
  newId: (prefix: string) => string;
  log: Logger;
  metrics: NodeMetrics;
  /** Participants or streams changed. */
  onCounts: (room: MediaRoom) => void;
}

/** How long media goes on without signalling, milliseconds: time for the client to resume. */
const signalGraceMs = 15_000;

/** Tracks that ended and are remembered, a room. */
const rememberedTracks = 1000;

/** A room on this node: a router on one worker, the participants and their tracks. */
export class MediaRoom {
  readonly #context: RoomContext;
  readonly #router: Router;
  readonly #worker: MediaWorker;
  readonly #data: DataRouter;
  readonly #speakers: Speakers;
  readonly #log: Logger;
  readonly #participants = new Map<string, Participant>();
  readonly #createdAt: number;
  /** Sids of tracks that ended, the newest of them. */
  readonly #ended = new Set<string>();
  #assignment: Assignment;
  #streams = 0;
  #closed = false;

  private constructor(
    context: RoomContext,
    assignment: Assignment,
    router: Router,
    worker: MediaWorker,
    data: DataRouter,
    speakers: Speakers,
  ) {
    this.#context = context;
    this.#assignment = assignment;
    this.#router = router;
    this.#worker = worker;
    this.#data = data;
    this.#speakers = speakers;
    speakers.listen((changed) =>
      this.#broadcast({ case: 'speakersChanged', value: new SpeakersChanged({ speakers: changed }) }),
    );
    this.#createdAt = context.clock.now();
    this.#log = context.log.child({ room: assignment.room?.uid, roomName: assignment.room?.roomName });
  }

  /** @throws WeirError NoWorker */
  static async create(context: RoomContext, assignment: Assignment): Promise<MediaRoom> {
    const codecs = codecsOf(assignment.settings ?? { codecs: [], audioOnly: false });
    const { router, worker } = await context.workers.createRouter(codecs);
    try {
      const [data, speakers] = await Promise.all([DataRouter.create(router), Speakers.create(router)]);
      return new MediaRoom(context, assignment, router, worker, data, speakers);
    } catch (error) {
      router.close();
      throw error;
    }
  }

  get assignment(): Assignment {
    return this.#assignment;
  }

  get worker(): MediaWorker {
    return this.#worker;
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
    return { room, epoch, generation, participants: this.#participants.size, streams: this.#streams, links: [] };
  }

  /** Takes a newer assignment of the same room: settings apply to what happens from now on. */
  update(assignment: Assignment): void {
    const before = this.#assignment;
    this.#assignment = assignment;
    const settings = assignment.settings;
    if (!settings) return;
    this.#router.updateMediaCodecs(routerCodecs(codecsOf(settings)));
    if (before.settings?.metadata !== settings.metadata) {
      this.#broadcast({ case: 'roomUpdate', value: new RoomUpdate({ room: this.#roomInfo() }) });
    }
  }

  /** Takes a client in; its channel is this room's from here on. */
  async join(intent: JoinIntent, channel: SignalChannel): Promise<void> {
    const { claims } = intent;
    const same = this.participants.find(({ identity }) => identity === claims.identity);
    if (intent.reconnect) {
      if (same && same.sid === intent.participantSid) return this.#resume(same, channel);
      // What it would resume is not here: a full join makes it anew.
      channel.send(leaveAndReconnect(DisconnectReason.STATE_MISMATCH));
      channel.close(closeCodes.restart, 'nothing to resume');
      return;
    }
    const limit = this.#assignment.settings?.maxParticipants ?? 0;
    if (!same && limit > 0 && this.#participants.size >= limit) {
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
    this.#participants.set(sid, participant);
    // The client sets its connections up while ours are made.
    participant.send({
      case: 'join',
      value: joinResponse(this.#context, this.#assignment, this.#roomInfo(), participant, this.#visibleTo(participant)),
    });
    Session.start(this, participant, channel);
    this.#announce(participant);
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

  /** Publishes a track that is being sent to everybody who wants it. */
  publish(participant: Participant, track: PublishedTrack): void {
    participant.tracks.set(track.sid, track);
    if (track.kind === 'audio') this.#speakers.add(track);
    this.#announce(participant);
    for (const other of this.#participants.values()) {
      if (other.wants(track)) other.subscriber?.want(track);
    }
    this.countStreams();
    this.#log.info(
      { participant: participant.identity, track: track.sid, kind: track.kind, codec: track.info.mimeType },
      'Track published',
    );
  }

  unpublish(participant: Participant, track: PublishedTrack): void {
    if (!participant.tracks.delete(track.sid)) return;
    track.producer.close();
    this.#rememberEnded(track.sid);
    for (const other of this.#participants.values()) {
      other.subscriber?.unwant(track.sid);
      other.choices.delete(track.sid);
    }
    this.#announce(participant);
    this.countStreams();
    this.#log.info({ participant: participant.identity, track: track.sid }, 'Track unpublished');
  }

  /** Tells everybody of a change in a participant's info. */
  changed(participant: Participant): void {
    this.#announce(participant);
  }

  findTrack(sid: string): PublishedTrack | undefined {
    for (const participant of this.#participants.values()) {
      const track = participant.tracks.get(sid);
      if (track) return track;
    }
    return undefined;
  }

  /** Whether a track was here a while ago: a request about it may have been on its way when it ended. */
  hasEnded(sid: string): boolean {
    return this.#ended.has(sid);
  }

  /** Hands a data packet of a participant to those that it is for (all when it names nobody). */
  deliver(from: Participant, kind: DataKind, packet: DataPacket): void {
    const identities = new Set(packet.destinationIdentities);
    const payload = packet.toBinary();
    for (const other of this.#participants.values()) {
      if (other === from || !other.subscriber) continue;
      if (identities.size > 0 && !identities.has(other.identity)) continue;
      other.subscriber.sendData(kind, payload);
    }
  }

  /** Ends a participant here and tells the others. Its channel is not touched. */
  remove(participant: Participant, reason: DisconnectReason): void {
    if (participant.removed) return;
    participant.close();
    this.#participants.delete(participant.sid);
    for (const track of participant.tracks.values()) {
      this.#rememberEnded(track.sid);
      this.#speakers.remove(track);
      for (const other of this.#participants.values()) other.subscriber?.unwant(track.sid);
    }
    participant.tracks.clear();
    participant.info.state = ParticipantInfo_State.DISCONNECTED;
    participant.info.disconnectReason = reason;
    this.#announce(participant);
    this.countStreams();
    this.#context.onCounts(this);
    this.#log.info({ participant: participant.identity, reason: DisconnectReason[reason] }, 'Participant left');
  }

  /** The channel of a participant is gone: its media goes on for a while, for it may resume. */
  channelLost(participant: Participant): void {
    if (participant.removed) return;
    const connected = participant.info.state === ParticipantInfo_State.ACTIVE;
    if (!connected) return this.remove(participant, DisconnectReason.SIGNAL_CLOSE);
    participant.cancelGrace();
    participant.cancelGrace = this.#context.clock.after(signalGraceMs, () =>
      this.remove(participant, DisconnectReason.SIGNAL_CLOSE),
    );
  }

  /** Counts published and subscribed tracks anew. */
  countStreams(): void {
    const streams = this.participants.reduce((sum, participant) => sum + participant.streams, 0);
    if (streams === this.#streams) return;
    this.#worker.streams += streams - this.#streams;
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
    for (const participant of this.#participants.values()) {
      if (comeBack) participant.sendAway(reason, 'the room is served elsewhere');
      else participant.dismiss(reason, 'the room was closed');
      participant.close();
    }
    this.#participants.clear();
    this.#worker.streams -= this.#streams;
    this.#streams = 0;
    this.#router.close();
    this.#context.onCounts(this);
  }

  async #connect(participant: Participant): Promise<void> {
    const log = this.#log.child({ participant: participant.identity });
    const base = { router: this.#router, server: this.#worker.server, data: this.#data, log };
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
    for (const other of this.#participants.values()) {
      for (const track of other.tracks.values()) if (participant.wants(track)) subscriber.want(track);
    }
    subscriber.start();
    Session.of(participant)?.ready();
  }

  #activate(participant: Participant): void {
    if (participant.removed || participant.info.state === ParticipantInfo_State.ACTIVE) return;
    participant.info.state = ParticipantInfo_State.ACTIVE;
    this.#announce(participant);
  }

  /** The first subscriber of a track: its publisher may wait for that. */
  #tellPublisher(track: PublishedTrack): void {
    if (track.heard) return;
    track.heard = true;
    this.#participants
      .get(track.publisherSid)
      ?.send({ case: 'trackSubscribed', value: new TrackSubscribed({ trackSid: track.sid }) });
  }

  async #resume(participant: Participant, channel: SignalChannel): Promise<void> {
    participant.cancelGrace();
    const old = participant.channel;
    participant.channel = channel;
    old.close(closeCodes.normal, 'resumed on another connection');
    const value = new ReconnectResponse({ serverInfo: serverInfo(this.#context) });
    participant.send({ case: 'reconnect', value });
    Session.start(this, participant, channel);
    const participants = this.#visibleTo(participant).map(({ info }) => info);
    participant.send({
      case: 'update',
      value: new ParticipantUpdate({ participants: [participant.info, ...participants] }),
    });
    this.#log.info({ participant: participant.identity, holder: channel.holder }, 'Participant resumed');
    await participant.subscriber?.restartIce();
    Session.of(participant)?.ready();
  }

  #roomInfo(): RoomInfo {
    return roomInfo(this.#assignment, this.participants, this.#createdAt);
  }

  #visibleTo(participant: Participant): Participant[] {
    return this.participants.filter((other) => other !== participant && !other.claims.hidden);
  }

  #announce(participant: Participant): void {
    const update = new ParticipantUpdate({ participants: [participant.touch()] });
    const message: SignalResponse['message'] = { case: 'update', value: update };
    if (participant.claims.hidden) participant.send(message);
    else this.#broadcast(message);
  }

  #rememberEnded(sid: string): void {
    this.#ended.add(sid);
    const [oldest] = this.#ended;
    if (this.#ended.size > rememberedTracks && oldest !== undefined) this.#ended.delete(oldest);
  }

  #broadcast(message: SignalResponse['message']): void {
    for (const participant of this.#participants.values()) participant.send(message);
  }
}
