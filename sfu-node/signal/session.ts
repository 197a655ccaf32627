import {
  DataPacket,
  DataPacket_Kind,
  DisconnectReason,
  Pong,
  RequestResponse,
  RequestResponse_Reason,
  SessionDescription,
  SignalRequest,
  SimulcastCodecInfo,
  SubscriptionError,
  SubscriptionResponse,
  TrackPublishedResponse,
  TrackSource,
  TrackType,
  type AddTrackRequest,
  type MuteTrackRequest,
  type TrackInfo,
  type UpdateParticipantMetadata,
  type UpdateSubscription,
  type UpdateTrackSettings,
} from '@livekit/protocol';
import type { Producer } from 'mediasoup/types';
import { codeOf, messageOf, WeirError } from '#platform/errors.ts';
import type { DataReceived } from '../media/data-channels.ts';
import type { Participant } from '../media/participant.ts';
import type { Admission } from '../media/publisher.ts';
import type { MediaRoom } from '../media/room.ts';
import type { SendingSection } from '../media/sdp.ts';
import { announcedTrackInfo, qualityFor, trackTypeOf, type LocalTrack, type PublishedTrack } from '../media/track.ts';
import type { SignalChannel } from './channel.ts';
import { closeCodes, leaveForGood } from './leave.ts';

/** Most tracks that one participant may have announced or published. */
const maxTracks = 64;
/** Longest metadata (and sum of attributes) in characters. */
const maxMetadata = 65_536;

/**
 * Speaks the LiveKit protocol with one client of this node. Requests that touch a connection run one after the other,
 * in the order in which they came.
 *
 * A client that breaks the protocol is told to leave and closed, and counted; nobody else notices. Requests of the
 * protocol that Weir does not serve yet are answered with a RequestResponse where they ask for one, and ignored
 * otherwise: `#handle` is the list.
 */
export class Session {
  static readonly #sessions = new WeakMap<Participant, Session>();

  readonly #room: MediaRoom;
  readonly #participant: Participant;
  readonly #channel: SignalChannel;
  readonly #ready = Promise.withResolvers<void>();
  #queue: Promise<void> = this.#ready.promise;

  private constructor(room: MediaRoom, participant: Participant, channel: SignalChannel) {
    this.#room = room;
    this.#participant = participant;
    this.#channel = channel;
  }

  /** Takes a channel over for a participant; a session that it had before ends without a word. */
  static start(room: MediaRoom, participant: Participant, channel: SignalChannel): Session {
    const session = new Session(room, participant, channel);
    Session.#sessions.set(participant, session);
    channel.start({
      message: (bytes) => session.#receive(bytes),
      close: () => {
        if (session.#isCurrent()) room.channelLost(participant);
      },
    });
    return session;
  }

  static of(participant: Participant): Session | undefined {
    return Session.#sessions.get(participant);
  }

  /** The participant's connections are there: what came meanwhile is handled. */
  ready(): void {
    this.#ready.resolve();
  }

  /** Takes a data message that the client sent. */
  handleData({ kind, payload }: DataReceived): void {
    const { metrics } = this.#room;
    const participant = this.#participant;
    metrics.dataPackets.inc({ kind });
    if (!participant.claims.canPublishData) return metrics.violations.inc({ code: 'DataNotAllowed' });
    let packet: DataPacket;
    try {
      packet = DataPacket.fromBinary(payload);
    } catch {
      return this.#violation('MalformedData', 'A data message is no DataPacket.');
    }
    packet.kind = kind === 'reliable' ? DataPacket_Kind.RELIABLE : DataPacket_Kind.LOSSY;
    packet.participantIdentity = participant.identity;
    packet.participantSid = participant.sid;
    if (packet.value.case === 'user') {
      const user = packet.value.value;
      user.participantIdentity = participant.identity;
      user.participantSid = participant.sid;
      // Older SDKs name the destinations here.
      if (packet.destinationIdentities.length === 0) packet.destinationIdentities = user.destinationIdentities;
    }
    this.#room.deliver(participant, kind, packet);
  }

  #isCurrent(): boolean {
    return this.#participant.channel === this.#channel;
  }

