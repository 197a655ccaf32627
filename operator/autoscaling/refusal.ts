import { WeirError } from '#platform/errors.ts';

/** Why a call of the metrics API is refused, in the API's own words: HTTP status, and the reason of a Status as `code`. */
export class ApiRefusal extends WeirError {
  readonly status: number;

  constructor(status: number, reason: string, message: string, options: { cause?: unknown } = {}) {
    super(reason, message, options);
    this.name = 'ApiRefusal';
    this.status = status;
  }
}

/** What of any error a caller is told; of what nobody thought of only that it happened. */
export function refusalOf(error: unknown): ApiRefusal {
  if (error instanceof ApiRefusal) return error;
  return new ApiRefusal(500, 'InternalError', "an unexpected error; the operator's log has it", { cause: error });
}

/** The refusal as a Kubernetes Status. */
export function statusDocument({ status, code, message }: ApiRefusal): object {
  return { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason: code, code: status };
}
