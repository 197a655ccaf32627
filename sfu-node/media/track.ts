import { TrackInfo, TrackType, VideoQuality } from '@livekit/protocol';
import type { AddTrackRequest } from '@livekit/protocol';
import type { Producer } from 'mediasoup/types';

/** A track that a participant publishes in this room, with the producer that carries it on this node. */
export class PublishedTrack {
  readonly sid: string;
  readonly publisherSid: string;
  readonly publisherIdentity: string;
  readonly info: TrackInfo;
  readonly producer: Producer;
  /** Somebody subscribed to it once; its publisher was told. */
  heard = false;

  constructor(publisher: { sid: string; identity: string }, info: TrackInfo, producer: Producer) {
    this.sid = info.sid;
    this.publisherSid = publisher.sid;
    this.publisherIdentity = publisher.identity;
    this.info = info;
    this.producer = producer;
  }

  get kind(): 'audio' | 'video' {
    return this.producer.kind;
  }
}

/** The stream id by which LiveKit clients find a track's owner. */
export function streamIdOf(track: PublishedTrack): string {
  return `${track.publisherSid}|${track.sid}`;
}

/** TrackInfo of a track that was announced and not yet sent. */
export function announcedTrackInfo(sid: string, request: AddTrackRequest): TrackInfo {
  return new TrackInfo({
    sid,
    type: request.type,
    name: request.name,
    muted: request.muted,
    width: request.width,
    height: request.height,
    simulcast: request.layers.length > 1,
    disableDtx: request.disableDtx,
    source: request.source,
    layers: request.layers,
    stereo: request.stereo,
    disableRed: request.disableRed,
    encryption: request.encryption,
    stream: request.stream,
    backupCodecPolicy: request.backupCodecPolicy,
    audioFeatures: request.audioFeatures,
  });
}

/** What a track of a kind is called in LiveKit messages. */
export function trackTypeOf(kind: 'audio' | 'video'): TrackType {
  return kind === 'audio' ? TrackType.AUDIO : TrackType.VIDEO;
}

/** Spatial layer (0 is the lowest) that a wanted quality means, of a track that has `layers` of them. */
export function spatialLayerOf(quality: VideoQuality, layers: number): number {
  const wanted = quality === VideoQuality.LOW ? 0 : quality === VideoQuality.MEDIUM ? 1 : 2;
  return Math.min(wanted, Math.max(0, layers - 1));
}

/**
 * Lowest quality whose layer is at least as large as what the subscriber shows; HIGH when none is.
 * @param width pixels shown, 0 when unknown
 * @param height pixels shown, 0 when unknown
 */
export function qualityFor(info: TrackInfo, width: number, height: number): VideoQuality {
  if (width === 0 || height === 0) return VideoQuality.HIGH;
  const layers = info.layers
    .filter(({ quality }) => quality !== VideoQuality.OFF)
    .sort((a, b) => a.width * a.height - b.width * b.height);
  const enough = layers.find((layer) => layer.width >= width || layer.height >= height);
  return enough?.quality ?? VideoQuality.HIGH;
}
