import { KubeConfig, type V1ObjectMeta } from '@kubernetes/client-node';
import { WeirError, messageOf } from '#platform/errors.ts';
import type { RuntimeMetrics } from './metrics.ts';
import { KubeApiError, transportOf, type KubeTransport } from './transport.ts';

export { KubeApiError } from './transport.ts';

/**
 * Any object of the Kubernetes API, as the JSON that the server sent. Times in `metadata` are strings at run time,
 * whatever {@link V1ObjectMeta} says: read them with {@link creationTime}.
 */
export interface KubeObject {
  apiVersion?: string;
  kind?: string;
  metadata: V1ObjectMeta;
}

/** Names a resource in the API's paths. `group` is '' for the core API. */
export interface Resource {
  group: string;
  version: string;
  plural: string;
}

/** Where the API server is and who we are: the file in KUBECONFIG, else the pod's service account. */
export function loadKubeConfig(env: NodeJS.ProcessEnv = process.env): KubeConfig {
  const kubeConfig = new KubeConfig();
  try {
    if (env.KUBECONFIG) kubeConfig.loadFromFile(env.KUBECONFIG);
    else if (env.KUBERNETES_SERVICE_HOST) kubeConfig.loadFromCluster();
    else throw new Error('it is not set, and this is not a pod');
  } catch (error) {
    const message = `KUBECONFIG cannot be used: ${messageOf(error)}; set it to the path of a kubeconfig file, or run in a pod`;
    throw new WeirError('BadKubeConfig', message, { where: 'KUBECONFIG', cause: error });
  }
  return kubeConfig;
}

/** The object was changed since it was read: read it again and decide anew. */
export function isConflict(error: unknown): boolean {
  return error instanceof KubeApiError && error.status === 409 && error.code === 'Conflict';
}

export function isNotFound(error: unknown): boolean {
  return error instanceof KubeApiError && error.status === 404;
}

export function isAlreadyExists(error: unknown): boolean {
  return error instanceof KubeApiError && error.status === 409 && error.code === 'AlreadyExists';
}

/** The resource version or continue token is older than what the server keeps: list again. */
export function isGone(error: unknown): boolean {
  if (error instanceof KubeApiError && error.status === 410) return true;
  return error instanceof WeirError && error.code === 'Expired';
}

/** `namespace/name`, or `name` for what has no namespace. */
export function keyOf(object: { metadata: V1ObjectMeta }): string {
  const { namespace, name } = object.metadata;
  return namespace ? `${namespace}/${name}` : (name ?? '');
}

