import { X509Certificate } from 'node:crypto';
import type { experimental } from '@grpc/grpc-js';
import type { Clock } from './clock.ts';
import type { TlsFiles } from './config.ts';
import { followFiles } from './follow-files.ts';
import type { Logger } from './log.ts';
import { endOf, ExpiryWatch, readKeyPair, readPem } from './pem.ts';

/** Files are looked at this often, so that renewed certificates are taken up without a restart; milliseconds. */
const REFRESH_MS = 5_000;

/** The three files as one: what gRPC's TLS uses, read again when they change; what is wrong then is not taken up. */
export class TlsIdentity implements experimental.CertificateProvider {
  readonly #log: Logger;
  readonly #caListeners = new Set<experimental.CaCertificateUpdateListener>();
  readonly #identityListeners = new Set<experimental.IdentityCertificateUpdateListener>();
  #material: Material;
  readonly #expiry: ExpiryWatch;
  readonly #unfollow: () => void;

  /** @throws WeirError BadTlsFiles naming the file that is missing or wrong */
  static async create(files: TlsFiles, options: { clock: Clock; log: Logger }): Promise<TlsIdentity> {
    return new TlsIdentity(files, await load(files), options);
  }

  private constructor(files: TlsFiles, material: Material, { clock, log }: { clock: Clock; log: Logger }) {
    this.#material = material;
    this.#log = log;
    const certificate = () => this.#material.certificate;
    this.#expiry = new ExpiryWatch({ certificate, variable: 'WEIR_TLS_CERT_FILE', clock, log });
    this.#unfollow = followFiles({
      files: Object.values(files),
      intervalMs: REFRESH_MS,
      load: () => load(files),
      taken: (next) => this.#take(next),
      wrong: (error) => log.warn({ err: error }, 'changed certificates are wrong; the earlier ones stay in use'),
    });
  }

  /** When the certificate in use ends, milliseconds since the epoch. */
  get endsAt(): number {
    return endOf(this.#material.certificate);
  }

  addCaCertificateListener(listener: experimental.CaCertificateUpdateListener): void {
    this.#caListeners.add(listener);
    // gRPC is ready for it only after this call.
    queueMicrotask(() => listener({ caCertificate: this.#material.ca }));
  }

  removeCaCertificateListener(listener: experimental.CaCertificateUpdateListener): void {
    this.#caListeners.delete(listener);
  }

  addIdentityCertificateListener(listener: experimental.IdentityCertificateUpdateListener): void {
    this.#identityListeners.add(listener);
    queueMicrotask(() => listener({ certificate: this.#material.certificate, privateKey: this.#material.key }));
  }

  removeIdentityCertificateListener(listener: experimental.IdentityCertificateUpdateListener): void {
    this.#identityListeners.delete(listener);
  }

  close(): void {
    this.#unfollow();
    this.#expiry.close();
  }

  #take(material: Material): void {
    this.#material = material;
    for (const listener of this.#identityListeners) {
      listener({ certificate: material.certificate, privateKey: material.key });
    }
    for (const listener of this.#caListeners) listener({ caCertificate: material.ca });
    this.#log.info('certificates read again');
    this.#expiry.look();
  }
}

interface Material {
  ca: Buffer;
  certificate: Buffer;
  key: Buffer;
}

async function load(files: TlsFiles): Promise<Material> {
  const [ca, { certificate, key }] = await Promise.all([
    readPem('WEIR_TLS_CA_FILE', files.caFile, (pem) => new X509Certificate(pem)),
    readKeyPair(
      { name: 'WEIR_TLS_CERT_FILE', file: files.certFile },
      { name: 'WEIR_TLS_KEY_FILE', file: files.keyFile },
    ),
  ]);
  return { ca, certificate, key };
}
