import { webcrypto } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  Authority,
  privateKeyPem,
  publicKeyPem,
  type CertificateRequest,
  type Credentials,
} from '#platform/authority.ts';

export type { CertificateRequest, Credentials };

/** Files that hold {@link Credentials}. */
export interface CredentialFiles {
  certFile: string;
  keyFile: string;
}

/** A certificate authority that lives in memory and signs for one local fleet. Never use it for a real one. */
export class LocalAuthority {
  readonly #authority: Authority;

  private constructor(authority: Authority) {
    this.#authority = authority;
  }

  static async create(commonName: string): Promise<LocalAuthority> {
    return new LocalAuthority(await Authority.create({ commonName, days: 365, now: () => Date.now() }));
  }

  /** The authority's own certificate, PEM. */
  get certificate(): string {
    return this.#authority.credentials.certificate;
  }

  /** Makes a key and signs a certificate for it. */
  issue(request: CertificateRequest): Promise<Credentials> {
    return this.#authority.issue(request);
  }

  /** Issues and writes `NAME.crt` and `NAME.key` (mode 0600) into `directory`. */
  async issueFiles(directory: string, name: string, request: CertificateRequest): Promise<CredentialFiles> {
    const credentials = await this.issue(request);
    const files = { certFile: join(directory, `${name}.crt`), keyFile: join(directory, `${name}.key`) };
    await writeFile(files.certFile, credentials.certificate);
    await writeFile(files.keyFile, credentials.key, { mode: 0o600 });
    return files;
  }
}

/** A key pair by which the API server signs service account tokens, as PEM. */
export async function createSigningKey(): Promise<{ privateKey: string; publicKey: string }> {
  const { subtle } = webcrypto;
  const keys = await subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
  return {
    privateKey: await privateKeyPem(keys.privateKey),
    publicKey: await publicKeyPem(keys.publicKey),
  };
}
