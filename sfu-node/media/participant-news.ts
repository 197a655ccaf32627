import type { ParticipantInfo } from '@livekit/protocol';
import type { Clock } from '#platform/clock.ts';

/** How long changes are gathered after some were told, milliseconds. */
export const gatherMs = 100;

/**
 * Changes of participants on their way to the clients. After a quiet time a change is told at once; what follows is
 * gathered and told together. When hundreds join, or leave with their node, each client gets a few messages in place of
 * hundreds: otherwise the messages of a room grow with the square of its size, and hold up the node for seconds.
 */
export class ParticipantNews {
  readonly #clock: Clock;
  readonly #tell: (infos: ParticipantInfo[]) => void;
  /** By sid, in the order of their first change. */
  readonly #gathered = new Map<string, ParticipantInfo>();
  #cancel: (() => void) | undefined;

  constructor(clock: Clock, tell: (infos: ParticipantInfo[]) => void) {
    this.#clock = clock;
    this.#tell = tell;
  }

  /** Takes how a participant is now; what was gathered of it before needs no telling any more. */
  take(info: ParticipantInfo): void {
    this.#gathered.set(info.sid, info);
    if (this.#cancel) return;
    this.flush();
    this.#gather();
  }

  /** Tells what was gathered, for what is said next takes it for known. */
  flush(): void {
    if (this.#gathered.size === 0) return;
    const infos = [...this.#gathered.values()];
    this.#gathered.clear();
    this.#tell(infos);
  }

  close(): void {
    this.#cancel?.();
    this.#gathered.clear();
  }

  #gather(): void {
    this.#cancel = this.#clock.after(gatherMs, () => {
      this.#cancel = undefined;
      if (this.#gathered.size === 0) return;
      this.flush();
      this.#gather();
    });
  }
}
