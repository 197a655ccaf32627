/** Options of {@link WeirError}. */
export interface WeirErrorOptions {
  cause?: unknown;
  /** What the error is about: a field, a file, an address. */
  where?: string;
}

/**
 * An error with a stable code. The message says what was wrong and what to do instead; `where` names the place.
 * Codes are CamelCase words and are part of the API: docs/errors.md lists them.
 */
export class WeirError extends Error {
  readonly code: string;
  readonly where: string | undefined;

  constructor(code: string, message: string, options: WeirErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'WeirError';
    this.code = code;
    this.where = options.where;
  }
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The stable code of anything that was thrown; `Internal` for what is not a {@link WeirError}. */
export function codeOf(error: unknown): string {
  return error instanceof WeirError ? error.code : 'Internal';
}
