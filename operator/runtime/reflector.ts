import type { KubeConfig } from '@kubernetes/client-node';
import type { Clock } from '#platform/clock.ts';
import { codeOf, messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import {
  isGone,
  KubeApiError,
  keyOf,
  pathOf,
  queryOf,
  ResourceClient,
  type KubeObject,
  type Resource,
} from './kube.ts';
import type { RuntimeMetrics } from './metrics.ts';
import { transportOf } from './transport.ts';

/** Called with what is and what was; `current` is undefined when the object is gone, `previous` when it is new. */
export type ChangeListener<T> = (key: string, current: T | undefined, previous: T | undefined) => void;

/** Options of {@link Reflector}. */
export interface ReflectorOptions extends Resource {
  kubeConfig: KubeConfig;
  /** One namespace; all when it is not given. */
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
  clock: Clock;
  /** In [0, 1). */
  random: () => number;
  log: Logger;
  metrics?: RuntimeMetrics;
  /** A watch that brings nothing, not even a bookmark (the API server sends one a minute), is dead. Default 90,000. */
  stallTimeoutMs?: number;
  /** Everything is listed anew this often, whatever the watch says. Default 600,000. */
  relistIntervalMs?: number;
}

interface WatchEvent<T> {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  object: T & { code?: number; message?: string; reason?: string };
}

/** Length of one watch in seconds, drawn from [300, 600), as client-go does: so that watches do not all end together. */
const watchSeconds = { min: 300, spread: 300 };
/** Pause before trying again: 800 ms doubling to 30 s, up to twice as long by chance, reset after 2 good minutes. */
const backoff = { initialMs: 800, maxMs: 30_000, resetMs: 120_000 };
/** Time for the API server to begin its answer to a watch. */
const connectMs = 30_000;
/** A watch that ends sooner and brought nothing has failed; a second 410 sooner than `expiredMs` after a list as well. */
const shortWatchMs = 1000;
const expiredMs = 10_000;
const pageSize = 500;

/**
 * A local copy of one resource, kept by list and watch, after client-go's. Watches are not trusted: one that is silent
 * for too long is started again, and everything is listed anew from time to time, so that a missed event is a matter of
 * time only.
 *
 *   list --> watch --(ended, cut, stalled)--> watch from the last resource version
 *    ^         |
 *    +---------+ 410 Gone, or time to relist
 *
 * The watch is read from a plain HTTP answer: client-node's own ends whatever is silent for 30 s, asks for no bookmarks,
 * and its informer stops for good on most errors.
 *
 * Objects handed out are shared and frozen. No object is ever replaced by an older version of itself.
 */
export class Reflector<T extends KubeObject> {
  readonly #options: ReflectorOptions;
  readonly #name: string;
  readonly #client: ResourceClient<T>;
  readonly #objects = new Map<string, T>();
  readonly #listeners = new Set<ChangeListener<T>>();
  readonly #abort = new AbortController();
  readonly #synced = Promise.withResolvers<void>();
  readonly #untrack: (() => void) | undefined;
  /** Everything up to here has been seen. */
  #resourceVersion = '';
  #hasSynced = false;
  #mustList = true;
  #listedAt = 0;
  #relistAt = 0;
  #lastNews: number;
  #failures = 0;
  #lastFailure = 0;
  #running: Promise<void> | undefined;

  constructor(options: ReflectorOptions) {
    this.#options = options;
    this.#name = options.plural;
    this.#client = new ResourceClient<T>(options);
    this.#lastNews = options.clock.now();
    this.#untrack = options.metrics?.trackReflector(this.#name, () => ({
      name: this.#name,
      items: this.#objects.size,
      stalenessSeconds: this.stalenessMs / 1000,
    }));
  }

  /** Begins to list and watch, trying until it succeeds. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends the watch. What was seen can still be read. */
  async stop(): Promise<void> {
    this.#abort.abort();
    this.#untrack?.();
    await this.#running;
  }

  /** The object under `namespace/name` (or `name`), as last seen. */
  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  list(): T[] {
    return [...this.#objects.values()];
  }

  /** True once everything was listed. */
  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  /** Resolves once everything was listed; never when the reflector is stopped before. */
  synced(): Promise<void> {
    return this.#synced.promise;
  }

  /** Milliseconds since the last event, bookmark, list or start of a watch. */
  get stalenessMs(): number {
    return this.#options.clock.now() - this.#lastNews;
  }

  /** Calls `listener` for every object that is known already and on every change; the returned function ends that. */
  onChange(listener: ChangeListener<T>): () => void {
    for (const [key, object] of [...this.#objects]) this.#tell(listener, key, object, undefined);
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Takes the result of a write of our own, so that the next look sees it; the object is frozen. Ignored when something
   * newer is known, such as that it is deleted again. Only for objects that the selector and namespace match.
   */
  observeWrite(object: T): void {
    const known = this.#objects.has(keyOf(object));
    // The watch has passed this version and the object is not here: it came and went.
    if (!known && this.#hasSynced && !isNewer(object.metadata.resourceVersion, this.#resourceVersion)) return;
    this.#put(object);
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    const { clock } = this.#options;
    while (!signal.aborted) {
      try {
        if (this.#mustList || clock.now() >= this.#relistAt - shortWatchMs) await this.#list();
        await this.#watch();
      } catch (error) {
        if (!signal.aborted) await this.#recover(error);
      }
    }
  }

  /** Decides what to do after a failure: when to try again, and whether to list first. */
  async #recover(error: unknown): Promise<void> {
    const { clock, metrics, log } = this.#options;
    const expired = isGone(error);
    const stalled = codeOf(error) === 'WatchStalled';
    if (expired) this.#mustList = true;
    // Neither is a sign of an overloaded server, so there is no reason to stay blind, unless it comes again at once.
    const atOnce = stalled || (expired && clock.now() - this.#listedAt > expiredMs);
    const waitMs = atOnce ? 0 : this.#nextBackoff();
    metrics?.watchFailures.inc({ name: this.#name, reason: expired ? 'expired' : stalled ? 'stalled' : 'error' });
    const fields = { resource: this.#name, reason: messageOf(error), retryInMs: Math.round(waitMs) };
    if (expired) log.info(fields, 'Listing again: the watch fell too far behind');
    else log.warn(fields, 'Watch failed, trying again');
    await this.#pause(waitMs);
  }

  async #list(): Promise<void> {
    const { namespace, labelSelector, fieldSelector, clock, metrics, relistIntervalMs = 600_000 } = this.#options;
    const { signal } = this.#abort;
    const selectors = { labelSelector, fieldSelector };
    const found = new Map<string, T>();
    let next: string | undefined;
    let resourceVersion = '';
    metrics?.lists.inc({ name: this.#name });
    do {
      const page = await this.#client.listPage(namespace, { ...selectors, limit: pageSize, continue: next, signal });
      for (const object of page.items) found.set(keyOf(object), object);
      resourceVersion = page.resourceVersion;
      next = page.next;
    } while (next);
    for (const [key, object] of [...this.#objects]) {
      // Written by ourselves after the list was made: it is not gone.
      const newer = isNewer(object.metadata.resourceVersion, resourceVersion);
      if (!found.has(key) && !newer) this.#remove(key, object);
    }
    for (const object of found.values()) this.#put(object);
    const now = clock.now();
    this.#resourceVersion = resourceVersion;
    this.#mustList = false;
    this.#lastNews = now;
    this.#listedAt = now;
    this.#relistAt = now + relistIntervalMs;
    this.#hasSynced = true;
    this.#synced.resolve();
  }

  /** Watches until the server ends it. @throws when it failed: KubeApiError, WeirError ApiUnreachable, WatchStalled */
  async #watch(): Promise<void> {
    const { kubeConfig, namespace, clock, metrics, stallTimeoutMs = 90_000 } = this.#options;
    const path = pathOf(this.#options, namespace) + this.#watchQuery();
    const startedAt = clock.now();
    const watch = new AbortController();
    const stop = () => watch.abort();
    this.#abort.signal.addEventListener('abort', stop, { once: true });
    let boundMs = Math.min(connectMs, stallTimeoutMs);
    let stalled = false;
    let cancelWatchdog: () => void;
    const watchdog = () => {
      const leftMs = boundMs - this.stalenessMs;
      stalled = leftMs <= 0;
      if (stalled) watch.abort();
      else cancelWatchdog = clock.after(leftMs, watchdog);
    };
    let events = 0;
    this.#lastNews = startedAt;
    cancelWatchdog = clock.after(boundMs, watchdog);
    metrics?.watches.inc({ name: this.#name });
    try {
      const stream = await transportOf(kubeConfig, metrics).stream(path, watch.signal);
      this.#lastNews = clock.now();
      cancelWatchdog();
      boundMs = stallTimeoutMs;
      watchdog();
      stream.setEncoding('utf8');
      let rest = '';
      for await (const chunk of stream as AsyncIterable<string>) {
        const lines = (rest + chunk).split('\n');
        rest = lines.pop()!;
        for (const line of lines) this.#event(JSON.parse(line) as WatchEvent<T>);
        events += lines.length;
      }
    } catch (error) {
      if (!stalled) throw error;
      throw new WeirError('WatchStalled', `nothing came for ${boundMs} ms, not even a bookmark`, { cause: error });
    } finally {
      cancelWatchdog();
      watch.abort();
      this.#abort.signal.removeEventListener('abort', stop);
    }
    if (events === 0 && clock.now() - startedAt < shortWatchMs) {
      throw new WeirError('ShortWatch', 'the API server ended the watch as soon as it began');
    }
  }

  #watchQuery(): string {
    const { clock, random, labelSelector, fieldSelector } = this.#options;
    // A watch is no longer than until the next list, so that the list needs no timer of its own.
    const untilRelist = Math.ceil((this.#relistAt - clock.now()) / 1000);
    const drawn = Math.floor(watchSeconds.min + random() * watchSeconds.spread);
    return queryOf({
      watch: true,
      allowWatchBookmarks: true,
      resourceVersion: this.#resourceVersion,
      timeoutSeconds: Math.max(1, Math.min(drawn, untilRelist)),
      labelSelector,
      fieldSelector,
    });
  }

  #event({ type, object }: WatchEvent<T>): void {
    this.#lastNews = this.#options.clock.now();
    if (type === 'ERROR') {
      const { code = 500, reason = 'WatchError', message = 'the API server ended the watch with an error' } = object;
      throw new KubeApiError(code, reason, message, `watch of ${this.#name}`);
    }
    if (type === 'DELETED') this.#remove(keyOf(object), object);
    else if (type !== 'BOOKMARK') this.#put(object);
    this.#resourceVersion = object.metadata.resourceVersion ?? this.#resourceVersion;
  }

  #put(object: T): void {
    const key = keyOf(object);
    const previous = this.#objects.get(key);
    if (previous && !isNewer(object.metadata.resourceVersion, previous.metadata.resourceVersion)) return;
    this.#objects.set(key, freeze(object));
    const same = previous?.metadata.uid === object.metadata.uid;
    // Deleted and made again under its name, with the events in between missed: two changes.
    if (previous && !same) this.#emit(key, undefined, previous);
    this.#emit(key, object, same ? previous : undefined);
  }

  /** Forgets an object, but not one made later under its name. */
  #remove(key: string, object: T): void {
    const known = this.#objects.get(key);
    if (!known || known.metadata.uid !== object.metadata.uid) return;
    this.#objects.delete(key);
    this.#emit(key, undefined, known);
  }

  #emit(key: string, current: T | undefined, previous: T | undefined): void {
    for (const listener of this.#listeners) this.#tell(listener, key, current, previous);
  }

  #tell(listener: ChangeListener<T>, key: string, current: T | undefined, previous: T | undefined): void {
    try {
      listener(key, current, previous);
    } catch (error) {
      this.#options.log.error({ err: error, resource: this.#name, key }, 'A listener of changes failed');
    }
  }

  #nextBackoff(): number {
    const { clock, random } = this.#options;
    const now = clock.now();
    if (now - this.#lastFailure > backoff.resetMs) this.#failures = 0;
    this.#lastFailure = now;
    const base = Math.min(backoff.maxMs, backoff.initialMs * 2 ** this.#failures);
    this.#failures += 1;
    return base * (1 + random());
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const finish = () => {
        cancel();
        this.#abort.signal.removeEventListener('abort', finish);
        resolve();
      };
      const cancel = this.#options.clock.after(ms, finish);
      this.#abort.signal.addEventListener('abort', finish);
    });
  }
}

/**
 * Whether resource version `a` is newer than `b`. They are integers of etcd's revision on every API server that stores
 * in etcd; the API's promise that they can be compared so is KEP-5504.
 */
function isNewer(a: string | undefined, b: string | undefined): boolean {
  if (!a || !b) return true;
  return Number(a) > Number(b);
}

/** Makes an object and all within it unchangeable: it is shared by everybody who looks. */
function freeze<O extends object>(object: O): O {
  if (Object.isFrozen(object)) return object;
  for (const value of Object.values(object)) if (typeof value === 'object' && value !== null) freeze(value as object);
  return Object.freeze(object);
}
