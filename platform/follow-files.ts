import { unwatchFile, watchFile } from 'node:fs';

export interface FollowOptions<T> {
  files: readonly string[];
  /** Files are looked at this often, milliseconds. They are polled: a Secret's volume swaps symbolic links, which watchers miss. */
  intervalMs: number;
  load: () => Promise<T>;
  /** There is something new. */
  taken: (value: T) => void;
  /** What changed cannot be used: what was before stays. */
  wrong: (error: unknown) => void;
}

/**
 * Loads files again whenever one of them changes; does not keep the process alive.
 * @returns what ends it
 */
export function followFiles<T>({ files, intervalMs, load, taken, wrong }: FollowOptions<T>): () => void {
  let ended = false;
  const look = () => {
    load().then(
      (value) => ended || taken(value),
      (error: unknown) => ended || wrong(error),
    );
  };
  for (const file of files) watchFile(file, { interval: intervalMs, persistent: false }, look);
  return () => {
    ended = true;
    for (const file of files) unwatchFile(file, look);
  };
}
