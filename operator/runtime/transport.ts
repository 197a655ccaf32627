import http from 'node:http';
import https from 'node:https';
import type { KubeConfig } from '@kubernetes/client-node';
import { WeirError, messageOf } from '#platform/errors.ts';
import type { RuntimeMetrics } from './metrics.ts';

/**
 * HTTP to the API server. Credentials come from client-node's KubeConfig; the connections are ours, because client-node
 * makes a new dispatcher, and with it a new TLS connection, for every call, and its Watch ends whatever is silent for
 * 30 s. HTTP/1.1 with kept connections, HTTP/2 and undici measured the same against one API server (the server is the
 * limit), so the one that needs no dependency and gives a slow watch a connection of its own is used.
 */

/** Reading certificates and tokens again this often follows their rotation without reading files on every call. */
const CREDENTIALS_MS = 30_000;
const REQUEST_TIMEOUT_MS = 30_000;
const TRIES = 4;

/** What went wrong in a call, as the API server put it. `code` is the Status reason: Conflict, NotFound, Invalid... */
export class KubeApiError extends WeirError {
  /** HTTP status. */
  readonly status: number;
  /** How long the server asks to wait, in milliseconds. */
  readonly retryAfterMs: number | undefined;

  constructor(status: number, reason: string, message: string, where: string, retryAfterMs?: number) {
    super(reason, message, { where });
    this.name = 'KubeApiError';
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }
}

/** One call. */
export interface KubeRequest {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Path from the API server's root, with its query. */
  path: string;
  body?: unknown;
  /** Default application/json. */
  contentType?: string;
  /** Longest silence on the connection, in milliseconds. Default 30,000. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

interface Credentials {
  base: URL;
  headers: http.OutgoingHttpHeaders;
  identity: string;
  requests: http.Agent;
  streams: http.Agent;
  readAt: number;
}

const transports = new WeakMap<KubeConfig, KubeTransport>();

/** Calls to the one API server of a KubeConfig; made once a KubeConfig by {@link transportOf}. */
export class KubeTransport {
  readonly #kubeConfig: KubeConfig;
  #credentials: Promise<Credentials> | undefined;
  #current: Credentials | undefined;
  metrics: RuntimeMetrics | undefined;

  constructor(kubeConfig: KubeConfig) {
    this.#kubeConfig = kubeConfig;
  }

  /** Calls and parses the answer. @throws KubeApiError, or WeirError ApiUnreachable when there was no answer */
  async request<T>(request: KubeRequest): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once<T>(request);
      } catch (error) {
        if (attempt >= TRIES || request.signal?.aborted) throw error;
        if (error instanceof KubeApiError && error.retryAfterMs !== undefined && error.status === 429) {
          await pause(error.retryAfterMs, request.signal);
        } else if (!(error instanceof WeirError && error.code === 'StaleConnection')) throw error;
      }
    }
  }

  async #once<T>(request: KubeRequest): Promise<T> {
    const answer = await this.#send(request, 'requests');
    const text = await readAll(answer, request);
    if (answer.statusCode! >= 300) throw apiError(answer, text, request);
    return (text === '' ? {} : JSON.parse(text)) as T;
  }

  /**
   * Opens a long answer, such as a watch, on a connection of its own. Ends with the signal.
   * @throws as {@link request}
   */
  async stream(path: string, signal: AbortSignal): Promise<http.IncomingMessage> {
    const request: KubeRequest = { method: 'GET', path, signal, timeoutMs: 0 };
    const answer = await this.#send(request, 'streams');
    if (answer.statusCode! < 300) return answer;
    throw apiError(answer, await readAll(answer, request), request);
  }

  async #send(request: KubeRequest, kind: 'requests' | 'streams'): Promise<http.IncomingMessage> {
    const { base, headers, [kind]: agent } = await this.#authenticate();
    const body = request.body === undefined ? undefined : JSON.stringify(request.body);
    const url = new URL(base.pathname.replace(/\/$/, '') + request.path, base);
    const options: https.RequestOptions = {
      method: request.method,
      agent,
      signal: request.signal,
      timeout: request.timeoutMs ?? REQUEST_TIMEOUT_MS,
      headers: { ...headers, accept: 'application/json', 'user-agent': 'weir-operator' },
    };
    if (body !== undefined) {
      Object.assign(options.headers!, {
        'content-type': request.contentType ?? 'application/json',
        'content-length': Buffer.byteLength(body),
      });
    }
    return new Promise((resolve, reject) => {
      const call = (url.protocol === 'http:' ? http : https).request(url, options);
      const host = url.host;
      call.on('socket', (socket) => socket.setKeepAlive(true, 15_000));
      call.on('timeout', () => call.destroy(new Error(`no answer within ${options.timeout} ms`)));
      call.on('response', (answer) => {
        this.metrics?.restRequests.inc({ code: String(answer.statusCode), method: request.method, host });
        resolve(answer);
      });
      call.on('error', (error: NodeJS.ErrnoException) => {
        this.metrics?.restRequests.inc({ code: '<error>', method: request.method, host });
        reject(unreachable(error, request, host, call.reusedSocket));
      });
      call.end(body);
    });
  }

  async #authenticate(): Promise<Credentials> {
    const current = this.#current;
    if (current && performance.now() - current.readAt < CREDENTIALS_MS) return current;
    this.#credentials ??= this.#readCredentials().finally(() => (this.#credentials = undefined));
    return this.#credentials;
  }

  async #readCredentials(): Promise<Credentials> {
    const cluster = this.#kubeConfig.getCurrentCluster();
    if (!cluster) {
      throw new WeirError('NoCluster', 'the kubeconfig has no current cluster; set current-context in it', {
        where: 'KUBECONFIG',
      });
    }
    const options: https.RequestOptions = {};
    await this.#kubeConfig.applyToHTTPSOptions(options);
    const { ca, cert, key, pfx, passphrase, servername, rejectUnauthorized } = options;
    const tls = { ca, cert, key, pfx, passphrase, servername, rejectUnauthorized };
    const identity = JSON.stringify([cluster.server, tls]);
    const base = new URL(cluster.server);
    const headers = { ...(options.headers as http.OutgoingHttpHeaders) };
    if (options.auth) headers.authorization = `Basic ${Buffer.from(options.auth).toString('base64')}`;
    const readAt = performance.now();
    const previous = this.#current;
    if (previous?.identity === identity) {
      return (this.#current = { ...previous, headers, readAt });
    }
    const agents = cluster.proxyUrl
      ? { requests: options.agent as http.Agent, streams: options.agent as http.Agent }
      : newAgents(base, dropUndefined(tls));
    // Old connections are left to end by themselves: calls may be under way on them.
    return (this.#current = { base, headers, identity, readAt, ...agents });
  }

  /** Closes idle and busy connections alike. Later calls open new ones. */
  close(): void {
    this.#current?.requests.destroy();
    this.#current?.streams.destroy();
    this.#current = undefined;
  }
}

