import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { TLSSocket } from 'node:tls';
import type { KubeConfig } from '@kubernetes/client-node';
import type { Clock } from '#platform/clock.ts';
import { messageOf } from '#platform/errors.ts';
import { ResourceClient, type KubeObject } from '../runtime/kube.ts';
import type { RuntimeMetrics } from '../runtime/metrics.ts';
import type { AccessAttributes } from './custom-metrics.ts';
import { ApiRefusal } from './refusal.ts';
import { frontProxyUser, type RequestHeaderRules, type User } from './request-header.ts';
import { ReviewCache } from './review-cache.ts';

interface TokenReview extends KubeObject {
  spec: { token: string };
  status?: {
    authenticated?: boolean;
    user?: { username?: string; uid?: string; groups?: string[]; extra?: Record<string, string[]> };
    error?: string;
  };
}

interface AccessReview extends KubeObject {
  spec: AccessAttributes & {
    user: string;
    uid?: string;
    groups: readonly string[];
    extra: Readonly<Record<string, readonly string[]>>;
  };
  status?: { allowed?: boolean; reason?: string };
}

export interface DelegatedAuthOptions {
  kubeConfig: KubeConfig;
  metrics: RuntimeMetrics;
  /** How front proxies are believed, as known now; undefined while it is not known. */
  rules: () => RequestHeaderRules | undefined;
  clock: Clock;
}

/**
 * Leaves to the API server who a caller is and what it may do, as every aggregated API does: callers that come through
 * the API server are named by its front proxy, others by a bearer token; RBAC decides.
 */
export class DelegatedAuth {
  readonly #rules: () => RequestHeaderRules | undefined;
  readonly #tokens: ResourceClient<TokenReview>;
  readonly #accesses: ResourceClient<AccessReview>;
  readonly #users: ReviewCache<User | undefined>;
  readonly #decisions: ReviewCache<boolean>;

  constructor({ kubeConfig, metrics, rules, clock }: DelegatedAuthOptions) {
    this.#rules = rules;
    const authentication = { group: 'authentication.k8s.io', version: 'v1', plural: 'tokenreviews' };
    const authorization = { group: 'authorization.k8s.io', version: 'v1', plural: 'subjectaccessreviews' };
    this.#tokens = new ResourceClient({ ...authentication, kubeConfig, metrics });
    this.#accesses = new ResourceClient({ ...authorization, kubeConfig, metrics });
    this.#users = new ReviewCache(clock);
    this.#decisions = new ReviewCache(clock);
  }

  /** Who calls. @throws ApiRefusal Unauthorized, TooManyRequests, ServiceUnavailable */
  async authenticate(request: IncomingMessage): Promise<User> {
    const user = this.#byFrontProxy(request) ?? (await this.#byToken(request));
    if (user) return user;
    const words = 'Unauthorized: come through the Kubernetes API server, or bring a bearer token of this cluster';
    throw new ApiRefusal(401, 'Unauthorized', words);
  }

  /** Makes sure that a user may do something. @throws ApiRefusal Forbidden, TooManyRequests, ServiceUnavailable */
  async authorize(user: User, access: AccessAttributes): Promise<void> {
    // The API server's own checks of this API come so; they do not wait for the API server.
    if (user.groups.includes('system:masters')) return;
    const { username, uid, groups, extra } = user;
    const spec = { user: username, uid, groups, extra, ...access };
    const allowed = await this.#decisions.get(JSON.stringify(spec), async () => {
      const review = await orUnavailable(this.#accesses.create({ metadata: {}, spec }));
      return review.status?.allowed ?? false;
    });
    if (!allowed) throw new ApiRefusal(403, 'Forbidden', `User "${username}" cannot ${inWords(access)}`);
  }

  #byFrontProxy(request: IncomingMessage): User | undefined {
    const socket = request.socket as TLSSocket;
    const rules = this.#rules();
    // TLS has verified the certificate against the front proxies' authorities, and nothing else.
    if (!rules || !socket.authorized) return undefined;
    const commonName: unknown = socket.getPeerCertificate().subject?.CN;
    return frontProxyUser(rules, typeof commonName === 'string' ? commonName : '', request.headersDistinct);
  }

  async #byToken(request: IncomingMessage): Promise<User | undefined> {
    const [, token] = /^bearer +(\S+)$/i.exec(request.headers.authorization ?? '') ?? [];
    if (!token) return undefined;
    return this.#users.get(createHash('sha256').update(token).digest('base64'), async () => {
      const { status } = await orUnavailable(this.#tokens.create({ metadata: {}, spec: { token } }));
      const { username, uid, groups = [], extra = {} } = status?.user ?? {};
      return status?.authenticated && username ? { username, uid, groups, extra } : undefined;
    });
  }
}

/** A review that the API server did not make is nobody's fault who calls. */
async function orUnavailable<T>(review: Promise<T>): Promise<T> {
  try {
    return await review;
  } catch (error) {
    const words = `the Kubernetes API cannot say who may call (${messageOf(error)}); does the operator have ClusterRole system:auth-delegator?`;
    throw new ApiRefusal(503, 'ServiceUnavailable', words, { cause: error });
  }
}

function inWords(access: AccessAttributes): string {
  if ('nonResourceAttributes' in access) {
    const { verb, path } = access.nonResourceAttributes;
    return `${verb} path "${path}"`;
  }
  const { verb, resource, subresource, group, namespace } = access.resourceAttributes;
  const what = subresource ? `${resource}/${subresource}` : resource;
  return `${verb} resource "${what}" in API group "${group}" in the namespace "${namespace}"`;
}
