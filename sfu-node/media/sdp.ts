/**
 * SDP on the server's side, built with mediasoup-client's own modules: the client's offers are answered (its publisher
 * connection) and offers are made to it (its subscriber connection). Nothing here touches a transport.
 */
import * as commonUtils from 'mediasoup-client/handlers/sdp/commonUtils';
import { RemoteSdp } from 'mediasoup-client/handlers/sdp/RemoteSdp';
import { getRtpEncodings } from 'mediasoup-client/handlers/sdp/unifiedPlanUtils';
import * as ortc from 'mediasoup-client/ortc';
import type {
  DtlsParameters,
  IceCandidate,
  IceParameters,
  MediaKind,
  RtpCapabilities,
  RtpEncodingParameters,
  RtpParameters,
  SctpParameters,
} from 'mediasoup/types';
import type { types as mediasoupClient } from 'mediasoup-client';
import { parse, parseSimulcastStreamList, type MediaDescription, type SessionDescription } from 'sdp-transform';
import { messageOf, WeirError } from '#platform/errors.ts';

/** What a transport says of itself, for SDP. */
export interface TransportParameters {
  readonly iceParameters: IceParameters;
  readonly iceCandidates: IceCandidate[];
  readonly dtlsParameters: DtlsParameters;
  readonly sctpParameters: SctpParameters | undefined;
}

/** One m-section of a client's offer that sends media. */
export interface SendingSection {
  readonly mid: string;
  readonly kind: MediaKind;
  /** Track id of the section's msid: the client id (cid) of the track's AddTrackRequest. */
  readonly cid: string;
  /** What to produce. */
  readonly rtpParameters: RtpParameters;
}

export interface PublisherAnswer {
  readonly sdp: string;
  readonly sending: readonly SendingSection[];
  /** The client's DTLS parameters, with the role that the answer gives it. */
  readonly dtlsParameters: DtlsParameters;
  readonly iceUfrag: string | undefined;
}

interface ParsedMsid {
  id: string;
  appdata?: string;
}

/** sha-256 alone: RemoteSdp would take the last of mediasoup's list (sha-1), on which Pion's handshake fails. */
function withSha256(parameters: DtlsParameters, role: DtlsParameters['role']): DtlsParameters {
  return { role, fingerprints: parameters.fingerprints.filter(({ algorithm }) => algorithm === 'sha-256') };
}

function remoteSdp(transport: TransportParameters, role: DtlsParameters['role']): RemoteSdp {
  return new RemoteSdp({
    iceParameters: transport.iceParameters,
    iceCandidates: transport.iceCandidates,
    dtlsParameters: withSha256(transport.dtlsParameters, role),
    sctpParameters: transport.sctpParameters,
  });
}

/** @throws WeirError InvalidSdp */
export function parseSdp(sdp: string): SessionDescription {
  try {
    const parsed = parse(sdp);
    if (!Array.isArray(parsed.media) || parsed.media.length === 0) throw new Error('it has no m= section');
    return parsed;
  } catch (error) {
    throw new WeirError('InvalidSdp', `The session description cannot be read: ${messageOf(error)}.`, { cause: error });
  }
}

/** Remote DTLS parameters of a description. @throws WeirError InvalidSdp */
export function dtlsParametersOf(sdp: SessionDescription): DtlsParameters {
  try {
    return commonUtils.extractDtlsParameters({ sdpObject: sdp });
  } catch (error) {
    throw new WeirError('InvalidSdp', `The session description cannot be used: ${messageOf(error)}.`, { cause: error });
  }
}

/** mids of the sections that a description refuses (port 0). */
export function refusedMids(sdp: SessionDescription): Set<string> {
  return new Set(sdp.media.filter(({ port }) => port === 0).map(({ mid }) => String(mid)));
}

/**
 * Answers an offer of a client's publisher connection. A pure function of the offer, the transport and the room's
 * codecs, so that an answer never depends on the offers before it. The server is passive (the client starts DTLS), so
 * the client owns the even data channel ids.
 *
 * A section is answered recvonly when it sends a track in a codec of the room, port 0 when the client refused it or no
 * codec fits, inactive otherwise.
 * @throws WeirError InvalidSdp
 */
