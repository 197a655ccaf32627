/** Runs inside the browser: the unmodified LiveKit SDK and a stopwatch. Bundled by tools/bench/bench-browser.ts. */
import { Room, RoomEvent, Track } from 'livekit-client';
import type { BenchPageApi, JoinTimes } from './api.ts';

interface FirstFrame {
  /** performance.now() */
  at: number;
  metadata: VideoFrameCallbackMetadata;
}

/** A participant with a video element for the first camera that it is subscribed to. */
function createViewer(): {
  room: Room;
  subscribedAt: () => number;
  firstFrame: Promise<FirstFrame>;
  leave: () => Promise<void>;
} {
  const room = new Room({ adaptiveStream: false, dynacast: false });
  const video = document.createElement('video');
  video.muted = true;
  video.width = 320;
  document.body.append(video);
  let subscribedAt = Number.NaN;
  const firstFrame = new Promise<FirstFrame>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('no frame within 15 s')), 15_000);
    video.requestVideoFrameCallback((_, metadata) => {
      clearTimeout(timer);
      resolve({ at: performance.now(), metadata });
    });
  });
  // A connect() that fails is what is told then.
  firstFrame.catch(() => undefined);
  room.on(RoomEvent.TrackSubscribed, (track) => {
    if (track.kind !== Track.Kind.Video) return;
    subscribedAt = performance.now();
    track.attach(video);
  });
  const leave = async () => {
    await room.disconnect();
    video.remove();
  };
  return { room, subscribedAt: () => subscribedAt, firstFrame, leave };
}

async function measureJoin(url: string, token: string): Promise<JoinTimes> {
  if (document.visibilityState !== 'visible') throw new Error('the page is hidden, and hidden pages are throttled');
  const viewer = createViewer();
  try {
    const start = performance.now();
    await viewer.room.connect(url, token);
    const connected = performance.now();
    const { at, metadata } = await viewer.firstFrame;
    const { receiveTime, processingDuration } = metadata;
    return {
      node: viewer.room.serverInfo?.nodeId ?? '',
      connected: connected - start,
      subscribed: viewer.subscribedAt() - start,
      firstFrame: at - start,
      received: receiveTime === undefined ? undefined : receiveTime - start,
      decodeMillis: processingDuration === undefined ? undefined : processingDuration * 1000,
    };
  } finally {
    await viewer.leave();
  }
}

async function joinMany(url: string, tokens: readonly string[]): Promise<void> {
  for (const token of tokens) {
    const viewer = createViewer();
    await viewer.room.connect(url, token);
    await viewer.firstFrame;
  }
}

async function publish(url: string, token: string): Promise<string> {
  const room = new Room({ adaptiveStream: false, dynacast: false });
  await room.connect(url, token);
  await room.localParticipant.setCameraEnabled(true, { resolution: { width: 640, height: 360 } });
  return room.serverInfo?.nodeId ?? '';
}

const api: BenchPageApi = { publish, measureJoin, joinMany };
Object.assign(globalThis, { weirBench: api });
