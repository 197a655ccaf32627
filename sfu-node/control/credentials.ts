import { experimental, type ServerCredentials, type ServerUnaryCall } from '@grpc/grpc-js';
import { WeirError } from '#platform/errors.ts';
import type { TlsIdentity } from '#platform/tls-identity.ts';

/**
 * Credentials of the gRPC server. A caller without a certificate of the fleet's authority gets as far as
 * {@link checkOperator}, which tells it why it is refused; TLS alone would only cut the connection.
 */
export function serverCredentials(identity: TlsIdentity): ServerCredentials {
  return experimental.createCertificateProviderServerCredentials(identity, identity, false);
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