export function answerPublisherOffer(
  offerSdp: string,
  transport: TransportParameters,
  routerCapabilities: RtpCapabilities,
  sessionVersion: number,
): PublisherAnswer {
  const offer = parseSdp(offerSdp);
  const remote = remoteSdp(transport, 'server');
  if (offer.extmapAllowMixed) remote.setSessionExtmapAllowMixed();
  const sending: SendingSection[] = [];
  for (const section of offer.media) {
    const mid = String(section.mid);
    if (section.type === 'application') {
      remote.sendSctpAssociation({ offerMediaObject: section });
      continue;
    }
    if (section.type !== 'audio' && section.type !== 'video') {
      throw new WeirError(
        'InvalidSdp',
        `Section ${mid} is of type ${section.type}; only audio, video and application are served.`,
      );
    }
    const kind: MediaKind = section.type;
    const matched = section.port === 0 ? undefined : matchCodecs(kind, offer, section, routerCapabilities);
    remote.send({
      offerMediaObject: section,
      offerRtpParameters: matched?.sending ?? refusedParameters(section),
      answerRtpParameters: matched?.answering ?? refusedParameters(section),
    });
    if (!matched) {
      remote.closeMediaSection(mid);
      continue;
    }
    const cid = sentTrackId(section);
    const encodings = cid === undefined ? undefined : encodingsOf(section, matched.sending);
    if (cid === undefined || encodings === undefined) {
      remote.pauseMediaSection(mid);
      continue;
    }
    const rtpParameters = {
      ...matched.sending,
      mid,
      encodings,
      rtcp: { cname: commonUtils.getCname({ offerMediaObject: section }) || undefined },
    } as RtpParameters;
    sending.push({ mid, kind, cid, rtpParameters });
  }
  return {
    sdp: finish(remote.getSdp(), sessionVersion),
    sending,
    // The answer says a=setup:passive, which makes the client the DTLS client whatever its offer left open.
    dtlsParameters: { ...dtlsParametersOf(offer), role: 'client' },
    iceUfrag: offer.media.find(({ iceUfrag }) => iceUfrag)?.iceUfrag ?? offer.iceUfrag,
  };
}

/** A refused section still names a payload type, as its m= line needs one. */
function refusedParameters(section: MediaDescription): mediasoupClient.RtpParameters {
  const payloadType = Number(section.payloads?.split(' ')[0] ?? 0);
  const mimeType: `${MediaKind}/${string}` = section.type === 'audio' ? 'audio/refused' : 'video/refused';
  return {
    codecs: [{ mimeType, payloadType, clockRate: 90_000, parameters: {}, rtcpFeedback: [] }],
    headerExtensions: [],
    encodings: [],
    rtcp: {},
  };
}

function matchCodecs(
  kind: MediaKind,
  offer: SessionDescription,
  section: MediaDescription,
  routerCapabilities: RtpCapabilities,
): { sending: mediasoupClient.RtpParameters; answering: mediasoupClient.RtpParameters } | undefined {
  // Of this section alone: its order of codecs is the client's preference for this track.
  const offered = commonUtils.extractRtpCapabilities({ sdpObject: { ...offer, media: [section] } });
  const extended = ortc.getExtendedRtpCapabilities(
    offered,
    routerCapabilities as mediasoupClient.RtpCapabilities,
    true,
  );
  const sending = ortc.getSendingRtpParameters(kind, extended);
  const answering = ortc.getSendingRemoteRtpParameters(kind, extended);
  if (sending.codecs.length === 0) return undefined;
  sending.codecs = ortc.reduceCodecs(sending.codecs);
  answering.codecs = ortc.reduceCodecs(answering.codecs);
  return { sending, answering };
}

/** Track id that a section sends; undefined when it sends nothing. */
function sentTrackId(section: MediaDescription): string | undefined {
  if (section.direction !== 'sendonly' && section.direction !== 'sendrecv') return undefined;
  const msid: unknown = section.msid;
  // sdp-transform 3 gives an array, its types say string.
  if (Array.isArray(msid)) return (msid as ParsedMsid[])[0]?.appdata ?? '';
  if (typeof msid === 'string') return msid.split(' ')[1] ?? '';
  return '';
}

