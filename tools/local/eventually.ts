import { setTimeout as delay } from 'node:timers/promises';
import { WeirError, messageOf } from '#platform/errors.ts';

/** Options of {@link eventually}. */
export interface EventuallyOptions {
  /** Default 10000. */
  timeoutMs?: number;
  /** Pause between tries. Default 50. */
  intervalMs?: number;
  /** Said when it never came true. */
  what?: string;
}

/**
 * Tries until `attempt` returns something other than undefined, null or false, and returns that. A thrown error counts
 * as "not yet".
 *
 * @throws WeirError Timeout with the last error, after `timeoutMs`.
 */
export async function eventually<T>(
  attempt: () => Promise<T | undefined | null | false> | T | undefined | null | false,
  options: EventuallyOptions = {},
): Promise<T> {
  const timeoutMs = options.timeoutMs ?? 10_000;
  const deadline = Date.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await attempt();
      if (value !== undefined && value !== null && value !== false) return value;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) {
      const reason = last === undefined ? '' : `: ${messageOf(last)}`;
      throw new WeirError(
        'Timeout',
        `${options.what ?? 'the state waited for'} did not come in ${timeoutMs} ms${reason}`,
        {
          cause: last,
        },
      );
    }
    await delay(options.intervalMs ?? 50);
  }
}
