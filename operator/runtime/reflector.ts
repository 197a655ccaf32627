import { createInterface } from 'node:readline';
import type { KubeConfig } from '@kubernetes/client-node';
import type { Clock } from '#platform/clock.ts';
import { codeOf, messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { isGone, keyOf, pathOf, queryOf, ResourceClient, type KubeObject, type Resource } from './kube.ts';
import type { RuntimeMetrics } from './metrics.ts';
import { transportOf } from './transport.ts';

export type ChangeListener<T> = (key: string, current: T | undefined, previous: T | undefined) => void;

/** Options of {@link Reflector}. */
export interface ReflectorOptions extends Resource {
  kubeConfig: KubeConfig;
  /** One namespace; all when it is not given. */
  namespace?: string;
  labelSelector?: string;
  clock: Clock;
  /** In [0, 1). */
  random: () => number;
  log: Logger;
  metrics?: RuntimeMetrics;
  /** A watch that brings nothing, not even a bookmark, for so long is taken for dead. Default 90,000. */
  stallMs?: number;
  /** Everything is listed anew this often, whatever the watch says. Default 600,000. */
  relistMs?: number;
}

interface WatchEvent<T> {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  object: T & { code?: number; message?: string; reason?: string };
}

/** Length of one watch in seconds, drawn from [300, 600), as client-go does: so that watches do not all end together. */
const watchSeconds = { min: 300, spread: 300 };
/** Pause before trying again: 800 ms doubling to 30 s, up to twice as long by chance, as client-go's reflector. */
const backoff = { initialMs: 800, maxMs: 30_000, resetMs: 120_000 };
/** Deleted objects are remembered as long as a write of our own may be on its way back, milliseconds. */
const tombstoneMs = 60_000;
const pageSize = 500;

/**
 * A local copy of one resource, kept by list and watch. Watches are not trusted: one that is silent for too long is
 * started again, and everything is listed anew from time to time, so that a missed event is a matter of time only.
 *
 *   list --> watch --(ended)--> watch from the last resource version
 *    ^         |
 *    +---------+ 410 Gone, or time to relist
 *
 * Objects handed out are shared: never change them.
 */
export class Reflector<T extends KubeObject> {
  readonly #options: ReflectorOptions;
  readonly #name: string;
  readonly #client: ResourceClient<T>;
  readonly #objects = new Map<string, T>();
  readonly #tombstones = new Map<string, number>();
  readonly #listeners = new Set<ChangeListener<T>>();
  readonly #abort = new AbortController();
  readonly #synced = Promise.withResolvers<void>();
  readonly #untrack: (() => void) | undefined;
  #resourceVersion = '';
  #hasSynced = false;
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

  /** Resolves once everything was listed. */
  synced(): Promise<void> {
    return this.#synced.promise;
  }

  /** Milliseconds since the last event, bookmark, list or start of a watch. */
  get stalenessMs(): number {
    return this.#options.clock.now() - this.#lastNews;
  }

  /** Calls `listener` on every change; the returned function ends that. */
  onChange(listener: ChangeListener<T>): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Takes the result of our own write, so that the next look sees it. Ignored when something newer is known. */
  observeWrite(object: T): void {
    const deletedAt = this.#tombstones.get(object.metadata.uid ?? '');
    if (deletedAt === undefined) this.#put(object);
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    let listAgain = true;
    while (!signal.aborted) {
      try {
        if (listAgain) await this.#list();
        listAgain = false;
        listAgain = await this.#watch();
      } catch (error) {
        if (signal.aborted) return;
        const expired = isGone(error);
        listAgain ||= expired;
        this.#options.metrics?.watchFailures.inc({
          name: this.#name,
          reason: expired ? 'expired' : codeOf(error) === 'WatchStalled' ? 'stalled' : 'error',
        });
        const waitMs = expired ? 0 : this.#nextBackoff();
        this.#options.log[expired ? 'debug' : 'warn'](
          { resource: this.#name, reason: messageOf(error), retryInMs: Math.round(waitMs) },
          expired ? 'Listing again: the watch is too old' : 'Watch failed; trying again',
        );
        await this.#pause(waitMs);
      }
    }
  }

  async #list(): Promise<void> {
    const { namespace, labelSelector, clock } = this.#options;
    const { signal } = this.#abort;
    const seen = new Set<string>();
    const found: T[] = [];
    let next: string | undefined;
    let resourceVersion = '';
    do {
      const page = await this.#client.listPage(namespace, { labelSelector, limit: pageSize, continue: next, signal });
      found.push(...page.items);
      resourceVersion = page.resourceVersion;
      next = page.next;
    } while (next);
    for (const object of found) {
      seen.add(keyOf(object));
      this.#put(object);
    }
    for (const [key, object] of this.#objects) {
      // Written by ourselves after the list was made: it is not gone.
      const newer = isNewer(object.metadata.resourceVersion, resourceVersion);
      if (!seen.has(key) && !newer) this.#remove(key, object);
    }
    this.#resourceVersion = resourceVersion;
    this.#lastNews = clock.now();
    if (this.#hasSynced) return;
    this.#hasSynced = true;
    this.#synced.resolve();
  }

  /** Watches until the server ends it; true when it is time to list again. @throws when the watch failed */
  async #watch(): Promise<boolean> {
    const {
      kubeConfig,
      namespace,
      labelSelector,
      clock,
      random,
      metrics,
      stallMs = 90_000,
      relistMs = 600_000,
    } = this.#options;
    const timeoutSeconds = Math.floor(watchSeconds.min + random() * watchSeconds.spread);
    const query = queryOf({
      watch: true,
      allowWatchBookmarks: true,
      resourceVersion: this.#resourceVersion,
      timeoutSeconds,
      labelSelector,
    });
    const stalled = new AbortController();
    const signal = AbortSignal.any([this.#abort.signal, stalled.signal]);
    const relistAt = clock.now() + relistMs;
    metrics?.watches.inc({ name: this.#name });
    this.#lastNews = clock.now();
    let cancelCheck = () => undefined as void;
    const check = () => {
      if (this.stalenessMs > stallMs)
        stalled.abort(new WeirError('WatchStalled', `Nothing came for ${stallMs} ms, not even a bookmark.`));
      else cancelCheck = clock.after(Math.min(1000, stallMs / 2), check);
    };
    check();
    try {
      const stream = await transportOf(kubeConfig).stream(pathOf(this.#options, namespace) + query, signal);
      this.#lastNews = clock.now();
      for await (const line of createInterface({ input: stream, crlfDelay: Infinity })) {
        if (line !== '') this.#event(JSON.parse(line) as WatchEvent<T>);
      }
      // The reader above ends quietly when the stream was cut.
      if (stream.errored) throw stream.errored;
      return clock.now() >= relistAt;
    } catch (error) {
      throw stalled.signal.aborted ? stalled.signal.reason : error;
    } finally {
      cancelCheck();
    }
  }

  #event({ type, object }: WatchEvent<T>): void {
    this.#lastNews = this.#options.clock.now();
    if (type === 'ERROR') {
      const gone = object.code === 410;
      // Told as an event, with no HTTP status of its own.
      if (gone) throw new ExpiredError(object.message ?? 'too old resource version');
      throw new WeirError(
        object.reason ?? 'WatchError',
        object.message ?? 'the API server ended the watch with an error',
      );
    }
    this.#resourceVersion = object.metadata.resourceVersion ?? this.#resourceVersion;
    if (type === 'BOOKMARK') return;
    if (type === 'DELETED') this.#remove(keyOf(object), object);
    else this.#put(object);
  }

  #put(object: T): void {
    const key = keyOf(object);
    const previous = this.#objects.get(key);
    if (previous && !isNewer(object.metadata.resourceVersion, previous.metadata.resourceVersion)) return;
    this.#objects.set(key, object);
    // Deleted and made again under its name, with the events in between merged: two changes.
    if (previous && previous.metadata.uid !== object.metadata.uid) this.#emit(key, undefined, previous);
    this.#emit(key, object, previous?.metadata.uid === object.metadata.uid ? previous : undefined);
  }

  #remove(key: string, object: T): void {
    const now = this.#options.clock.now();
    for (const [uid, at] of this.#tombstones) if (now - at > tombstoneMs) this.#tombstones.delete(uid);
    this.#tombstones.set(object.metadata.uid ?? '', now);
    const known = this.#objects.get(key);
    if (!known || known.metadata.uid !== object.metadata.uid) return;
    this.#objects.delete(key);
    this.#emit(key, undefined, known);
  }

  #emit(key: string, current: T | undefined, previous: T | undefined): void {
    for (const listener of this.#listeners) {
      try {
        listener(key, current, previous);
      } catch (error) {
        this.#options.log.error({ err: error, resource: this.#name, key }, 'A listener of changes failed');
      }
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

/** What a watch says when the resource version it should go on from is older than what the server keeps. */
class ExpiredError extends WeirError {
  constructor(message: string) {
    super('Expired', message);
  }
}

/**
 * Whether resource version `a` is newer than `b`. They are integers of etcd's revision on every API server that stores
 * in etcd; the API's promise that they can be compared so is KEP-5504.
 */
function isNewer(a: string | undefined, b: string | undefined): boolean {
  if (a === undefined || b === undefined || b === '') return true;
  return BigInt(a) > BigInt(b);
}
