import { V1MicroTime, type KubeConfig, type V1ObjectMeta } from '@kubernetes/client-node';
import type { Clock } from '#platform/clock.ts';
import { messageOf } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { isNotFound, ResourceClient, type KubeObject } from './kube.ts';

/** Options of {@link EventRecorder}. */
export interface EventRecorderOptions {
  kubeConfig: KubeConfig;
  /** Name of the controller, such as weir.dev/operator. */
  component: string;
  /** Who we are: the replica's identity. */
  instance: string;
  clock: Clock;
  log: Logger;
}

/** What an Event is about. */
export interface EventSubject {
  apiVersion?: string;
  kind?: string;
  metadata: V1ObjectMeta;
}

/** events.k8s.io/v1 as JSON: times are texts. */
interface EventObject extends KubeObject {
  eventTime?: string;
  reportingController?: string;
  reportingInstance?: string;
  action?: string;
  reason?: string;
  regarding?: object;
  note?: string;
  type?: string;
  series?: { count: number; lastObservedTime: string };
}

interface Series {
  key: string;
  event: EventObject;
  count: number;
  lastAt: number;
  /** How many of `count` the API server knows; 0 until the event is created. */
  written: number;
  tries: number;
  waiting: boolean;
}

/** The same event within this time is a repetition of the first, milliseconds. */
const seriesMs = 6 * 60_000;
/** Repetitions are gathered for so long before they are written, milliseconds. */
const gatherMs = 10_000;
/** Events an object may have at once, and the time in which it earns one more, after client-go's spam filter. */
const perObject = { burst: 25, refillMs: 300_000 };
/**
 * Writes at once, then one every so many milliseconds: in a burst of rooms the status writes matter, and the Events may
 * come after them.
 */
const writes = { burst: 20, everyMs: 40 };
const maxTries = 3;
const maxWaiting = 5000;
const maxSeries = 10_000;

/** Tokens that refill with time. */
interface Bucket {
  tokens: number;
  at: number;
}

/**
 * Writes Events that `kubectl describe` shows. Never throws and is never waited for: an Event is not worth a delay.
 * Repetitions become a series of one Event; what is too much is dropped.
 */
export class EventRecorder {
  readonly #options: EventRecorderOptions;
  readonly #client: ResourceClient<EventObject>;
  readonly #series = new Map<string, Series>();
  readonly #objects = new Map<string, Bucket>();
  readonly #waiting: Series[] = [];
  #bucket: Bucket;
  #sending: Promise<void> | undefined;
  #sequence = 0;

