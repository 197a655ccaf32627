import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';

const { subtle } = webcrypto;
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const dayMs = 24 * 3600 * 1000;
x509.cryptoProvider.set(webcrypto);

/** A private key and its certificate, both as PEM. */
export interface Credentials {
  certificate: string;
  key: string;
}

/** Files that hold {@link Credentials}. */
export interface CredentialFiles {
  certFile: string;
  keyFile: string;
}

/** Who a certificate is for. */
export interface CertificateRequest {
  /** Subject in RFC 4514 form, such as `O=system:masters,CN=admin`. */
  subject: string;
  /** DNS names and IP literals that a server answers to. */
  names?: readonly string[];
  /** What it may be used for. Default both. */
  usage?: 'client' | 'server' | 'both';
  /** Validity in days. Default 365. */
  days?: number;
}

async function privateKeyPem(key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await subtle.exportKey('pkcs8', key), 'PRIVATE KEY');
}

function serialNumber(): string {
  const bytes = webcrypto.getRandomValues(new Uint8Array(16));
  // Positive, and without a leading zero byte.
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return Buffer.from(bytes).toString('hex');
}

/** A certificate authority that lives in memory and signs for one local fleet. Never use it for a real one. */
export class LocalAuthority {
  /** The authority's own certificate, PEM. */
  readonly certificate: string;
  readonly #certificate: x509.X509Certificate;
  readonly #keys: webcrypto.CryptoKeyPair;

  private constructor(certificate: x509.X509Certificate, keys: webcrypto.CryptoKeyPair) {
    this.#certificate = certificate;
    this.#keys = keys;
    this.certificate = certificate.toString('pem');
  }

  static async create(commonName: string): Promise<LocalAuthority> {
    const keys = await subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber: serialNumber(),
      name: `CN=${commonName}`,
      // Clocks of other machines may be a little behind.
      notBefore: new Date(Date.now() - dayMs),
      notAfter: new Date(Date.now() + 365 * dayMs),
      signingAlgorithm: algorithm,
      keys,
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(
          x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign | x509.KeyUsageFlags.digitalSignature,
          true,
        ),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    });
    return new LocalAuthority(certificate, keys);
  }

  /** Makes a key and signs a certificate for it. */
  async issue(request: CertificateRequest): Promise<Credentials> {
    const keys = await subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const usages = [
      ...(request.usage === 'server' ? [] : [x509.ExtendedKeyUsage.clientAuth]),
      ...(request.usage === 'client' ? [] : [x509.ExtendedKeyUsage.serverAuth]),
    ];
    const names = (request.names ?? []).map((value) => ({
      type: isIP(value) ? ('ip' as const) : ('dns' as const),
      value,
    }));
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serialNumber(),
      subject: request.subject,
      issuer: this.#certificate.subject,
      notBefore: new Date(Date.now() - dayMs),
      notAfter: new Date(Date.now() + (request.days ?? 365) * dayMs),
      signingAlgorithm: algorithm,
      publicKey: keys.publicKey,
      signingKey: this.#keys.privateKey,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension(usages),
        ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
        await x509.AuthorityKeyIdentifierExtension.create(this.#keys.publicKey),
      ],
    });
    return { certificate: certificate.toString('pem'), key: await privateKeyPem(keys.privateKey) };
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
  const keys = await subtle.generateKey(algorithm, true, ['sign', 'verify']);
  return {
    privateKey: await privateKeyPem(keys.privateKey),
    publicKey: x509.PemConverter.encode(await subtle.exportKey('spki', keys.publicKey), 'PUBLIC KEY'),
  };
}
