import {
  SubscribedCodec,
  SubscribedQuality,
  SubscribedQualityUpdate,
  VideoQuality,
  type TrackInfo,
} from '@livekit/protocol';

/**
 * What a publisher is told of the layers of its track that anybody in the fleet shows; clients that do not use dynacast
 * ignore it.
 * @param highest highest layer (0 is the lowest) that is shown; -1 for none
 */
export function subscribedQualities(info: TrackInfo, highest: number): SubscribedQualityUpdate {
  const qualities = [VideoQuality.LOW, VideoQuality.MEDIUM, VideoQuality.HIGH].map(
    (quality, layer) => new SubscribedQuality({ quality, enabled: layer <= highest }),
  );
  const codec = info.mimeType.replace(/^video\//i, '').toLowerCase();
  return new SubscribedQualityUpdate({
    trackSid: info.sid,
    subscribedQualities: qualities,
    subscribedCodecs: [new SubscribedCodec({ codec, qualities })],
  });
}
