import type { Clock } from '#platform/clock.ts';
import { codeOf, messageOf } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { isConflict } from './kube.ts';
import type { RuntimeMetrics } from './metrics.ts';
import type { WorkQueue } from './workqueue.ts';

/** An error that trying again cannot cure; the key is left alone until its object changes. */
export class TerminalError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'TerminalError';
  }
}

/** Wish of a reconciliation to be called again. */
export interface ReconcileResult {
  requeueAfterMs: number;
}

/** Options of {@link Controller}. */
export interface ControllerOptions {
  name: string;
  queue: WorkQueue;
  /**
   * Brings the world one step closer to what the object under `key` asks for. Level-based: it gets no event, only the
   * key, and looks at the state as it is. Nothing returned: done until something changes. `requeueAfterMs`: called
   * again then. Thrown: called again after the key's backoff, except for {@link TerminalError}.
   */
  reconcile: (key: string) => Promise<void | ReconcileResult>;
  /** How many keys are worked on at once. */
  workers: number;
  log: Logger;
  metrics?: RuntimeMetrics;
  clock: Clock;
}

/** Workers that take keys off a queue and reconcile them. */
export class Controller {
  readonly #options: ControllerOptions;
  #running: Promise<void>[] = [];

  constructor(options: ControllerOptions) {
    this.#options = options;
    options.metrics?.initController(options.name, options.workers);
  }

  start(): void {
    if (this.#running.length > 0) return;
    const { name, workers, log } = this.#options;
    log.info({ controller: name, workers }, 'Starting workers');
    this.#running = Array.from({ length: workers }, () => this.#work());
  }

  /** Shuts the queue down and waits for the reconciliations under way. */
  async stop(): Promise<void> {
    this.#options.queue.shutDown();
    await Promise.all(this.#running);
  }

  async #work(): Promise<void> {
    const { queue } = this.#options;
    for (let key = await queue.get(); key !== undefined; key = await queue.get()) {
      try {
        await this.#reconcile(key);
      } finally {
        queue.done(key);
      }
    }
  }

  async #reconcile(key: string): Promise<void> {
    const { name: controller, queue, metrics, clock } = this.#options;
    const start = clock.now();
    metrics?.activeWorkers.inc({ controller });
    try {
      const result = await this.#options.reconcile(key);
      queue.forget(key);
      if (result) queue.addAfter(key, result.requeueAfterMs);
      metrics?.reconcileTotal.inc({ controller, result: result ? 'requeue_after' : 'success' });
    } catch (error) {
      this.#failed(key, error);
    } finally {
      metrics?.activeWorkers.dec({ controller });
      metrics?.reconcileSeconds.observe({ controller }, (clock.now() - start) / 1000);
    }
  }

  #failed(key: string, error: unknown): void {
    const { name: controller, queue, log, metrics } = this.#options;
    const reason = codeOf(error);
    // What has a code is foreseen, and where it was thrown tells nothing more.
    const fields = { controller, key, reason, ...(reason === 'Internal' ? { err: error } : {}) };
    if (isConflict(error)) {
      // Somebody else wrote first, which is the ordinary course of things: look again.
      log.debug(fields, 'Reconciling again: the object changed meanwhile');
      metrics?.reconcileTotal.inc({ controller, result: 'requeue' });
      return queue.addRateLimited(key);
    }
    metrics?.reconcileTotal.inc({ controller, result: 'error' });
    metrics?.reconcileErrors.inc({ controller });
    if (error instanceof TerminalError) {
      metrics?.terminalErrors.inc({ controller });
      queue.forget(key);
      log.error(fields, `Failed to reconcile and not trying again: ${messageOf(error)}`);
      return;
    }
    queue.addRateLimited(key);
    const retries = queue.retries(key);
    // What goes on failing is told of again with the eighth try, which by then is seconds later, not with each.
    const level = retries % 8 !== 1 ? 'debug' : reason === 'Internal' ? 'error' : 'warn';
    log[level]({ ...fields, retries }, `Failed to reconcile, trying again: ${messageOf(error)}`);
  }
}
