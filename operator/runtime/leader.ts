import { V1MicroTime, type KubeConfig } from '@kubernetes/client-node';
import type { Clock } from '#platform/clock.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { isAlreadyExists, isConflict, isNotFound, pathOf, type KubeObject } from './kube.ts';
import type { RuntimeMetrics } from './metrics.ts';
import { transportOf, type KubeRequest, type KubeTransport } from './transport.ts';

/** Options of {@link LeaderElector}. Durations in milliseconds, with client-go's defaults. */
export interface LeaderElectorOptions {
  kubeConfig: KubeConfig;
  namespace: string;
  /** Name of the Lease. */
  name: string;
  /** Who we are: unique among the replicas, another after a restart. */
  identity: string;
  /** A follower takes over when the record did not change for so long; whole seconds reach the Lease. Default 15,000. */
  leaseDurationMs?: number;
  /** A leader that could not renew for so long gives up. Default 10,000. */
  renewDeadlineMs?: number;
  /** Pause between tries. Default 2,000. */
  retryPeriodMs?: number;
  clock: Clock;
  /** In [0, 1). */
  random: () => number;
  log: Logger;
  metrics?: RuntimeMetrics;
}

export interface LeaderCallbacks {
  onElected: () => void;
  /** The lease is lost: stop at once, another may lead already. Not called by stop(). */
  onLost: () => void;
}

/** Retries are spread by up to this factor, so that followers do not all come at once. */
const jitter = 1.2;
const leases = { group: 'coordination.k8s.io', version: 'v1', plural: 'leases' };

/** A Lease as JSON: times are texts. */
interface Lease extends KubeObject {
  spec?: {
    holderIdentity?: string;
    leaseDurationSeconds?: number;
    acquireTime?: string;
    renewTime?: string;
    leaseTransitions?: number;
  };
}

/**
 * Leader election on a Lease, after client-go's. Only times of this machine's own clock count: what matters is when the
 * record was last seen to change, not what its writer's clock said. It is no fence: two may believe that they lead for
 * a moment, so every write of consequence carries a resourceVersion or an epoch.
 *
 *   follower --(no holder, or unchanged for its duration)--> leader --(not renewed by the deadline, or taken)--> lost
 *
 * The deadline counts from the start of the last good renewal, and lies before the end of the lease: the old leader has
 * let go before a new one can begin.
 */
export class LeaderElector {
  readonly #options: Required<Omit<LeaderElectorOptions, 'metrics'>> & Pick<LeaderElectorOptions, 'metrics'>;
  readonly #transport: KubeTransport;
  #observed: Lease | undefined;
  #observedAt = 0;
  #leading = false;
  #renewedAt = 0;
  #stopped = false;
  #wake: () => void = () => undefined;
  #abortTry: () => void = () => undefined;
  #cancelDeadline: () => void = () => undefined;
  #running: Promise<void> | undefined;

  /** @throws WeirError BadConfiguration when the durations cannot work */
  constructor(options: LeaderElectorOptions) {
    const { leaseDurationMs = 15_000, renewDeadlineMs = 10_000, retryPeriodMs = 2000, identity } = options;
    if (leaseDurationMs <= renewDeadlineMs || renewDeadlineMs <= jitter * retryPeriodMs || retryPeriodMs <= 0) {
      const got = `${leaseDurationMs}, ${renewDeadlineMs} and ${retryPeriodMs} ms`;
      const rule = `lease duration > renew deadline > ${jitter} x retry period > 0`;
      throw new WeirError('BadConfiguration', `leader election with ${got} cannot work; choose ${rule}`);
    }
    if (identity === '') {
      throw new WeirError('BadConfiguration', 'leader election needs an identity; name each replica differently');
    }
    this.#options = { ...options, leaseDurationMs, renewDeadlineMs, retryPeriodMs };
    this.#transport = transportOf(options.kubeConfig, options.metrics);
    options.metrics?.leader.set({ name: options.name }, 0);
    options.metrics?.leaderSlowPath.inc({ name: options.name }, 0);
  }

  /** True while the lease is ours. Also false when this process was held up past the deadline and has yet to see it. */
  get isLeader(): boolean {
    return this.#leading && this.#options.clock.now() - this.#renewedAt < this.#options.renewDeadlineMs;
  }

  /** Identity of the leader, as last seen. */
  get leader(): string | undefined {
    return this.#observed?.spec?.holderIdentity || undefined;
  }

  /** Tries for the lease from now on, and keeps it once it is had. After it was lost it is not tried for again. */
  run(callbacks: LeaderCallbacks): void {
    this.#running ??= this.#run(callbacks);
  }

