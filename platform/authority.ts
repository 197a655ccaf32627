import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
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

/** Who a certificate is for. */
export interface CertificateRequest {
  /** Subject in RFC 4514 form, such as `O=system:masters,CN=admin`. */
  subject: string;
  /** DNS names and IP literals that a server answers to. */
  names?: readonly string[];
  /** What it may be used for. Default both. */
  usage?: 'client' | 'server' | 'both';
  /** Validity in days from now. Default 365. */
  days?: number;
}

/** A certificate authority whose key is in memory. Keys are P-256. */
export class Authority {
  /** The authority's own certificate and key, PEM. */
  readonly credentials: Credentials;
  readonly #certificate: x509.X509Certificate;
  readonly #key: webcrypto.CryptoKey;
  readonly #publicKey: webcrypto.CryptoKey;
  readonly #now: () => number;

  private constructor(parts: {
    credentials: Credentials;
    certificate: x509.X509Certificate;
    keys: webcrypto.CryptoKeyPair;
    now: () => number;
  }) {
    this.credentials = parts.credentials;
    this.#certificate = parts.certificate;
    this.#key = parts.keys.privateKey;
    this.#publicKey = parts.keys.publicKey;
    this.#now = parts.now;
  }

  /**
   * Makes a new one that signs itself.
   *
   * @param options.now milliseconds since the epoch.
   */
  static async create(options: { commonName: string; days: number; now: () => number }): Promise<Authority> {
    const { commonName, days, now } = options;
    const keys = await subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber: serialNumber(),
      name: `CN=${commonName}`,
      ...validity(now(), days),
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
    const credentials = { certificate: certificate.toString('pem'), key: await privateKeyPem(keys.privateKey) };
    return new Authority({ credentials, certificate, keys, now });
  }

  /** One that was made before; throws what the parser throws when the PEM is none. */
  static async load(credentials: Credentials, now: () => number): Promise<Authority> {
    const certificate = new x509.X509Certificate(credentials.certificate);
    const der = x509.PemConverter.decodeFirst(credentials.key);
    const privateKey = await subtle.importKey('pkcs8', der, algorithm, true, ['sign']);
    const publicKey = (await certificate.publicKey.export(algorithm, ['verify'])) as webcrypto.CryptoKey;
    return new Authority({ credentials, certificate, keys: { privateKey, publicKey }, now });
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
      ...validity(this.#now(), request.days ?? 365),
      signingAlgorithm: algorithm,
      publicKey: keys.publicKey,
      signingKey: this.#key,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension(usages),
        ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
        await x509.AuthorityKeyIdentifierExtension.create(this.#publicKey),
      ],
    });
    return { certificate: certificate.toString('pem'), key: await privateKeyPem(keys.privateKey) };
  }
}

/** Clocks of other machines may be a little behind. */
function validity(now: number, days: number): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(now - dayMs), notAfter: new Date(now + days * dayMs) };
}

/** A private key as PEM (PKCS #8). */
export async function privateKeyPem(key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await subtle.exportKey('pkcs8', key), 'PRIVATE KEY');
}

/** A public key as PEM (SPKI). */
export async function publicKeyPem(key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await subtle.exportKey('spki', key), 'PUBLIC KEY');
}

function serialNumber(): string {
  const bytes = webcrypto.getRandomValues(new Uint8Array(16));
  // Positive, and without a leading zero byte.
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return Buffer.from(bytes).toString('hex');
}
