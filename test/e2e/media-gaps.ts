/** What came of one source since measuring began. */
export interface MediaReceived {
  frames: number;
  /** Milliseconds of the longest time without a frame. */
  longestGapMs: number;
}

/**
 * Measures how long media does not come at a receiver, by its source: the longest time between two frames, over however
 * many tracks, transports and nodes they come. Runs in pages too. Times are in milliseconds of any clock that does not
 * jump.
 */
export class MediaGaps {
  readonly #sources = new Map<string, MediaReceived & { last: number }>();

  /** A frame of `source` came. */
  frame(source: string, now: number): void {
    const seen = this.#sources.get(source) ?? { frames: 0, longestGapMs: 0, last: now };
    seen.frames += 1;
    seen.longestGapMs = Math.max(seen.longestGapMs, now - seen.last);
    seen.last = now;
    this.#sources.set(source, seen);
  }

  /** Measures anew from now on, sources that are known as well as those that come. */
  restart(now: number): void {
    for (const seen of this.#sources.values()) Object.assign(seen, { frames: 0, longestGapMs: 0, last: now });
  }

  /** What came since the restart; a gap that lasts counts up to now. */
  report(now: number): Record<string, MediaReceived> {
    return Object.fromEntries(
      [...this.#sources].map(([source, { frames, longestGapMs, last }]) => [
        source,
        { frames, longestGapMs: Math.max(longestGapMs, now - last) },
      ]),
    );
  }
}
