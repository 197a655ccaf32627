import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '#platform/errors.ts';
import type { Fleet } from '#tools/local/fleet.ts';
import type { LocalProcess } from '#tools/local/process.ts';

/** How long a process that died stays away, milliseconds: the pause of a kubelet after a first crash. */
const restartAfterMs = 10_000;

/**
 * Starts again what dies, after a while, as a cluster would.
 *
 * @param changed called after every restart.
 * @returns a function that stops the supervision.
 */
export function supervise(
  fleet: Fleet,
  say: (text: string) => void,
  changed: () => Promise<void>,
): () => Promise<void> {
  const ended = new AbortController();
  const watch = async (name: string, current: () => LocalProcess, restart: () => Promise<void>) => {
    while (!ended.signal.aborted) {
      const exit = await current().exited;
      if (ended.signal.aborted) return;
      say(
        `${name} ended ${exit.signal ? `by ${exit.signal}` : `with code ${exit.code ?? 'unknown'}`}; it starts again in ${restartAfterMs / 1000} s`,
      );
      await changed().catch(() => undefined);
      await delay(restartAfterMs, undefined, { signal: ended.signal }).catch(() => undefined);
      if (ended.signal.aborted) return;
      try {
        await restart();
        await changed();
        say(`${name} is back (process ${current().pid})`);
      } catch (error) {
        say(`${name} did not start: ${messageOf(error)}`);
      }
    }
  };
  for (const node of fleet.nodes)
    void watch(
      node.name,
      () => node.process,
      () => fleet.restart(node),
    );
  for (const operator of fleet.operators)
    void watch(
      operator.id,
      () => operator.process,
      () => fleet.restart(operator),
    );
  void watch(
    'nats-server',
    () => fleet.nats.process,
    () => fleet.nats.restart(),
  );
  const { plane } = fleet;
  if (plane)
    void watch(
      'kube-apiserver',
      () => plane.apiserver.process,
      () => plane.restartApiServer(),
    );
  return () => {
    ended.abort();
    return Promise.resolve();
  };
}
