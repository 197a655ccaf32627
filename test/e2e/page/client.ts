/** Runs inside the browser: the unmodified LiveKit SDK, with what tests ask of it. Bundled by test/e2e/browser.ts. */
import * as livekit from 'livekit-client';
import { MediaGaps } from '../media-gaps.ts';
import type { PageApi, Source, View } from './api.ts';

const { Room, RoomEvent } = livekit;

let room = new Room();
let data: View['data'] = [];
let events: string[] = [];
let disconnectReason: string | undefined;
let gaps = new MediaGaps();

function remoteTrack(identity: string, source: Source): livekit.RemoteTrackPublication | undefined {
  return room.remoteParticipants.get(identity)?.getTrackPublication(source as livekit.Track.Source);
}

async function inboundStats(identity: string, source: Source): Promise<RTCInboundRtpStreamStats | undefined> {
  const report = await remoteTrack(identity, source)?.track?.getRTCStatsReport();
  for (const entry of report?.values() ?? []) {
    const stats = entry as RTCInboundRtpStreamStats;
    if (stats.type === 'inbound-rtp') return stats;
  }
  return undefined;
}

/** Chromium's; TypeScript does not know it yet. */
declare const MediaStreamTrackProcessor: new (init: { track: MediaStreamTrack }) => {
  readable: ReadableStream<{ close(): void }>;
};

/** Notes every frame of a video until its track ends, also where the window is hidden and shows none. */
async function noteFrames(track: MediaStreamTrack, from: string): Promise<void> {
  const frames = new MediaStreamTrackProcessor({ track }).readable.getReader();
  for (;;) {
    const { value: frame } = await frames.read();
    if (!frame) return;
    frame.close();
    gaps.frame(from, performance.now());
  }
}

function tone(): MediaStreamTrack {
  const audio = new AudioContext();
  const oscillator = audio.createOscillator();
  const out = audio.createMediaStreamDestination();
  oscillator.connect(out);
  oscillator.start();
  return out.stream.getAudioTracks()[0]!;
}

/** In place of a screen, which a headless browser has not. */
function movingPicture(): MediaStreamTrack {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [640, 400];
  const pen = canvas.getContext('2d')!;
  let step = 0;
  setInterval(() => {
    step += 1;
    pen.fillStyle = `hsl(${step % 360} 60% 50%)`;
    pen.fillRect(0, 0, canvas.width, canvas.height);
  }, 100);
  return canvas.captureStream(10).getVideoTracks()[0]!;
}