/** The other way round from {@link keyOf}. */
export function splitKey(key: string): { namespace: string | undefined; name: string } {
  const slash = key.indexOf('/');
  return slash < 0
    ? { namespace: undefined, name: key }
    : { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}

/** When the object was created, in milliseconds since the epoch; undefined before it was. */
export function creationTime(object: { metadata: V1ObjectMeta }): number | undefined {
  const at = object.metadata.creationTimestamp as Date | string | undefined;
  return at === undefined ? undefined : new Date(at).getTime();
}

/** Path of a resource, of one object of it when `name` is given, of its subresource when that is. */
export function pathOf(resource: Resource, namespace?: string, name?: string, subresource?: string): string {
  let path = resource.group === '' ? `/api/${resource.version}` : `/apis/${resource.group}/${resource.version}`;
  if (namespace) path += `/namespaces/${encodeURIComponent(namespace)}`;
  path += `/${resource.plural}`;
  if (name) path += `/${encodeURIComponent(name)}`;
  return subresource ? `${path}/${subresource}` : path;
}

export interface ListOptions {
  labelSelector?: string;
  fieldSelector?: string;
}

export interface PatchOptions {
  /** `status`, `scale`, or nothing for the object itself. */
  subresource?: string;
}

export interface ApplyOptions extends PatchOptions {
  /** Who owns the fields in the body. */
  fieldManager: string;
  /** Take fields that others own. Default true, as the Kubernetes documentation asks of controllers. */
  force?: boolean;
}

export interface DeleteOptions {
  /** Delete only this very object, not one made later under its name. */
  uid?: string;
  resourceVersion?: string;
  gracePeriodSeconds?: number;
  propagationPolicy?: 'Background' | 'Foreground' | 'Orphan';
}

interface ObjectList<T> {
  apiVersion: string;
  kind: string;
  metadata: { resourceVersion: string; continue?: string };
  items: T[];
}

/** One page of a list. */
export interface ListPage<T> {
  items: T[];
  resourceVersion: string;
  /** Token of the next page; undefined on the last. */
  next: string | undefined;
}

/**
 * Typed calls for one resource over kept connections. Every method throws {@link KubeApiError} with the server's reason
 * as `code`, or WeirError ApiUnreachable when there was no answer.
 */
export class ResourceClient<T extends KubeObject> {
  readonly resource: Resource;
  readonly #transport: KubeTransport;

  constructor(options: Resource & { kubeConfig: KubeConfig; metrics?: RuntimeMetrics }) {
    const { group, version, plural } = options;
    this.resource = { group, version, plural };
    this.#transport = transportOf(options.kubeConfig, options.metrics);
  }

  async get(name: string, namespace?: string): Promise<T> {
    return this.#transport.request<T>({ method: 'GET', path: pathOf(this.resource, namespace, name) });
  }

  /** Creates in the object's own namespace. */
  async create(object: Partial<T> & { metadata: V1ObjectMeta }): Promise<T> {
    const path = pathOf(this.resource, object.metadata.namespace);
    return this.#transport.request<T>({ method: 'POST', path, body: object });
  }

  /** All objects of a namespace, or of all namespaces when none is given. */
  async list(namespace?: string, options: ListOptions = {}): Promise<T[]> {
    const items: T[] = [];
    let next: string | undefined;
    do {
      const page = await this.listPage(namespace, { ...options, limit: 500, continue: next });
      items.push(...page.items);
      next = page.next;
    } while (next);
    return items;
  }

  /** One page of a list, with the resource version to watch from. */
  async listPage(
    namespace: string | undefined,
    options: ListOptions & { limit?: number; continue?: string; signal?: AbortSignal },
  ): Promise<ListPage<T>> {
    const { signal, ...query } = options;
    const path = pathOf(this.resource, namespace) + queryOf(query);
    const list = await this.#transport.request<ObjectList<T>>({ method: 'GET', path, signal });
    const kind = list.kind.replace(/List$/, '');
    for (const item of list.items) {
      // Lists of built-in kinds leave these out of their items.
      item.apiVersion ??= list.apiVersion;
      item.kind ??= kind;
    }
    return { items: list.items, resourceVersion: list.metadata.resourceVersion, next: list.metadata.continue };
  }

  /** Writes the whole object, on the condition that it still has `metadata.resourceVersion`. */
  async replace(object: T): Promise<T> {
    return this.#replace(object, undefined);
  }

  /** Writes the whole status, on the condition that the object still has `metadata.resourceVersion`. */
  async replaceStatus(object: T): Promise<T> {
    return this.#replace(object, 'status');
  }

  async #replace(object: T, subresource: string | undefined): Promise<T> {
    const { namespace, name } = object.metadata;
    const path = pathOf(this.resource, namespace, name, subresource);
    return this.#transport.request<T>({ method: 'PUT', path, body: object });
  }

  /** JSON merge patch. Put `metadata.resourceVersion` in the body to make it conditional. */
  async patchMerge(name: string, namespace: string | undefined, body: unknown, options: PatchOptions = {}): Promise<T> {
    const path = pathOf(this.resource, namespace, name, options.subresource);
    const contentType = 'application/merge-patch+json';
    return this.#transport.request<T>({ method: 'PATCH', path, body, contentType });
  }

  /** Server-side apply. The body needs `apiVersion` and `kind`; it names every field that the manager owns. */
  async patchApply(name: string, namespace: string | undefined, body: unknown, options: ApplyOptions): Promise<T> {
    const { subresource, fieldManager, force = true } = options;
    const path = pathOf(this.resource, namespace, name, subresource) + queryOf({ fieldManager, force });
    const contentType = 'application/apply-patch+yaml';
    return this.#transport.request<T>({ method: 'PATCH', path, body, contentType });
  }

  async delete(name: string, namespace?: string, options: DeleteOptions = {}): Promise<void> {
    const { uid, resourceVersion, ...rest } = options;
    const preconditions = uid || resourceVersion ? { preconditions: { uid, resourceVersion } } : {};
    const body = { apiVersion: 'v1', kind: 'DeleteOptions', ...rest, ...preconditions };
    await this.#transport.request({ method: 'DELETE', path: pathOf(this.resource, namespace, name), body });
  }
}

/** A query string of what is not undefined, with its question mark. */
export function queryOf(query: Record<string, string | number | boolean | undefined>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined) search.set(name, String(value));
  return search.size === 0 ? '' : `?${search.toString()}`;
}