  constructor(options: EventRecorderOptions) {
    this.#options = options;
    this.#bucket = { tokens: writes.burst, at: options.clock.now() };
    this.#client = new ResourceClient<EventObject>({
      group: 'events.k8s.io',
      version: 'v1',
      plural: 'events',
      kubeConfig: options.kubeConfig,
    });
  }

  /** Records that something happened to an object. `reason` is CamelCase; `action` says what was being done. */
  event(object: EventSubject, type: 'Normal' | 'Warning', reason: string, message: string, action = 'Reconcile'): void {
    const { clock } = this.#options;
    const now = clock.now();
    const subject = `${object.kind}/${object.metadata.uid ?? object.metadata.name}`;
    const key = [subject, type, reason, message, action].join('\0');
    const known = this.#series.get(key);
    if (known && now - known.lastAt < seriesMs) {
      known.count += 1;
      known.lastAt = now;
      if (known.waiting) return;
      known.waiting = true;
      clock.after(gatherMs, () => this.#enqueue(known));
      return;
    }
    if (!this.#mayAdd(subject, now)) return;
    const event = this.#newEvent(object, type, reason, message, action, now);
    const series = { key, event, count: 1, lastAt: now, written: 0, tries: 0, waiting: true };
    // Set anew, so that the map's order is the order of age.
    this.#series.delete(key);
    this.#series.set(key, series);
    if (this.#series.size > maxSeries) dropOldest(this.#series);
    this.#enqueue(series);
  }

  /** Resolves when everything that is due was written or given up. */
  async flush(): Promise<void> {
    while (this.#sending) await this.#sending;
  }

  #enqueue(series: Series): void {
    if (this.#waiting.length >= maxWaiting) {
      series.waiting = false;
      return;
    }
    this.#waiting.push(series);
    this.#sending ??= this.#send();
  }

  async #send(): Promise<void> {
    const { clock, log } = this.#options;
    await Promise.resolve();
    for (let series = this.#waiting.shift(); series; series = this.#waiting.shift()) {
      const waitMs = takeToken(this.#bucket, clock.now(), writes.burst, writes.everyMs);
      if (waitMs > 0) await new Promise<void>((resolve) => clock.after(waitMs, resolve));
      series.waiting = false;
      try {
        await this.#write(series);
        series.tries = 0;
      } catch (error) {
        series.tries += 1;
        log.debug({ reason: messageOf(error), event: series.event.reason }, 'An Event could not be written');
        if (series.tries >= maxTries) continue;
        const again = series;
        again.waiting = true;
        clock.after(gatherMs, () => this.#enqueue(again));
      }
    }
    this.#sending = undefined;
  }

  async #write(series: Series): Promise<void> {
    const { event, count } = series;
    const { name = '', namespace } = event.metadata;
    const repeated = count > 1 ? { count, lastObservedTime: microTime(series.lastAt) } : undefined;
    if (series.written > 0) {
      try {
        await this.#client.patchMerge(name, namespace, { series: repeated });
        series.written = count;
        return;
      } catch (error) {
        // The API server forgets Events after an hour: write it again.
        if (!isNotFound(error)) throw error;
      }
    }
    await this.#client.create(repeated ? { ...event, series: repeated } : event);
    series.written = count;
  }

  #newEvent(
    object: EventSubject,
    type: string,
    reason: string,
    message: string,
    action: string,
    now: number,
  ): EventObject {
    const { apiVersion, kind } = object;
    const { name = '', namespace, uid, resourceVersion } = object.metadata;
    const suffix = `.${now.toString(16)}${(this.#sequence++ % 0x1000).toString(16).padStart(3, '0')}`;
    return {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      // Events about what has no namespace live in `default`.
      metadata: { name: name.slice(0, 253 - suffix.length) + suffix, namespace: namespace ?? 'default' },
      eventTime: microTime(now),
      reportingController: this.#options.component,
      reportingInstance: this.#options.instance.slice(0, 128),
      action: action.slice(0, 128),
      reason: reason.slice(0, 128),
      regarding: { apiVersion, kind, name, namespace, uid, resourceVersion },
      note: cutBytes(message, 1024),
      type,
    };
  }

  /** Whether an object may have one more event now. */
  #mayAdd(subject: string, now: number): boolean {
    const bucket = this.#objects.get(subject) ?? { tokens: perObject.burst, at: now };
    this.#objects.delete(subject);
    this.#objects.set(subject, bucket);
    if (this.#objects.size > maxSeries) dropOldest(this.#objects);
    refill(bucket, now, perObject.burst, perObject.refillMs);
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }
}

function refill(bucket: Bucket, now: number, burst: number, everyMs: number): void {
  bucket.tokens = Math.min(burst, bucket.tokens + (now - bucket.at) / everyMs);
  bucket.at = now;
}

/** Takes a token, in debt if need be, and says for how long to wait for it, in milliseconds. */
function takeToken(bucket: Bucket, now: number, burst: number, everyMs: number): number {
  refill(bucket, now, burst, everyMs);
  bucket.tokens -= 1;
  return bucket.tokens >= 0 ? 0 : Math.ceil(-bucket.tokens * everyMs);
}

function dropOldest(map: Map<string, unknown>): void {
  const oldest = map.keys().next();
  if (!oldest.done) map.delete(oldest.value);
}

/** The API takes exactly six digits. */
function microTime(ms: number): string {
  return new V1MicroTime(ms).toISOString();
}

/** The start of a text, in at most `limit` bytes of UTF-8. */
function cutBytes(text: string, limit: number): string {
  if (Buffer.byteLength(text) <= limit) return text;
  return Buffer.from(text)
    .subarray(0, limit)
    .toString('utf8')
    .replace(/\uFFFD+$/, '');
}
