import {
  AudioFrame,
  AudioSource,
  AudioStream,
  LocalAudioTrack,
  LocalVideoTrack,
  Room,
  RoomEvent,
  TrackKind,
  TrackPublishOptions,
  TrackSource,
  VideoBufferType,
  VideoFrame,
  VideoSource,
  VideoStream,
  dispose,
  type RemoteTrack,
} from '@livekit/rtc-node';
import { MediaGaps, type MediaReceived } from './media-gaps.ts';

const sampleRate = 48_000;
const frameMs = 20;
const frameSamples = (sampleRate * frameMs) / 1000;
/** Of a frame; the tone has thirty times as much. What makes up for lost sound falls below it after a tenth of a second. */
const soundEnergy = 1e6 * frameSamples;

/** Waits for something of the SDK that may never answer, as it can when it is in the middle of coming back. */
async function atMostFiveSeconds(work: Promise<unknown>): Promise<void> {
  await Promise.race([work, new Promise((resolve) => setTimeout(resolve, 5000).unref())]);
}

/** A participant on the unmodified rtc-node SDK (libwebrtc outside a browser). */
export class RtcParticipant {
  readonly room = new Room();
  readonly data: string[] = [];
  readonly #gaps = new MediaGaps();
  readonly #closers: (() => void)[] = [];
  readonly #watches: boolean;
  videoFrames = 0;
  /** Sum of squares of the samples that were heard. */
  audioEnergy = 0;

  /** Ends what all of them share, once they have been closed. */
  static end(): Promise<void> {
    return atMostFiveSeconds(dispose());
  }

  /** @param options.watches whether it takes the pictures of others; it hears in any case */
  constructor({ watches = true }: { watches?: boolean } = {}) {
    this.#watches = watches;
  }

  async connect(url: string, token: string): Promise<void> {
    this.room.on(RoomEvent.TrackSubscribed, (track, _publication, from) => {
      void this.#consume(track, from.identity);
    });
    this.room.on(RoomEvent.DataReceived, (payload, participant) => {
      this.data.push(`${participant?.identity}: ${new TextDecoder().decode(payload)}`);
    });
    await this.room.connect(url, token, { autoSubscribe: true, dynacast: false });
  }

  /** Publishes a tone. */
  async publishAudio(): Promise<string> {
    const source = new AudioSource(sampleRate, 1);
    const track = LocalAudioTrack.createAudioTrack('tone', source);
    const publication = await this.room.localParticipant!.publishTrack(
      track,
      new TrackPublishOptions({ source: TrackSource.SOURCE_MICROPHONE }),
    );
    // Whole periods, so that frame follows frame without a click.
    const wave = (_: unknown, index: number) => 8000 * Math.sin((2 * Math.PI * 500 * index) / sampleRate);
    const frame = new AudioFrame(Int16Array.from({ length: frameSamples }, wave), sampleRate, 1, frameSamples);
    let going = true;
    const speak = async () => {
      while (going) await source.captureFrame(frame);
    };
    void speak().catch(() => undefined);
    this.#closers.push(() => (going = false));
    return publication.sid ?? '';
  }

  /** Publishes 20 grey frames a second, each a little lighter than the one before. */
  async publishVideo(): Promise<void> {
    const [width, height] = [320, 240];
    const source = new VideoSource(width, height);
    const track = LocalVideoTrack.createVideoTrack('grey', source);
    await this.room.localParticipant!.publishTrack(
      track,
      new TrackPublishOptions({ source: TrackSource.SOURCE_CAMERA, simulcast: false }),
    );
    let shade = 0;
    const timer = setInterval(() => {
      shade = (shade + 1) % 256;
      const frame = new Uint8Array((width * height * 3) / 2).fill(128);
      frame.fill(shade, 0, width * height);
      source.captureFrame(new VideoFrame(frame, width, height, VideoBufferType.I420));
    }, 50);
    this.#closers.push(() => clearInterval(timer));
  }

  /** Measures {@link RtcParticipant.gaps} anew from now on. */
  restartGaps(): Promise<void> {
    this.#gaps.restart(performance.now());
    return Promise.resolve();
  }

  /** Sound that came, and how long none did, by who makes it. */
  gaps(): Promise<Record<string, MediaReceived>> {
    return Promise.resolve(this.#gaps.report(performance.now()));
  }

  async close(): Promise<void> {
    for (const close of this.#closers) close();
    await atMostFiveSeconds(this.room.disconnect());
  }

  async #consume(track: RemoteTrack, from: string): Promise<void> {
    if (track.kind === TrackKind.KIND_VIDEO) {
      if (!this.#watches) return;
      for await (const _event of new VideoStream(track)) this.videoFrames += 1;
      return;
    }
    for await (const frame of new AudioStream(track, { sampleRate, numChannels: 1, frameSizeMs: frameMs })) {
      const energy = frame.data.reduce((sum, sample) => sum + sample * sample, 0);
      this.audioEnergy += energy;
      if (energy > soundEnergy) this.#gaps.frame(from, performance.now());
    }
  }
}
