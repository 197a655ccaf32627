import { V1MicroTime, type EventsV1Event, type KubeConfig, type V1ObjectMeta } from '@kubernetes/client-node';
import type { Clock } from '#platform/clock.ts';
import { messageOf } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { isNotFound, ResourceClient, type KubeObject } from './kube.ts';

export interface EventRecorderOptions {
  kubeConfig: KubeConfig;
  /** Name of the controller, such as weir.dev/operator. */
  component: string;
  /** Who we are: the replica's identity. */
  instance: string;
  clock: Clock;
  log: Logger;
}

type EventObject = KubeObject & Partial<Omit<EventsV1Event, 'metadata'>>;

interface Series {
  event: EventObject;
  count: number;
  lastAt: number;
}

/** The same event within this time is a repetition of the first, milliseconds. */
const seriesMs = 6 * 60_000;
/** Events written in one second at most, over all objects; more are dropped, as they only tell people. */
const maxPerSecond = 50;
const maxSeries = 4096;

/** Writes Events that `kubectl describe` shows. Never throws and is never waited for: an Event is not worth a delay. */
export class EventRecorder {
  readonly #options: EventRecorderOptions;
  readonly #client: ResourceClient<EventObject>;
  readonly #series = new Map<string, Series>();
  #budget = maxPerSecond;
  #budgetAt = 0;

  constructor(options: EventRecorderOptions) {
    this.#options = options;
    this.#client = new ResourceClient<EventObject>({
      group: 'events.k8s.io',
      version: 'v1',
      plural: 'events',
      kubeConfig: options.kubeConfig,
    });
  }

  /** Records that something happened to an object. `reason` is CamelCase; `action` says what was being done. */
  event(
    object: { apiVersion: string; kind: string; metadata: V1ObjectMeta },
    type: 'Normal' | 'Warning',
    reason: string,
    message: string,
    action = 'Reconcile',
  ): void {
    const key = [object.kind, object.metadata.uid, type, reason, message, action].join('\0');
    this.#record(key, object, type, reason, message, action).catch((error: unknown) => {
      this.#options.log.debug({ reason: messageOf(error), event: reason }, 'An Event could not be written');
    });
  }

  async #record(
    key: string,
    object: { apiVersion: string; kind: string; metadata: V1ObjectMeta },
    type: string,
    reason: string,
    message: string,
    action: string,
  ): Promise<void> {
    const { clock, component, instance } = this.#options;
    const now = clock.now();
    if (!this.#withinBudget(now)) return;
    const known = this.#series.get(key);
    if (known && now - known.lastAt < seriesMs) {
      known.count += 1;
      known.lastAt = now;
      const series = { count: known.count, lastObservedTime: new V1MicroTime(now) };
      const { name = '', namespace } = known.event.metadata;
      try {
        await this.#client.patchMerge(name, namespace, { series });
        return;
      } catch (error) {
        // It was garbage collected: begin a new one.
        if (!isNotFound(error)) throw error;
      }
    }
    const { name = '', namespace = 'default', uid, resourceVersion } = object.metadata;
    const event: EventObject = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name: `${name}.${now.toString(16)}${Math.abs(hash(key)).toString(16)}`, namespace },
      eventTime: new V1MicroTime(now),
      reportingController: component,
      reportingInstance: instance,
      action,
      reason,
      regarding: { apiVersion: object.apiVersion, kind: object.kind, name, namespace, uid, resourceVersion },
      // The API takes 1024 bytes.
      note: message.slice(0, 1000),
      type,
    };
    this.#series.set(key, { event, count: 1, lastAt: now });
    const [oldest] = this.#series.keys();
    if (this.#series.size > maxSeries && oldest !== undefined) this.#series.delete(oldest);
    await this.#client.create(event);
  }

  #withinBudget(now: number): boolean {
    if (now - this.#budgetAt >= 1000) {
      this.#budgetAt = now;
      this.#budget = maxPerSecond;
    }
    this.#budget -= 1;
    return this.#budget >= 0;
  }
}

/** A small number from a text (FNV-1a), to tell events of one millisecond apart. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  return value;
}
