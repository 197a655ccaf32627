import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { KubeConfig } from '@kubernetes/client-node';
import type { Clock } from '#platform/clock.ts';
import type { ListenAddress } from '#platform/config.ts';
import { listenOn } from '#platform/listen.ts';
import type { Logger } from '#platform/log.ts';
import type { AutoscalingMetrics } from '../metrics.ts';
import type { KubeObject } from '../runtime/kube.ts';
import type { RuntimeMetrics } from '../runtime/metrics.ts';
import { Reflector } from '../runtime/reflector.ts';
import { accessOf, documents, metricRequestOf, metricValues, type PodLabels } from './custom-metrics.ts';
import { DelegatedAuth } from './delegated-auth.ts';
import type { PodSample } from './pod-metrics.ts';
import { ApiRefusal, refusalOf, statusDocument } from './refusal.ts';
import { requestHeaderRules, type RequestHeaderRules } from './request-header.ts';
import { ServingCertificate, type ServingFiles } from './serving-certificate.ts';

type ConfigMap = KubeObject & { data?: Record<string, string> };

/** Where the API server says how its front proxy is known. */
const rulesMap = { namespace: 'kube-system', name: 'extension-apiserver-authentication' } as const;
/** Probes, which anybody may ask. */
const open: ReadonlySet<string> = new Set(['/healthz', '/livez', '/readyz']);
/** Bounds on callers that are slow on purpose, milliseconds. */
const patience = { handshakeTimeout: 10_000, headersTimeout: 10_000, requestTimeout: 20_000 } as const;

/** What the API tells of pods. */
export interface PodFacts {
  /** Undefined until pods were listed. */
  samples: () => readonly PodSample[] | undefined;
  pod: (namespace: string, name: string) => PodLabels | undefined;
}

export interface MetricsApiOptions {
  listen: ListenAddress;
  files: ServingFiles;
  facts: PodFacts;
  kubeConfig: KubeConfig;
  runtimeMetrics: RuntimeMetrics;
  metrics: AutoscalingMetrics;
  clock: Clock;
  /** In [0, 1). */
  random: () => number;
  log: Logger;
}

/** custom.metrics.k8s.io/v1beta2 as an aggregated API, over TLS. */
export class MetricsApi {
  /** The port that it listens on. */
  readonly port: number;
  readonly #server: Server;
  readonly #certificate: ServingCertificate;
  readonly #rules: FrontProxyRules;

  /** @throws WeirError BadTlsFiles, or PortInUse and its kin naming WEIR_METRICS_API_LISTEN */
  static async create(options: MetricsApiOptions): Promise<MetricsApi> {
    const { files, listen, clock, log } = options;
    const renew = () => {
      server.setSecureContext(secureContext());
      // Kept connections were verified by what held before.
      server.closeIdleConnections();
    };
    const rules = new FrontProxyRules(options, renew);
    const certificate = await ServingCertificate.create({ files, onChange: renew, clock, log });
    // Without authorities the list is empty and not absent: absent would mean all public ones.
    const secureContext = () => {
      const { certificate: cert, key } = certificate.pair;
      return { cert, key, ca: rules.current ? [rules.current.ca] : [] };
    };
    const auth = new DelegatedAuth({
      kubeConfig: options.kubeConfig,
      metrics: options.runtimeMetrics,
      rules: () => rules.current,
      clock,
    });
    const server = createServer(
      { ...secureContext(), ...patience, requestCert: true, rejectUnauthorized: false, minVersion: 'TLSv1.2' },
      (request, response) => void serve(request, response, auth, options),
    );
    try {
      const port = await listenOn(server, listen, 'WEIR_METRICS_API_LISTEN');
      rules.start();
      return new MetricsApi(port, server, certificate, rules);
    } catch (error) {
      certificate.close();
      throw error;
    }
  }