  #receive(bytes: Uint8Array): void {
    if (!this.#isCurrent() || this.#participant.removed) return;
    let request: SignalRequest;
    try {
      request = SignalRequest.fromBinary(bytes);
    } catch {
      return this.#violation('MalformedMessage', 'A message is no SignalRequest; send LiveKit protobuf.');
    }
    try {
      this.#handle(request.message);
    } catch (error) {
      this.#failed(error);
    }
  }

  #handle(message: SignalRequest['message']): void {
    const participant = this.#participant;
    switch (message.case) {
      case 'offer':
        return this.#serially(() => this.#handleOffer(message.value));
      case 'answer':
        return this.#serially(async () => participant.subscriber?.handleAnswer(message.value.sdp, message.value.id));
      case 'addTrack':
        return this.#addTrack(message.value);
      case 'mute':
        return this.#mute(message.value);
      case 'subscription':
        return this.#serially(() => this.#updateSubscription(message.value));
      case 'trackSetting':
        return this.#serially(() => this.#updateTrackSettings(message.value));
      case 'leave':
        this.#room.remove(participant, DisconnectReason.CLIENT_INITIATED);
        return this.#channel.close(closeCodes.normal, 'client left');
      case 'updateMetadata':
        return this.#updateMetadata(message.value);
      case 'ping':
        return participant.send({ case: 'pong', value: BigInt(this.#room.clock.now()) });
      case 'pingReq': {
        const timestamp = BigInt(this.#room.clock.now());
        const value = new Pong({ lastPingTimestamp: message.value.timestamp, timestamp });
        return participant.send({ case: 'pongResp', value });
      }
      case 'trickle':
        // ICE lite: the client's checks tell where it is.
        return;
      case undefined:
        return this.#violation('EmptyMessage', 'A message names no request that is known here.');
      default:
        this.#room.log.debug({ participant: participant.identity, request: message.case }, 'Request is not served yet');
    }
  }

  async #handleOffer(offer: SessionDescription): Promise<void> {
    const { publisher } = this.#participant;
    if (!publisher) return;
    const { sdp, produced, ended } = await publisher.handleOffer(offer.sdp, this.#admit);
    // `id` is echoed, or the client takes the answer for one to another offer.
    const value = new SessionDescription({ type: 'answer', sdp, id: offer.id });
    for (const producer of ended) this.#endTrack(producer);
    const tracks = produced.map(({ section, producer }) => this.#publishedTrack(section, producer));
    this.#participant.send({ case: 'answer', value });
    for (const track of tracks) this.#room.publish(this.#participant, track);
  }

  /** A section may be sent when its track was announced: by its id, or failing that as the next of its kind. */
  readonly #admit: Admission = (section) => {
    const info = this.#announcedFor(section);
    if (!info) {
      this.#room.log.warn(
        { participant: this.#participant.identity, mid: section.mid },
        'Track is sent but was never announced',
      );
      return undefined;
    }
    return { spatialLayers: Math.max(1, info.layers.length), paused: info.muted };
  };

  #announcedFor(section: { kind: 'audio' | 'video'; cid: string }): TrackInfo | undefined {
    const { announced } = this.#participant;
    const type = trackTypeOf(section.kind);
    return announced.get(section.cid) ?? [...announced.values()].find((info) => info.type === type);
  }

  #publishedTrack(section: SendingSection, producer: Producer): LocalTrack {
    const { announced } = this.#participant;
    const info = this.#announcedFor(section);
    if (!info) throw new WeirError('UnknownTrack', `Section ${section.mid} sends a track that was never announced.`);
    for (const [cid, candidate] of announced) if (candidate === info) announced.delete(cid);
    info.mid = section.mid;
    info.mimeType = producer.rtpParameters.codecs[0]?.mimeType ?? '';
    info.codecs = [
      new SimulcastCodecInfo({ mimeType: info.mimeType, mid: section.mid, cid: section.cid, layers: info.layers }),
    ];
    return this.#room.localTrack(this.#participant, info, producer);
  }

  #endTrack(producer: Producer): void {
    const track = [...this.#participant.tracks.values()].find((candidate) => candidate.producer === producer);
    if (track) this.#room.unpublish(this.#participant, track);
  }

  #addTrack(request: AddTrackRequest): void {
    const participant = this.#participant;
    const refuse = (reason: RequestResponse_Reason, message: string) => {
      this.#room.metrics.violations.inc({ code: 'PublishNotAllowed' });
      this.#room.log.info({ participant: participant.identity, message }, 'Publish refused');
      const value = new RequestResponse({ reason, message, request: { case: 'addTrack', value: request } });
      participant.send({ case: 'requestResponse', value });
    };
    if (!participant.mayPublish(request.source)) {
      const source = TrackSource[request.source] ?? String(request.source);
      return refuse(
        RequestResponse_Reason.NOT_ALLOWED,
        `The token does not allow to publish ${source}; ask for a token with canPublish and that source.`,
      );
    }
    if (request.type === TrackType.VIDEO && this.#room.assignment.settings?.audioOnly) {
      return refuse(RequestResponse_Reason.NOT_ALLOWED, 'This room carries audio only.');
    }
    if (request.type === TrackType.DATA || !request.cid) {
      return refuse(RequestResponse_Reason.NOT_ALLOWED, 'A track to publish is audio or video and has a cid.');
    }
    if (participant.announced.size + participant.tracks.size >= maxTracks) {
      return refuse(RequestResponse_Reason.LIMIT_EXCEEDED, `A participant publishes at most ${maxTracks} tracks.`);
    }
    const known = participant.announced.get(request.cid);
    const track = known ?? announcedTrackInfo(this.#room.newId(trackPrefix(request)), request);
    participant.announced.set(request.cid, track);
    participant.send({ case: 'trackPublished', value: new TrackPublishedResponse({ cid: request.cid, track }) });
  }

  #mute({ sid, muted }: MuteTrackRequest): void {
    const participant = this.#participant;
    const announced = [...participant.announced.values()].find((info) => info.sid === sid);
    if (announced) {
      announced.muted = muted;
      return;
    }
    const track = participant.tracks.get(sid);
    if (!track) return this.#violation('UnknownTrack', `Track ${sid} is not published by this participant.`);
    if (track.info.muted === muted) return;
    track.info.muted = muted;
    this.#serially(() => (muted ? track.producer.pause() : track.producer.resume()));
    this.#room.changed(participant);
  }

