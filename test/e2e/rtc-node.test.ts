import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  AudioFrame,
  AudioSource,
  AudioStream,
  dispose,
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
  type RemoteTrack,
} from '@livekit/rtc-node';
import { createToken, eventually, Fleet, namespaceProblem, NetworkNamespace } from '#test/fleet/mod.ts';
import { Browser } from './browser.ts';

const skip = namespaceProblem();
const sampleRate = 48_000;
const frameSamples = sampleRate / 100;

/** A participant on the unmodified rtc-node SDK (libwebrtc outside a browser). */
class Participant {
  readonly room = new Room();
  readonly data: string[] = [];
  readonly #closers: (() => void)[] = [];
  videoFrames = 0;
  /** Sum of squares of the samples that were heard. */
  audioEnergy = 0;

  async connect(url: string, token: string): Promise<void> {
    this.room.on(RoomEvent.TrackSubscribed, (track) => void this.#consume(track));
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
    let at = 0;
    let going = true;
    const speak = async () => {
      while (going) {
        const samples = Int16Array.from(
          { length: frameSamples },
          (_, index) => 8000 * Math.sin((2 * Math.PI * 440 * (at + index)) / sampleRate),
        );
        at += frameSamples;
        await source.captureFrame(new AudioFrame(samples, sampleRate, 1, frameSamples));
      }
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

  async close(): Promise<void> {
    for (const close of this.#closers) close();
    await this.room.disconnect();
  }

  async #consume(track: RemoteTrack): Promise<void> {
    if (track.kind === TrackKind.KIND_VIDEO) {
      for await (const _event of new VideoStream(track)) this.videoFrames += 1;
      return;
    }
    for await (const frame of new AudioStream(track, sampleRate, 1)) {
      this.audioEnergy += frame.data.reduce((sum, sample) => sum + sample * sample, 0);
    }
  }
}

suite('the rtc-node SDK, with nodes in a network namespace', { skip }, () => {
  let namespace: NetworkNamespace;
  let fleet: Fleet;

  before(async () => {
    namespace = await NetworkNamespace.create();
    const node = { address: namespace.address, wrapper: namespace.wrapper };
    fleet = await Fleet.start({
      address: namespace.hostAddress,
      nodes: [
        { name: 'ns-a', region: 'eu-west', ...node },
        { name: 'ns-b', region: 'us-east', ...node },
        { name: 'ns-c', region: 'ap-south', ...node },
      ],
    });
  });

  after(async () => {
    await fleet?.stop();
    await namespace?.close();
    await dispose();
  });

  const join = async (room: string, identity: string, node = 'ns-a') => {
    const participant = new Participant();
    const token = await createToken({ apiKey: fleet.apiKey, apiSecret: fleet.apiSecret, room, identity });
    await participant.connect(fleet.node(node).url, token);
    return participant;
  };

  test('hears, sees and exchanges data in a room over three nodes', async () => {
    const ada = await join('native', 'ada');
    const bob = await join('native', 'bob', 'ns-b');
    const cyd = await join('native', 'cyd', 'ns-c');
    await ada.publishVideo();
    await ada.publishAudio();
    await bob.publishAudio();
    for (const [name, who] of Object.entries({ bob, cyd })) {
      await eventually(() => who.videoFrames > 20, { timeoutMs: 20_000, what: `video at ${name}` });
    }
    for (const [name, who] of Object.entries({ ada, bob, cyd })) {
      await eventually(() => who.audioEnergy > 1e9, { timeoutMs: 20_000, what: `audio at ${name}` });
    }
    const { status } = await fleet.kubectl.json<{ status: { nodes: string } }>('get', 'room', 'native');
    assert.deepEqual(status.nodes.split(',').sort(), ['ns-a', 'ns-b', 'ns-c']);
    const text = new TextEncoder();
    await ada.room.localParticipant!.publishData(text.encode('hello'), { reliable: true });
    await bob.room.localParticipant!.publishData(text.encode('hello back'), {
      reliable: true,
      destination_identities: ['ada'],
    });
    await eventually(() => bob.data.includes('ada: hello') && ada.data.includes('bob: hello back'), {
      what: 'data both ways',
    });
    await Promise.all([ada.close(), bob.close(), cyd.close()]);
  });

  test('shares a call with a browser', async () => {
    const browser = await Browser.launch();
    try {
      const ada = await join('mixed', 'ada');
      await ada.publishVideo();
      await ada.publishAudio();
      const bob = await browser.participant();
      const token = await createToken({
        apiKey: fleet.apiKey,
        apiSecret: fleet.apiSecret,
        room: 'mixed',
        identity: 'bob',
      });
      await bob.connect(fleet.node('ns-b').url, token);
      await bob.publish({ camera: true, microphone: true });
      await eventually(async () => (await bob.received('ada', 'camera')).framesDecoded > 20, {
        timeoutMs: 20_000,
        what: 'video at the browser',
      });
      await eventually(async () => (await bob.received('ada', 'microphone')).totalAudioEnergy > 0, {
        timeoutMs: 20_000,
        what: 'audio at the browser',
      });
      await eventually(() => ada.videoFrames > 20 && ada.audioEnergy > 0, {
        timeoutMs: 30_000,
        what: 'the browser at rtc-node',
      });
      await ada.close();
      await eventually(async () => (await bob.view()).remotes.length === 0, { what: 'leave' });
    } finally {
      await browser.close();
    }
  });
});
