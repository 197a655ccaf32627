import { SpeakerInfo } from '@livekit/protocol';
import type { AudioLevelObserver, Router } from 'mediasoup/types';
import type { PublishedTrack } from './track.ts';

/** Quieter than this (dBvo, 0 is loudest) is no speech. */
const thresholdDb = -55;
const intervalMs = 400;
const maxSpeakers = 20;

/** Tells who is speaking, from the audio levels that clients send with their packets. */
export class Speakers {
  readonly #observer: AudioLevelObserver;
  readonly #tracks = new Map<string, PublishedTrack>();
  #onChange: (changed: SpeakerInfo[]) => void = () => undefined;
  #speaking = new Map<string, number>();

  private constructor(observer: AudioLevelObserver) {
    this.#observer = observer;
    observer.on('volumes', (volumes) => {
      const speaking = new Map<string, number>();
      for (const { producer, volume } of volumes) {
        const track = this.#tracks.get(producer.id);
        if (track) speaking.set(track.publisherSid, levelOf(volume));
      }
      this.#update(speaking);
    });
    observer.on('silence', () => this.#update(new Map()));
  }

  static async create(router: Router): Promise<Speakers> {
    const observer = await router.createAudioLevelObserver({
      maxEntries: maxSpeakers,
      threshold: thresholdDb,
      interval: intervalMs,
    });
    return new Speakers(observer);
  }

  /** `onChange` gets those who speak, and those who stopped since its last call (level 0, not active). */
  listen(onChange: (changed: SpeakerInfo[]) => void): void {
    this.#onChange = onChange;
  }

  add(track: PublishedTrack): void {
    this.#tracks.set(track.producer.id, track);
    // A producer that closed in between needs no observing.
    this.#observer.addProducer({ producerId: track.producer.id }).catch(() => this.remove(track));
  }

  remove(track: PublishedTrack): void {
    this.#tracks.delete(track.producer.id);
  }

  #update(speaking: Map<string, number>): void {
    const stopped = [...this.#speaking.keys()].filter((sid) => !speaking.has(sid));
    this.#speaking = speaking;
    const changed = [
      ...[...speaking].map(([sid, level]) => new SpeakerInfo({ sid, level, active: true })),
      ...stopped.map((sid) => new SpeakerInfo({ sid, level: 0, active: false })),
    ];
    if (changed.length > 0) this.#onChange(changed);
  }
}

/** LiveKit's linear level (0..1) of a volume in dBvo (-127..0). */
function levelOf(volume: number): number {
  return Math.min(1, 10 ** (volume / 20));
}