  private constructor(port: number, server: Server, certificate: ServingCertificate, rules: FrontProxyRules) {
    this.port = port;
    this.#server = server;
    this.#certificate = certificate;
    this.#rules = rules;
  }

  async close(): Promise<void> {
    this.#certificate.close();
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await Promise.all([closed, this.#rules.stop()]);
  }
}

/** How front proxies are believed, kept as the API server says. */
class FrontProxyRules {
  current: RequestHeaderRules | undefined;
  readonly #reflector: Reflector<ConfigMap>;
  readonly #onChange: () => void;
  readonly #log: Logger;

  constructor({ kubeConfig, clock, random, log, runtimeMetrics: metrics }: MetricsApiOptions, onChange: () => void) {
    this.#onChange = onChange;
    this.#log = log;
    const { namespace, name } = rulesMap;
    const fieldSelector = `metadata.name=${name}`;
    const resource = { group: '', version: 'v1', plural: 'configmaps' };
    this.#reflector = new Reflector({ ...resource, namespace, fieldSelector, kubeConfig, clock, random, log, metrics });
  }

  start(): void {
    this.#reflector.start();
    void this.#reflector.synced().then(() => {
      if (this.#reflector.list().length === 0) this.#take(undefined);
      this.#reflector.onChange((_key, map) => this.#take(map));
    });
  }

  async stop(): Promise<void> {
    await this.#reflector.stop();
  }

  #take(map: ConfigMap | undefined): void {
    const rules = requestHeaderRules(map?.data);
    if (typeof rules === 'string') this.#log.warn(`${rules}. Only callers with a bearer token are served.`);
    this.current = typeof rules === 'string' ? undefined : rules;
    this.#onChange();
  }
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  auth: DelegatedAuth,
  options: MetricsApiOptions,
): Promise<void> {
  const { metrics, log } = options;
  let status = 200;
  let body: object | string;
  try {
    body = await answer(request, auth, options.facts);
  } catch (error) {
    const refusal = refusalOf(error);
    status = refusal.status;
    body = statusDocument(refusal);
    if (status >= 500) log.warn({ err: refusal.cause, path: request.url }, `Metrics API: ${refusal.message}`);
    else log.debug({ status, path: request.url }, `Metrics API: ${refusal.message}`);
  }
  metrics.metricsApiRequests.inc({ code: String(status) });
  const isText = typeof body === 'string';
  response.writeHead(status, {
    'content-type': isText ? 'text/plain; charset=utf-8' : 'application/json',
    'cache-control': 'no-store',
    ...(status === 429 ? { 'retry-after': '1' } : {}),
  });
  response.end(request.method === 'HEAD' ? undefined : isText ? body : JSON.stringify(body));
}

/** @throws ApiRefusal */
async function answer(request: IncomingMessage, auth: DelegatedAuth, facts: PodFacts): Promise<object | string> {
  const method = request.method ?? 'GET';
  const [path = '/', search = ''] = splitOnce(request.url ?? '/', '?');
  if (open.has(path)) return 'ok';
  const user = await auth.authenticate(request);
  await auth.authorize(user, accessOf(method, path));
  if (method !== 'GET' && method !== 'HEAD') {
    throw new ApiRefusal(405, 'MethodNotAllowed', 'metrics can only be read: use GET');
  }
  const document = documents[path.length > 1 ? path.replace(/\/$/, '') : path];
  if (document) return document;
  const wanted = metricRequestOf(path);
  if (!wanted) {
    const words =
      'the server could not find the requested resource; metrics of pods are at namespaces/NAMESPACE/pods/*/METRIC';
    throw new ApiRefusal(404, 'NotFound', words);
  }
  const samples = facts.samples();
  if (!samples) throw new ApiRefusal(503, 'ServiceUnavailable', 'pods were not listed from the API server yet');
  return metricValues(wanted, new URLSearchParams(search), samples, (namespace, name) => facts.pod(namespace, name));
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}
