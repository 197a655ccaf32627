import { X509Certificate } from 'node:crypto';
import type { KubeConfig } from '@kubernetes/client-node';
import { WeirError } from '#platform/errors.ts';
import { isNotFound, ResourceClient, type KubeObject } from '../runtime/kube.ts';
import type { AuthorityFacts, CertificateFacts } from './plan.ts';

interface SecretObject extends KubeObject {
  data?: Record<string, string>;
}

/** What a Secret holds, and how it is changed on the condition that nobody else has changed it. */
export class Secret {
  readonly name: string;
  readonly data: Readonly<Record<string, string>>;
  readonly #object: SecretObject;
  readonly #client: ResourceClient<SecretObject>;

  private constructor(object: SecretObject, client: ResourceClient<SecretObject>) {
    this.name = object.metadata.name ?? '';
    this.data = Object.fromEntries(
      Object.entries(object.data ?? {}).map(([key, value]) => [key, Buffer.from(value, 'base64').toString('utf8')]),
    );
    this.#object = object;
    this.#client = client;
  }

  /** @throws WeirError SecretMissing, KubeApiError */
  static async read(kubeConfig: KubeConfig, namespace: string, name: string): Promise<Secret> {
    const client = new ResourceClient<SecretObject>({ kubeConfig, group: '', version: 'v1', plural: 'secrets' });
    try {
      return new Secret(await client.get(name, namespace), client);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      const words = `Secret ${name} is not in namespace ${namespace}: the chart makes it, so run helm upgrade`;
      throw new WeirError('SecretMissing', words, { where: name, cause: error });
    }
  }

  /** Writes these keys; those with undefined are removed. Nothing is written when all is so already. @throws KubeApiError */
  async write(changes: Readonly<Record<string, string | undefined>>): Promise<boolean> {
    const changed = Object.entries(changes).filter(([key, value]) => this.data[key] !== value);
    if (changed.length === 0) return false;
    const { name, namespace, resourceVersion } = this.#object.metadata;
    const data = Object.fromEntries(
      changed.map(([key, value]) => [key, value === undefined ? null : Buffer.from(value).toString('base64')]),
    );
    await this.#client.patchMerge(name ?? '', namespace, { metadata: { resourceVersion }, data });
    return true;
  }
}

/** What decisions need to know of an authority's certificate; undefined when it cannot be read. */
export function authorityFacts(pem: string | undefined): AuthorityFacts | undefined {
  const certificate = parse(pem);
  if (!certificate) return undefined;
  return { ...period(certificate), fingerprint: certificate.fingerprint256 };
}

/** What decisions need to know of a certificate; undefined when it cannot be read or does not belong to its key. */
export function certificateFacts(
  pem: string | undefined,
  key: string | undefined,
  trusted: readonly string[],
): CertificateFacts | undefined {
  const certificate = parse(pem);
  if (!certificate || key === undefined || key === '') return undefined;
  const signer = trusted.map(parse).find((authority) => authority && certificate.verify(authority.publicKey));
  return {
    ...period(certificate),
    subject: certificate.subject.split('\n').join(','),
    names: (certificate.subjectAltName ?? '')
      .split(', ')
      .filter((name) => name !== '')
      .map((name) => name.replace(/^(?:DNS|IP Address):/, '')),
    signedBy: signer?.fingerprint256,
  };
}

function parse(pem: string | undefined): X509Certificate | undefined {
  try {
    return pem === undefined ? undefined : new X509Certificate(pem);
  } catch {
    return undefined;
  }
}

function period(certificate: X509Certificate): { notBefore: number; notAfter: number } {
  return { notBefore: certificate.validFromDate.getTime(), notAfter: certificate.validToDate.getTime() };
}