/** Encodings of a section, lowest layer first; undefined when it names neither layers (rid) nor streams (ssrc) yet. */
function encodingsOf(
  section: MediaDescription,
  parameters: mediasoupClient.RtpParameters,
): RtpEncodingParameters[] | undefined {
  if (section.simulcast?.list1) {
    const rids = parseSimulcastStreamList(section.simulcast.list1).flatMap(([first]) =>
      first ? [String(first.scid)] : [],
    );
    return rids.map((rid) => ({ rid, scalabilityMode: 'L1T3' }));
  }
  if (!section.ssrcs?.length) return undefined;
  return getRtpEncodings({ offerMediaObject: section, codecs: parameters.codecs });
}

/** Names the session as ours, with a version that grows with every description. */
function finish(sdp: string, sessionVersion: number): string {
  return sdp.replace(/^o=.*$/m, `o=weir 10000 ${sessionVersion} IN IP4 0.0.0.0`);
}

/** One track to offer to a subscriber. */
export interface OfferedTrack {
  readonly mid: string;
  readonly kind: MediaKind;
  readonly rtpParameters: RtpParameters;
  /** `PARTICIPANT_SID|TRACK_SID`: LiveKit clients find the owner by it. */
  readonly streamId: string;
  readonly trackId: string;
}

/**
 * The offers of one subscriber connection. Sections are closed and used again under these rules: new tracks may take a
 * section that an answered offer closed, never one that was closed in the same offer (browsers refuse that).
 */
export class SubscriberOffer {
  readonly #remote: RemoteSdp;
  /** SSRCs that a section was made with, and those that stand in it now. */
  readonly #ssrcs = new Map<number, number>();
  #version = 0;

  constructor(transport: TransportParameters) {
    this.#remote = remoteSdp(transport, 'auto');
    this.#remote.receiveSctpAssociation();
  }

  /** The next offer, with sections added and closed. */
  next(added: readonly OfferedTrack[], closedMids: readonly string[]): string {
    for (const track of added) {
      this.#remote.receive({
        mid: track.mid,
        kind: track.kind,
        offerRtpParameters: track.rtpParameters as mediasoupClient.RtpParameters,
        streamId: track.streamId,
        trackId: track.trackId,
      });
    }
    for (const mid of closedMids) this.#remote.closeMediaSection(mid);
    this.#version += 1;
    return this.#withSsrcs(finish(this.#remote.getSdp(), this.#version));
  }

  /**
   * Puts another stream in place of one with the next offer. Its section stays, and so does the client's
   * MediaStreamTrack: only the SSRCs in it change.
   */
  replace(before: RtpParameters, after: RtpParameters): void {
    const streams = ({ encodings = [] }: RtpParameters) =>
      encodings.flatMap(({ ssrc = 0, rtx }) => [ssrc, ...(rtx ? [rtx.ssrc] : [])]);
    const next = streams(after);
    for (const [index, ssrc] of streams(before).entries()) {
      const original = [...this.#ssrcs].find(([, current]) => current === ssrc)?.[0] ?? ssrc;
      this.#ssrcs.set(original, next[index] ?? ssrc);
    }
  }

  #withSsrcs(sdp: string): string {
    if (this.#ssrcs.size === 0) return sdp;
    const current = (ssrc: string) => String(this.#ssrcs.get(Number(ssrc)) ?? ssrc);
    return sdp
      .replace(/^a=ssrc:(\d+)/gm, (_line, ssrc: string) => `a=ssrc:${current(ssrc)}`)
      .replace(/^a=ssrc-group:FID (\d+) (\d+)/gm, (_line, ssrc: string, rtx: string) => {
        return `a=ssrc-group:FID ${current(ssrc)} ${current(rtx)}`;
      });
  }

  /** Restarts ICE with the next offer. */
  restartIce(iceParameters: IceParameters): void {
    this.#remote.updateIceParameters(iceParameters);
  }
}
