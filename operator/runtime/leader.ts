import { V1MicroTime, type KubeConfig, type V1Lease } from '@kubernetes/client-node';
import type { Clock } from '#platform/clock.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { isAlreadyExists, isConflict, isNotFound, ResourceClient, type KubeObject } from './kube.ts';
import type { RuntimeMetrics } from './metrics.ts';

/** Options of {@link LeaderElector}. Durations in milliseconds, with client-go's defaults. */
export interface LeaderElectorOptions {
  kubeConfig: KubeConfig;
  namespace: string;
  /** Name of the Lease. */
  name: string;
  /** Who we are: unique among the replicas, another after a restart. */
  identity: string;
  /** A follower takes over when the record did not change for so long. Default 15,000. */
  leaseDurationMs?: number;
  /** A leader that could not renew for so long gives up. Default 10,000. */
  renewDeadlineMs?: number;
  /** Pause between tries. Default 2,000. */
  retryPeriodMs?: number;
  clock: Clock;
  random: () => number;
  log: Logger;
  metrics?: RuntimeMetrics;
}

export interface LeaderCallbacks {
  onElected: () => void;
  /** The lease is lost: stop at once, another may lead already. */
  onLost: () => void;
}

/** Retries are spread by up to this factor, so that followers do not all come at once. */
const jitter = 1.2;

type Lease = KubeObject & { spec?: V1Lease['spec'] };

/**
 * Leader election on a Lease, after client-go's. Only times of this machine's own clock count: what matters is when the
 * record was last seen to change, not what its writer's clock said. It is no fence: two may believe that they lead for
 * a moment, so every write of consequence carries a resourceVersion or an epoch.
 */
export class LeaderElector {
  readonly #options: Required<Omit<LeaderElectorOptions, 'metrics'>> & Pick<LeaderElectorOptions, 'metrics'>;
  readonly #client: ResourceClient<Lease>;
  #observed: Lease | undefined;
  #observedAt = 0;
  #leading = false;
  #renewedAt = 0;
  #stopped = false;
  #wake: () => void = () => undefined;
  #running: Promise<void> | undefined;

  /** @throws WeirError BadConfiguration when the durations cannot work */
  constructor(options: LeaderElectorOptions) {
    const { leaseDurationMs = 15_000, renewDeadlineMs = 10_000, retryPeriodMs = 2000 } = options;
    if (leaseDurationMs <= renewDeadlineMs || renewDeadlineMs <= jitter * retryPeriodMs) {
      throw new WeirError(
        'BadConfiguration',
        `Leader election needs lease duration (${leaseDurationMs} ms) > renew deadline (${renewDeadlineMs} ms) > ${jitter} x retry period (${retryPeriodMs} ms).`,
      );
    }
    this.#options = { ...options, leaseDurationMs, renewDeadlineMs, retryPeriodMs };
    this.#client = new ResourceClient<Lease>({
      group: 'coordination.k8s.io',
      version: 'v1',
      plural: 'leases',
      kubeConfig: options.kubeConfig,
      metrics: options.metrics,
    });
    options.metrics?.leader.set({ name: options.name }, 0);
  }

  get isLeader(): boolean {
    return this.#leading;
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
    this.#stopped = true;
    this.#wake();
    await this.#running;
    if (!this.#leading) return;
    this.#setLeading(false);
    await this.#release().catch((error: unknown) =>
      this.#options.log.warn({ reason: messageOf(error) }, 'The lease could not be released; it runs out by itself'),
    );
  }

  async #run({ onElected, onLost }: LeaderCallbacks): Promise<void> {
    const { clock, log, identity, retryPeriodMs, renewDeadlineMs, random } = this.#options;
    while (!this.#stopped) {
      const held = await this.#tryOnce();
      if (this.#stopped) return;
      if (held) {
        this.#renewedAt = clock.now();
        if (!this.#leading) {
          this.#setLeading(true);
          log.info({ identity }, 'Leading');
          onElected();
        }
      } else if (this.#leading && (clock.now() - this.#renewedAt > renewDeadlineMs || this.#isHeldByAnother())) {
        this.#setLeading(false);
        log.error({ identity, leader: this.leader }, 'Lost the lease');
        onLost();
        return;
      }
      // A leader renews on time; followers come at different times.
      await this.#sleep(this.#leading ? retryPeriodMs : retryPeriodMs * (1 + random() * (jitter - 1)));
    }
  }

  /** Takes or renews the lease; false when another holds it or the API did not let us. */
  async #tryOnce(): Promise<boolean> {
    const { namespace, name, clock, log } = this.#options;
    const timeout = new Promise<never>((_, reject) => {
      clock.after(this.#options.renewDeadlineMs / 2, () =>
        reject(new WeirError('ApiUnreachable', 'no answer in time')),
      );
    });
    // Handled below when it loses the race as well.
    timeout.catch(() => undefined);
    try {
      return await Promise.race([this.#acquireOrRenew(namespace, name), timeout]);
    } catch (error) {
      if (!isConflict(error))
        log.warn({ reason: messageOf(error) }, 'The lease could not be taken or renewed; trying again');
      return false;
    }
  }

  async #acquireOrRenew(namespace: string, name: string): Promise<boolean> {
    const { identity, clock, leaseDurationMs } = this.#options;
    let lease: Lease;
    try {
      lease = await this.#client.get(name, namespace);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      try {
        this.#observe(
          await this.#client.create({
            apiVersion: 'coordination.k8s.io/v1',
            kind: 'Lease',
            metadata: { name, namespace },
            spec: this.#spec(undefined),
          }),
        );
        return true;
      } catch (other) {
        if (isAlreadyExists(other)) return false;
        throw other;
      }
    }
    this.#observe(lease);
    const holder = lease.spec?.holderIdentity ?? '';
    const durationMs = Math.min(leaseDurationMs, (lease.spec?.leaseDurationSeconds ?? Infinity) * 1000);
    if (holder !== '' && holder !== identity && clock.now() < this.#observedAt + durationMs) return false;
    this.#observe(await this.#client.replace({ ...lease, spec: this.#spec(lease) }));
    return true;
  }

  #spec(before: Lease | undefined): V1Lease['spec'] {
    const { identity, clock, leaseDurationMs } = this.#options;
    const now = new V1MicroTime(clock.now());
    const mine = before?.spec?.holderIdentity === identity;
    return {
      holderIdentity: identity,
      leaseDurationSeconds: Math.max(1, Math.ceil(leaseDurationMs / 1000)),
      acquireTime: mine ? before?.spec?.acquireTime : now,
      renewTime: now,
      leaseTransitions: (before?.spec?.leaseTransitions ?? 0) + (before && !mine ? 1 : 0),
    };
  }

  async #release(): Promise<void> {
    const { namespace, name, identity, clock } = this.#options;
    for (let attempt = 0; attempt < 3; attempt += 1) {
      const lease = await this.#client.get(name, namespace);
      if (lease.spec?.holderIdentity !== identity) return;
      try {
        const spec = {
          ...lease.spec,
          holderIdentity: '',
          leaseDurationSeconds: 1,
          renewTime: new V1MicroTime(clock.now()),
        };
        await this.#client.replace({ ...lease, spec });
        return;
      } catch (error) {
        if (!isConflict(error)) throw error;
      }
    }
  }

  #observe(lease: Lease): void {
    const changed = JSON.stringify(lease.spec) !== JSON.stringify(this.#observed?.spec);
    if (changed) this.#observedAt = this.#options.clock.now();
    this.#observed = lease;
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