/** The transport of a KubeConfig: one pool of connections, however many clients, reflectors and electors use it. */
export function transportOf(kubeConfig: KubeConfig, metrics?: RuntimeMetrics): KubeTransport {
  let transport = transports.get(kubeConfig);
  if (!transport) transports.set(kubeConfig, (transport = new KubeTransport(kubeConfig)));
  if (metrics) transport.metrics = metrics;
  return transport;
}

function newAgents(base: URL, tls: https.AgentOptions): { requests: http.Agent; streams: http.Agent } {
  const pool = { keepAlive: true, maxSockets: 32, maxFreeSockets: 32, scheduling: 'lifo' as const };
  if (base.protocol === 'http:') return { requests: new http.Agent(pool), streams: new http.Agent() };
  return { requests: new https.Agent({ ...tls, ...pool }), streams: new https.Agent(tls) };
}

function dropUndefined<T extends object>(object: T): T {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as T;
}

async function readAll(answer: http.IncomingMessage, request: KubeRequest): Promise<string> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of answer) chunks.push(chunk as Buffer);
  } catch (error) {
    throw unreachable(error as Error, request, 'the API server', false);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function unreachable(
  error: NodeJS.ErrnoException,
  request: KubeRequest,
  host: string,
  reusedSocket: boolean,
): WeirError {
  const where = `${request.method} ${request.path}`;
  // A kept connection that the server closed just as we wrote. What is not a POST may safely be sent again.
  const stale = reusedSocket && request.method !== 'POST' && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
  const message = `no answer from the Kubernetes API at ${host}: ${messageOf(error)}; check that it runs and that the kubeconfig names its address`;
  return new WeirError(stale ? 'StaleConnection' : 'ApiUnreachable', message, { cause: error, where });
}

function apiError(answer: http.IncomingMessage, text: string, request: KubeRequest): KubeApiError {
  let status: { reason?: string; message?: string; details?: { retryAfterSeconds?: number } } = {};
  try {
    status = JSON.parse(text) as typeof status;
  } catch {
    status.message = text.slice(0, 200).trim();
  }
  const code = answer.statusCode!;
  const seconds = Number(answer.headers['retry-after'] ?? status.details?.retryAfterSeconds ?? NaN);
  return new KubeApiError(
    code,
    status.reason || http.STATUS_CODES[code]?.replaceAll(' ', '') || 'Unknown',
    status.message || `the API server answered ${code}`,
    `${request.method} ${request.path}`,
    Number.isFinite(seconds) ? seconds * 1000 : undefined,
  );
}

async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  const { setTimeout: sleep } = await import('node:timers/promises');
  await sleep(ms, undefined, { signal, ref: false });
}
