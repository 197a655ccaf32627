/** What a probe asks: `live`, restart me if not; `ready`, count on me. */
export type CheckKind = 'live' | 'ready';

/** What is wrong, in words; undefined when nothing is. */
export type Check = () => string | undefined;

/** Outcome of all checks of a kind. */
export interface HealthReport {
  ok: boolean;
  checks: { name: string; problem: string | undefined }[];
}

/**
 * Checks behind /healthz and /readyz. A check only reads what is known already: it makes no call, so that a probe never
 * waits. That the event loop turns is proven by the answer itself.
 */
export class Health {
  readonly #checks: { kind: CheckKind; name: string; check: Check }[] = [];

  /** Adds a check; the returned function takes it away. */
  addCheck(kind: CheckKind, name: string, check: Check): () => void {
    const entry = { kind, name, check };
    this.#checks.push(entry);
    return () => {
      const at = this.#checks.indexOf(entry);
      if (at >= 0) this.#checks.splice(at, 1);
    };
  }

  /** What is wrong with the process, one line a failing check; undefined when nothing is. For platform/http.ts. */
  readonly live = (): string | undefined => this.#problems('live');
  /** As {@link live}, for readiness. */
  readonly ready = (): string | undefined => this.#problems('ready');

  #problems(kind: CheckKind): string | undefined {
    const failing = this.report(kind).checks.filter(({ problem }) => problem !== undefined);
    return failing.length === 0 ? undefined : failing.map(({ name, problem }) => `${name}: ${problem}`).join('\n');
  }

  report(kind: CheckKind): HealthReport {
    const checks = this.#checks
      .filter((entry) => entry.kind === kind)
      .map(({ name, check }) => {
        try {
          return { name, problem: check() };
        } catch (error) {
          return { name, problem: `the check failed: ${String(error)}` };
        }
      });
    return { ok: checks.every(({ problem }) => problem === undefined), checks };
  }
}