const api: PageApi = {
  async connect(url, token, options) {
    room = new Room({ dynacast: options.dynacast ?? false });
    data = [];
    events = [];
    disconnectReason = undefined;
    gaps = new MediaGaps();
    for (const event of Object.values(RoomEvent)) room.on(event, () => events.push(event));
    room.on(RoomEvent.DataReceived, (payload, participant, kind, topic) => {
      const text = new TextDecoder().decode(payload);
      const reliable = kind === livekit.DataPacket_Kind.RELIABLE;
      data.push({
        from: participant?.identity ?? '',
        topic: topic ?? '',
        text,
        kind: reliable ? 'RELIABLE' : 'LOSSY',
      });
    });
    room.on(RoomEvent.Disconnected, (reason) => {
      disconnectReason = reason === undefined ? '' : livekit.DisconnectReason[reason];
    });
    room.on(RoomEvent.TrackSubscribed, (track, _publication, from) => {
      document.body.append(track.attach());
      if (track.kind === livekit.Track.Kind.Video) void noteFrames(track.mediaStreamTrack, from.identity);
    });
    room.on(RoomEvent.TrackUnsubscribed, (track) => {
      for (const element of track.detach()) element.remove();
    });
    const start = performance.now();
    const rtcConfig: RTCConfiguration = options.relayOnly ? { iceTransportPolicy: 'relay' } : {};
    await room.connect(url, token, { autoSubscribe: options.autoSubscribe ?? true, rtcConfig });
    return performance.now() - start;
  },
  async publish({ camera, microphone, voice, screen, simulcast, videoCodec }) {
    const publishing = { simulcast: simulcast ?? true, videoCodec: videoCodec ?? 'vp8', backupCodec: false } as const;
    if (microphone) await room.localParticipant.setMicrophoneEnabled(true);
    if (voice) await room.localParticipant.publishTrack(tone(), { source: livekit.Track.Source.Microphone });
    if (camera) {
      const resolution = { width: 640, height: 360 };
      await room.localParticipant.setCameraEnabled(true, { resolution }, publishing);
    }
    if (screen) {
      const source = livekit.Track.Source.ScreenShare;
      await room.localParticipant.publishTrack(movingPicture(), { source, simulcast: false, videoCodec: 'vp8' });
    }
  },
  async sending(source) {
    const sender = room.localParticipant.getTrackPublication(source as livekit.Track.Source)?.track?.sender;
    const active = new Map(sender?.getParameters().encodings.map((encoding) => [encoding.rid ?? '', encoding.active]));
    const layers = [...((await sender?.getStats())?.values() ?? [])].filter(
      (entry: RTCOutboundRtpStreamStats) => entry.type === 'outbound-rtp',
    ) as (RTCOutboundRtpStreamStats & { rid?: string })[];
    return layers
      .sort((a, b) => 'qhf'.indexOf(a.rid ?? '') - 'qhf'.indexOf(b.rid ?? ''))
      .map(({ rid = '', framesSent = 0 }) => ({ rid, active: active.get(rid) ?? true, framesSent }));
  },
  async setCamera(enabled) {
    await room.localParticipant.setCameraEnabled(enabled);
  },
  async unpublish(source) {
    const track = room.localParticipant.getTrackPublication(source as livekit.Track.Source)?.track;
    if (track) await room.localParticipant.unpublishTrack(track);
  },
  setQuality: (identity, source, quality) =>
    remoteTrack(identity, source)?.setVideoQuality(livekit.VideoQuality[quality]),
  setEnabled: (identity, source, enabled) => remoteTrack(identity, source)?.setEnabled(enabled),
  setSubscribed: (identity, source, subscribed) => remoteTrack(identity, source)?.setSubscribed(subscribed),
  async send(text, { reliable, to }) {
    const bytes = new TextEncoder().encode(text);
    await room.localParticipant.publishData(bytes, { reliable, destinationIdentities: to ?? [], topic: 'test' });
  },
  async received(identity, source) {
    const stats = await inboundStats(identity, source);
    return {
      framesDecoded: stats?.framesDecoded ?? 0,
      frameWidth: stats?.frameWidth ?? 0,
      frameHeight: stats?.frameHeight ?? 0,
      packetsReceived: stats?.packetsReceived ?? 0,
      bytesReceived: stats?.bytesReceived ?? 0,
      totalAudioEnergy: stats?.totalAudioEnergy ?? 0,
    };
  },
  view: () => ({
    state: room.state,
    sid: room.localParticipant.sid,
    serverRegion: room.serverInfo?.region ?? '',
    serverNode: room.serverInfo?.nodeId ?? '',
    metadata: room.metadata ?? '',
    remotes: [...room.remoteParticipants.values()].map((participant) => ({
      identity: participant.identity,
      sid: participant.sid,
      name: participant.name ?? '',
      metadata: participant.metadata ?? '',
      attributes: participant.attributes,
      tracks: [...participant.trackPublications.values()].map((publication) => ({
        sid: publication.trackSid,
        source: publication.source,
        muted: publication.isMuted,
        subscribed: publication.isSubscribed,
      })),
    })),
    speakers: room.activeSpeakers.map(({ identity }) => identity),
    data,
    events,
    disconnectReason,
  }),
  restartGaps: () => gaps.restart(performance.now()),
  gaps: () => gaps.report(performance.now()),
  leave: () => room.disconnect(),
};

Object.assign(globalThis, { weir: api });
