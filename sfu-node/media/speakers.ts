import { SpeakerInfo } from '@livekit/protocol';
import type { AudioLevelObserver, Router } from 'mediasoup/types';
import type { Clock } from '#platform/clock.ts';
import type { LocalTrack } from './track.ts';

/** Quieter than this (dBvo, 0 is loudest) is no speech. */
const thresholdDb = -55;
const intervalMs = 400;
const maxSpeakers = 20;

/** Tells who is speaking, from the audio levels that clients send with their packets. */
export class Speakers {
  readonly #observer: AudioLevelObserver;
  readonly #tracks = new Map<string, LocalTrack>();
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

  add(track: LocalTrack): void {
    this.#tracks.set(track.producer.id, track);
    // A producer that closed in between needs no observing.
    this.#observer.addProducer({ producerId: track.producer.id }).catch(() => this.remove(track));
  }

  remove(track: LocalTrack): void {
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

/** A speaker of another node who is not heard of for so long is taken for silent, milliseconds: the end may be lost. */
const remoteSilenceMs = 2000;

/** Who is speaking on other nodes, as they tell a few times a second for as long as it lasts. */
export class RemoteSpeakers {
  readonly #clock: Clock;
  readonly #onChange: (changed: SpeakerInfo[]) => void;
  /** What takes each speaker for silent when nothing more is heard. */
  readonly #speaking = new Map<string, () => void>();

  constructor(clock: Clock, onChange: (changed: SpeakerInfo[]) => void) {
    this.#clock = clock;
    this.#onChange = onChange;
  }

  take(speakers: readonly { sid: string; level: number }[]): void {
    for (const { sid, level } of speakers) {
      this.#speaking.get(sid)?.();
      if (level > 0)
        this.#speaking.set(
          sid,
          this.#clock.after(remoteSilenceMs, () => this.#silent(sid)),
        );
      else this.#speaking.delete(sid);
    }
    this.#onChange(speakers.map(({ sid, level }) => new SpeakerInfo({ sid, level, active: level > 0 })));
  }

  close(): void {
    for (const cancel of this.#speaking.values()) cancel();
    this.#speaking.clear();
  }

  #silent(sid: string): void {
    this.#speaking.delete(sid);
    this.#onChange([new SpeakerInfo({ sid, level: 0, active: false })]);
  }
}

/** LiveKit's linear level (0..1) of a volume in dBvo (-127..0). */
function levelOf(volume: number): number {
  return Math.min(1, 10 ** (volume / 20));
}
