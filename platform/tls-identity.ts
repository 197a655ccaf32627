import { X509Certificate } from 'node:crypto';
import { unwatchFile, watchFile } from 'node:fs';
import type { experimental } from '@grpc/grpc-js';
import type { Clock } from './clock.ts';
import type { TlsFiles } from './config.ts';
import type { Logger } from './log.ts';
import { endOf, expiryProblem, readKeyPair, readPem } from './pem.ts';

/** Files are looked at this often, so that renewed certificates are taken up without a restart; milliseconds. */
const REFRESH_MS = 5_000;
/** A certificate that was not renewed is told of this often, milliseconds. */
const TELL_MS = 3_600_000;

/** The three files as one: what gRPC's TLS uses, read again when they change; what is wrong then is not taken up. */
export class TlsIdentity implements experimental.CertificateProvider {
  readonly #files: TlsFiles;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #caListeners = new Set<experimental.CaCertificateUpdateListener>();
  readonly #identityListeners = new Set<experimental.IdentityCertificateUpdateListener>();
  #material: Material;
  #cancel: () => void = () => undefined;

  /** @throws WeirError BadTlsFiles naming the file that is missing or wrong */
  static async create(files: TlsFiles, options: { clock: Clock; log: Logger }): Promise<TlsIdentity> {
    return new TlsIdentity(files, await load(files), options);
  }

  private constructor(files: TlsFiles, material: Material, { clock, log }: { clock: Clock; log: Logger }) {
    this.#files = files;
    this.#material = material;
    this.#clock = clock;
    this.#log = log;
    this.#tellExpiry();
    for (const file of Object.values(files)) {
      watchFile(file, { interval: REFRESH_MS, persistent: false }, this.#onChange);
    }
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
    this.#cancel();
    for (const file of Object.values(this.#files)) unwatchFile(file, this.#onChange);
  }

  #tellExpiry(): void {
    const problem = expiryProblem(this.#material.certificate, 'WEIR_TLS_CERT_FILE', this.#clock.now());
    if (problem) this.#log.error({ code: problem.code }, problem.message);
    this.#cancel();
    this.#cancel = this.#clock.after(TELL_MS, () => this.#tellExpiry());
  }

  readonly #onChange = (): void => {
    load(this.#files).then(
      (material) => {
        this.#material = material;
        for (const listener of this.#identityListeners) {
          listener({ certificate: material.certificate, privateKey: material.key });
        }
        for (const listener of this.#caListeners) listener({ caCertificate: material.ca });
        this.#log.info('certificates read again');
        this.#tellExpiry();
      },
      (error: unknown) =>
        this.#log.warn({ err: error }, 'changed certificates are wrong; the earlier ones stay in use'),
    );
  };
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
