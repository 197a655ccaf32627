import { parseScalabilityMode } from 'mediasoup';
import type { RouterRtpCodecCapability, RtpParameters } from 'mediasoup/types';
import type { RoomSettings } from '#proto/weir/control/v1/control.ts';

/** Codecs that Weir serves, in the order in which they are offered. */
export const servedCodecs = ['opus', 'vp8', 'h264', 'vp9', 'av1'] as const;

export type CodecName = (typeof servedCodecs)[number];

/**
 * Payload types are those that Chromium offers first, so that a capture of either side of the SFU reads alike; clients
 * may use others, mediasoup maps them.
 */
const capabilities: Record<CodecName, RouterRtpCodecCapability> = {
  opus: {
    kind: 'audio',
    mimeType: 'audio/opus',
    preferredPayloadType: 111,
    clockRate: 48_000,
    channels: 2,
    parameters: { minptime: 10, useinbandfec: 1 },
  },
  vp8: { kind: 'video', mimeType: 'video/VP8', preferredPayloadType: 96, clockRate: 90_000 },
  h264: {
    kind: 'video',
    mimeType: 'video/H264',
    preferredPayloadType: 102,
    clockRate: 90_000,
    // Constrained baseline: the profile that every client encodes and decodes.
    parameters: { 'packetization-mode': 1, 'profile-level-id': '42e01f', 'level-asymmetry-allowed': 1 },
  },
  vp9: {
    kind: 'video',
    mimeType: 'video/VP9',
    preferredPayloadType: 98,
    clockRate: 90_000,
    parameters: { 'profile-id': 0 },
  },
  av1: { kind: 'video', mimeType: 'video/AV1', preferredPayloadType: 45, clockRate: 90_000 },
};

/** Codecs of a room: those its settings name (all that are served when they name none), without video if audio only. */
export function codecsOf(settings: Pick<RoomSettings, 'codecs' | 'audioOnly'>): CodecName[] {
  const wanted =
    settings.codecs.length === 0 ? servedCodecs : servedCodecs.filter((name) => settings.codecs.includes(name));
  return wanted.filter((name) => !settings.audioOnly || capabilities[name].kind === 'audio');
}

/**
 * What the probes of cascade links go as: a codec that every router has, whatever its room carries, and that no client
 * offers by itself.
 */
export const probeCodec = {
  kind: 'audio',
  mimeType: 'audio/multiopus',
  preferredPayloadType: 125,
  clockRate: 48_000,
  channels: 4,
  parameters: { channel_mapping: '0,1,2,3', num_streams: 2, coupled_streams: 2 },
} as const satisfies RouterRtpCodecCapability;

/** mediasoup's router codecs for a list of names. */
export function routerCodecs(names: readonly CodecName[]): RouterRtpCodecCapability[] {
  return [...names.map((name): RouterRtpCodecCapability => capabilities[name]), probeCodec];
}

/** MIME type of a codec, as LiveKit messages write it. */
export function mimeTypeOf(name: CodecName): string {
  return capabilities[name].mimeType;
}

/** Spatial layers that the first stream of these parameters has or is chosen from, by its scalability mode. */
export function spatialLayersOf({ encodings }: RtpParameters): number {
  return parseScalabilityMode(encodings?.[0]?.scalabilityMode).spatialLayers;
}

/** Whether a codec sends its spatial layers in one stream (SVC) rather than one stream a layer (simulcast). */
export function isSvc(mimeType: string): boolean {
  return /\/(vp9|av1)$/i.test(mimeType);
}
