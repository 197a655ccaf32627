import { X509Certificate, createPrivateKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { experimental, type ServerCredentials, type ServerUnaryCall } from '@grpc/grpc-js';
import { messageOf, WeirError } from '#platform/errors.ts';

/** Files of mutual TLS, PEM. */
export interface TlsFiles {
  /** Authority that signs the certificates of the whole fleet. */
  ca: string;
  certificate: string;
  key: string;
}

/** Files are looked at this often, so that renewed certificates are taken up without a restart. */
const REFRESH_MS = 10_000;

/**
 * Credentials of the gRPC server. A caller without a certificate of the fleet's authority gets as far as
 * {@link checkOperator}, which tells it why it is refused; TLS alone would only cut the connection.
 * @throws WeirError BadTlsFiles naming the file that is missing or wrong
 */
export async function serverCredentials(files: TlsFiles): Promise<ServerCredentials> {
  await check('WEIR_TLS_CA_FILE', files.ca, (text) => new X509Certificate(text));
  await check('WEIR_TLS_CERT_FILE', files.certificate, (text) => new X509Certificate(text));
  await check('WEIR_TLS_KEY_FILE', files.key, (text) => createPrivateKey(text));
  const provider = new experimental.FileWatcherCertificateProvider({
    caCertificateFile: files.ca,
    certificateFile: files.certificate,
    privateKeyFile: files.key,
    refreshIntervalMs: REFRESH_MS,
  });
  return experimental.createCertificateProviderServerCredentials(provider, provider, false);
}

/**
 * Makes sure that the caller is the operator: a certificate that TLS verified, with OU=operator.
 * @throws WeirError CertificateMissing, NotOperator
 */
export function checkOperator(call: Pick<ServerUnaryCall<unknown, unknown>, 'getAuthContext'>): void {
  // gRPC gives a certificate out only when it is signed by our authority and valid now.
  const certificate = call.getAuthContext().sslPeerCertificate;
  if (!certificate) {
    const words = 'present a client certificate that the fleet authority (WEIR_TLS_CA_FILE) signed';
    throw new WeirError('CertificateMissing', words);
  }
  const units: unknown = certificate.subject.OU;
  const isOperator = Array.isArray(units) ? units.includes('operator') : units === 'operator';
  if (!isOperator) {
    throw new WeirError(
      'NotOperator',
      `${String(certificate.subject.CN)} may not control this node: OU=operator is needed`,
    );
  }
}

async function check(variable: string, file: string, parse: (text: string) => unknown): Promise<void> {
  try {
    parse(await readFile(file, 'utf8'));
  } catch (error) {
    const words = `${variable}=${file} cannot be used (${messageOf(error)}): give it a PEM file`;
    throw new WeirError('BadTlsFiles', words, { where: file, cause: error });
  }
}