  /** Stops, and releases the lease if it is ours, so that another need not wait for it to run out. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#wake();
    this.#abortTry();
    this.#cancelDeadline();
    await this.#running;
    if (!this.#leading) return;
    this.#setLeading(false);
    try {
      await this.#release();
    } catch (error) {
      this.#options.log.warn({ reason: messageOf(error) }, 'The lease could not be released; it runs out by itself');
    }
  }

  async #run({ onElected, onLost }: LeaderCallbacks): Promise<void> {
    const { clock, log, identity, retryPeriodMs, renewDeadlineMs, random } = this.#options;
    let lost = false;
    const lose = () => {
      if (lost || this.#stopped) return;
      lost = true;
      this.#setLeading(false);
      this.#cancelDeadline();
      this.#abortTry();
      this.#wake();
      log.error({ identity, leader: this.leader }, 'Lost the lease');
      onLost();
    };
    while (!this.#stopped && !lost) {
      const startedAt = clock.now();
      const held = await this.#try();
      if (this.#stopped || lost) return;
      if (held) {
        this.#renewedAt = startedAt;
        this.#cancelDeadline();
        this.#cancelDeadline = clock.after(startedAt + renewDeadlineMs - clock.now(), lose);
        if (!this.#leading) {
          this.#setLeading(true);
          log.info({ identity }, 'Leading');
          onElected();
        }
      } else if (this.#leading && this.#isHeldByAnother()) return lose();
      // A leader renews on time; followers come at different times.
      await this.#sleep(this.#leading ? retryPeriodMs : retryPeriodMs * (1 + random() * (jitter - 1)));
    }
  }

  /** Takes or renews the lease; false when another holds it or the API did not let us in half the deadline. */
  async #try(): Promise<boolean> {
    const { clock, log, renewDeadlineMs } = this.#options;
    const abort = new AbortController();
    this.#abortTry = () => abort.abort();
    // Half: a connection that went dead costs one try and not the lease.
    const cancel = clock.after(renewDeadlineMs / 2, this.#abortTry);
    try {
      return await this.#acquireOrRenew(abort.signal);
    } catch (error) {
      if (this.#stopped) return false;
      const reason = messageOf(error);
      if (isConflict(error) || isAlreadyExists(error)) log.debug({ reason }, 'Another was quicker to take the lease');
      else log.warn({ reason }, 'The lease could not be taken or renewed, trying again');
      return false;
    } finally {
      cancel();
    }
  }

  async #acquireOrRenew(signal: AbortSignal): Promise<boolean> {
    const { name, identity, clock, metrics } = this.#options;
    if (this.#leading && this.#observed?.spec?.holderIdentity === identity) {
      try {
        this.#observe(await this.#replace(this.#observed, this.#spec(this.#observed), signal));
        return true;
      } catch (error) {
        if (!isConflict(error) && !isNotFound(error)) throw error;
        metrics?.leaderSlowPath.inc({ name });
      }
    }
    const lease = await this.#get(signal);
    if (!lease) {
      this.#observe(await this.#create(signal));
      return true;
    }
    this.#observe(lease);
    const durationMs = (lease.spec?.leaseDurationSeconds ?? 0) * 1000;
    if (this.#isHeldByAnother() && clock.now() < this.#observedAt + durationMs) return false;
    this.#observe(await this.#replace(lease, this.#spec(lease), signal));
    return true;
  }

  async #release(): Promise<void> {
    const abort = new AbortController();
    const cancel = this.#options.clock.after(this.#options.renewDeadlineMs, () => abort.abort());
    try {
      for (let attempt = 1; ; attempt++) {
        const lease = await this.#get(abort.signal);
        if (lease?.spec?.holderIdentity !== this.#options.identity) return;
        const released = { ...lease.spec, holderIdentity: '', leaseDurationSeconds: 1, renewTime: this.#microTime() };
        try {
          this.#observe(await this.#replace(lease, released, abort.signal));
          return;
        } catch (error) {
          if (!isConflict(error) || attempt === 3) throw error;
        }
      }
    } finally {
      cancel();
    }
  }

  #spec(before: Lease | undefined): Lease['spec'] {
    const { identity, leaseDurationMs } = this.#options;
    const now = this.#microTime();
    const mine = before?.spec?.holderIdentity === identity;
    return {
      holderIdentity: identity,
      leaseDurationSeconds: Math.max(1, Math.ceil(leaseDurationMs / 1000)),
      acquireTime: mine ? before.spec?.acquireTime : now,
      renewTime: now,
      leaseTransitions: (before?.spec?.leaseTransitions ?? 0) + (before && !mine ? 1 : 0),
    };
  }

  /** The API takes exactly six digits; Date gives three and is refused. */
  #microTime(): string {
    return new V1MicroTime(this.#options.clock.now()).toISOString();
  }

  async #get(signal: AbortSignal): Promise<Lease | undefined> {
    try {
      return await this.#call('GET', this.#options.name, undefined, signal);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  #create(signal: AbortSignal): Promise<Lease> {
    const { name, namespace } = this.#options;
    const kind = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' };
    return this.#call(
      'POST',
      undefined,
      { ...kind, metadata: { name, namespace }, spec: this.#spec(undefined) },
      signal,
    );
  }

  #replace(lease: Lease, spec: Lease['spec'], signal: AbortSignal): Promise<Lease> {
    return this.#call('PUT', this.#options.name, { ...lease, spec }, signal);
  }

  #call(method: KubeRequest['method'], name: string | undefined, body: unknown, signal: AbortSignal): Promise<Lease> {
    const path = pathOf(leases, this.#options.namespace, name);
    return this.#transport.request<Lease>({ method, path, body, signal });
  }

  #observe(lease: Lease): void {
    if (JSON.stringify(lease.spec) !== JSON.stringify(this.#observed?.spec)) {
      this.#observedAt = this.#options.clock.now();
    }
    const { identity, log } = this.#options;
    const before = this.leader;
    this.#observed = lease;
    if (this.leader !== before && this.leader !== identity) log.info({ leader: this.leader ?? null }, 'Leader changed');
  }

  #isHeldByAnother(): boolean {
    return this.leader !== undefined && this.leader !== this.#options.identity;
  }

  #setLeading(leading: boolean): void {
    this.#leading = leading;
    this.#options.metrics?.leader.set({ name: this.#options.name }, leading ? 1 : 0);
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#options.clock.after(ms, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
      if (this.#stopped) this.#wake();
    });
  }
}