  #updateSubscription(request: UpdateSubscription): void {
    const participant = this.#participant;
    const sids = [...request.trackSids, ...request.participantTracks.flatMap(({ trackSids }) => trackSids)];
    for (const sid of sids) {
      const track = this.#trackOf(sid);
      if (!track) {
        const value = new SubscriptionResponse({ trackSid: sid, err: SubscriptionError.SE_TRACK_NOTFOUND });
        if (request.subscribe) participant.send({ case: 'subscriptionResponse', value });
        continue;
      }
      participant.choices.set(sid, request.subscribe);
      if (participant.wants(track)) participant.subscriber?.want(track);
      else participant.subscriber?.unwant(sid);
    }
  }

  #updateTrackSettings(request: UpdateTrackSettings): void {
    for (const sid of request.trackSids) {
      const track = this.#trackOf(sid);
      if (!track) continue;
      const bySize = request.width > 0 && request.height > 0;
      const quality = bySize ? qualityFor(track.info, request.width, request.height) : request.quality;
      this.#participant.subscriber?.set(sid, { disabled: request.disabled, quality });
    }
  }

  /**
   * The track that a client names; undefined for one that has ended, as the request may have been on its way then.
   * @throws WeirError UnknownTrack for one that never was here
   */
  #trackOf(sid: string): PublishedTrack | undefined {
    const track = this.#room.findTrack(sid);
    if (!track && !this.#room.hasEnded(sid)) {
      throw new WeirError('UnknownTrack', `Track ${sid} was never published in this room.`);
    }
    return track;
  }

  #updateMetadata(request: UpdateParticipantMetadata): void {
    const participant = this.#participant;
    const answer = (reason: RequestResponse_Reason, message: string) => {
      const value = new RequestResponse({
        requestId: request.requestId,
        reason,
        message,
        request: { case: 'updateMetadata', value: request },
      });
      participant.send({ case: 'requestResponse', value });
    };
    if (!participant.claims.canUpdateOwnMetadata) {
      return answer(RequestResponse_Reason.NOT_ALLOWED, 'The token does not allow canUpdateOwnMetadata.');
    }
    const attributes = { ...participant.info.attributes, ...request.attributes };
    const size = Object.entries(attributes).reduce((sum, [key, value]) => sum + key.length + value.length, 0);
    if (request.metadata.length > maxMetadata || size > maxMetadata || request.name.length > 1024) {
      return answer(
        RequestResponse_Reason.LIMIT_EXCEEDED,
        `Metadata and attributes may have ${maxMetadata} characters each.`,
      );
    }
    const { info } = participant;
    if (request.metadata) info.metadata = request.metadata;
    if (request.name) info.name = request.name;
    // An empty value takes an attribute away.
    info.attributes = Object.fromEntries(Object.entries(attributes).filter(([, value]) => value !== ''));
    this.#room.changed(participant);
    this.#room.refreshToken(participant);
    answer(RequestResponse_Reason.OK, '');
  }

  /** Runs work after what came before it. */
  #serially(work: () => Promise<unknown> | void): void {
    this.#queue = this.#queue
      .then(async () => {
        if (!this.#participant.removed) await work();
      })
      .catch((error: unknown) => this.#failed(error));
  }

  /** A request failed: the client is at fault for a WeirError, this node for anything else. */
  #failed(error: unknown): void {
    if (this.#participant.removed) return;
    if (error instanceof WeirError) return this.#violation(error.code, error.message);
    this.#room.log.error({ err: error, participant: this.#participant.identity }, 'A request failed');
    this.#end(DisconnectReason.STATE_MISMATCH, codeOf(error), messageOf(error));
  }

  #violation(code: string, message: string): void {
    this.#room.metrics.violations.inc({ code });
    this.#room.log.warn(
      { participant: this.#participant.identity, code, reason: message },
      'Client closed: protocol violation',
    );
    this.#end(DisconnectReason.STATE_MISMATCH, code, message);
  }

  #end(reason: DisconnectReason, code: string, message: string): void {
    this.#channel.send(leaveForGood(reason));
    // A close reason has room for 123 bytes (RFC 6455, 5.5).
    this.#channel.close(closeCodes.policyViolation, `${code}: ${message}`.slice(0, 120));
    this.#room.remove(this.#participant, reason);
  }
}

/** LiveKit's prefixes: TR_AM a microphone, TR_VC a camera, TR_VS a screen ... */
function trackPrefix({ type, source }: AddTrackRequest): string {
  const kind = type === TrackType.AUDIO ? 'A' : 'V';
  const letters: Partial<Record<TrackSource, string>> = {
    [TrackSource.CAMERA]: 'C',
    [TrackSource.MICROPHONE]: 'M',
    [TrackSource.SCREEN_SHARE]: 'S',
    [TrackSource.SCREEN_SHARE_AUDIO]: 'S',
  };
  return `TR_${kind}${letters[source] ?? ''}`;
}
