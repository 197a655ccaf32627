import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';
import { z } from 'zod';
import { fields, readConfig } from '#platform/config.ts';
import { messageOf, WeirError } from '#platform/errors.ts';

const shape = {
  WEIR_LOG_LEVEL: fields.logLevel(),
  WEIR_LOG_FORMAT: fields.logFormat(),
  WEIR_CREDENTIALS_FILE: fields.text('the YAML file that says which Secrets to fill'),
};

/** Settings of the program, from its environment. @throws WeirError BadConfiguration */
export function readCredentialsConfig(env: Readonly<Record<string, string | undefined>>) {
  const values = readConfig(shape, env);
  return {
    log: { level: values.WEIR_LOG_LEVEL, format: values.WEIR_LOG_FORMAT },
    file: values.WEIR_CREDENTIALS_FILE,
  };
}

const name = z.string().min(1);

const requestSchema = z.strictObject({
  namespace: name,
  /** Secret of the certificate authority. */
  authority: z.strictObject({ secret: name }).optional(),
  certificates: z
    .array(
      z.strictObject({
        secret: name,
        subject: name,
        names: z.array(name),
        days: z.number().int().min(1),
      }),
    )
    .default([]),
  /** Passwords by key of one Secret. */
  passwords: z.strictObject({ secret: name, keys: z.array(name) }).optional(),
  /** Secret of the file of API keys. */
  apiKeys: z.strictObject({ secret: name }).optional(),
  /** APIServices that are told the authority. */
  apiServices: z.array(name).default([]),
});

/** Which Secrets are filled, and with what. */
export type CredentialsRequest = z.infer<typeof requestSchema>;

/** @throws WeirError BadCredentialsRequest naming the file and the field */
export async function readRequest(file: string): Promise<CredentialsRequest> {
  try {
    return requestSchema.parse(parse(await readFile(file, 'utf8')));
  } catch (error) {
    const wrong =
      error instanceof z.ZodError
        ? error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ')
        : messageOf(error);
    const words = `${file} cannot be used (${wrong}): it is a YAML file that the chart writes (ConfigMap NAME-credentials)`;
    throw new WeirError('BadCredentialsRequest', words, { where: file, cause: error });
  }
}
