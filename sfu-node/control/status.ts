import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { codeOf, messageOf } from '#platform/errors.ts';

/** gRPC status by WeirError code. */
const statuses: Readonly<Record<string, status>> = {
  StaleEpoch: status.FAILED_PRECONDITION,
  NodeDraining: status.UNAVAILABLE,
  NoWorker: status.UNAVAILABLE,
  InvalidAssignment: status.INVALID_ARGUMENT,
  CertificateMissing: status.UNAUTHENTICATED,
  NotOperator: status.PERMISSION_DENIED,
  Internal: status.INTERNAL,
};

/** Trailing metadata that carries the stable code of the error. */
export const ERROR_CODE_KEY = 'weir-error-code';

/** An error as gRPC tells it: `CODE: words`, and the code alone in trailing metadata. */
export function toServiceError(error: unknown): Partial<ServiceError> {
  const code = codeOf(error);
  const metadata = new Metadata();
  metadata.set(ERROR_CODE_KEY, code);
  const details = `${code}: ${messageOf(error)}`;
  return { code: statuses[code] ?? status.FAILED_PRECONDITION, details, message: details, metadata };
}
