import { isIP } from 'node:net';
import { z } from 'zod';
import { WeirError } from './errors.ts';

/**
 * Reads a process's settings from its environment. Each key of `shape` is the name of a variable; an empty variable
 * counts as absent, so that a chart may pass all of them.
 * @throws WeirError BadConfiguration that names every wrong variable and what it wants
 */
export function readConfig<S extends z.ZodRawShape>(
  shape: S,
  env: Readonly<Record<string, string | undefined>>,
): z.infer<z.ZodObject<S>> {
  const given = Object.fromEntries(
    Object.keys(shape)
      .map((name) => [name, env[name]] as const)
      .filter(([, value]) => value !== undefined && value !== ''),
  );
  const parsed = z.object(shape).safeParse(given);
  if (parsed.success) return parsed.data;
  const wrong = parsed.error.issues.map((issue) => {
    const name = String(issue.path[0] ?? '');
    return given[name] === undefined ? `${name} is not set: ${wants(shape, name, issue)}` : `${name}: ${issue.message}`;
  });
  throw new WeirError('BadConfiguration', [...new Set(wrong)].join('; '), { where: 'environment' });
}

function wants(shape: z.ZodRawShape, name: string, issue: z.core.$ZodIssue): string {
  const field = shape[name];
  return (field instanceof z.ZodType ? field.description : undefined) ?? issue.message;
}

/** host:port. The port may be 0 for a free one. */
export interface ListenAddress {
  host: string;
  port: number;
}

/** Field kinds that both programs use; their messages say what to write. */
export const fields = {
  text: (what: string) => z.string().describe(`write ${what}`),
  /** host:port or [v6]:port. */
  listen: (what: string) =>
    z
      .string()
      .describe(`write host:port, ${what}; port 0 takes a free one`)
      .transform((value, context): ListenAddress => {
        const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(value);
        const port = Number(match?.[3]);
        if (!match || port > 65535) {
          context.addIssue({ code: 'custom', message: `"${value}" is no host:port; write for example 127.0.0.1:7880` });
          return z.NEVER;
        }
        return { host: match[1] ?? (match[2] || '0.0.0.0'), port };
      }),
  /** A whole number within [min, max]. */
  integer: (min: number, max: number) =>
    z
      .string()
      .describe(`write a whole number from ${min} to ${max}`)
      .transform((value, context): number => {
        const number = Number(value);
        if (!/^\d+$/.test(value) || number < min || number > max) {
          context.addIssue({ code: 'custom', message: `"${value}" is no whole number from ${min} to ${max}` });
          return z.NEVER;
        }
        return number;
      }),
  /** An IPv4 or IPv6 address. */
  ip: (what: string) =>
    z
      .string()
      .describe(`write ${what}`)
      .refine((value) => isIP(value) !== 0, {
        error: ({ input }) => `"${String(input)}" is no IP address; write ${what}`,
      }),
  /** "from-to", both included. */
  portRange: (what: string) =>
    z
      .string()
      .describe(`write from-to, ${what}`)
      .transform((value, context): { min: number; max: number } => {
        const [min = 0, max = 0] = (/^(\d{1,5})-(\d{1,5})$/.exec(value) ?? []).slice(1).map(Number);
        if (min < 1 || max < min || max > 65535) {
          const message = `"${value}" is no range of ports; write for example 20000-29999`;
          context.addIssue({ code: 'custom', message });
          return z.NEVER;
        }
        return { min, max };
      }),
  /** "a,b". */
  list: (what: string) =>
    z
      .string()
      .describe(`write ${what}`)
      .transform((value) =>
        value
          .split(',')
          .map((part) => part.trim())
          .filter((part) => part !== ''),
      ),
  /** "k=v,k=v". */
  pairs: () =>
    z
      .string()
      .describe('write key=value,key=value')
      .transform((value, context): Record<string, string> => {
        const pairs = value.split(',').filter((pair) => pair.trim() !== '');
        const wrong = pairs.find((pair) => !/^\s*[^=\s]+=[^=]*$/.test(pair));
        if (wrong !== undefined) {
          context.addIssue({ code: 'custom', message: `"${wrong}" is no key=value` });
          return z.NEVER;
        }
        return Object.fromEntries(
          pairs.map((pair) => [pair.slice(0, pair.indexOf('=')).trim(), pair.slice(pair.indexOf('=') + 1).trim()]),
        );
      }),
  logLevel: () => z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
  logFormat: () => z.enum(['json', 'text']).default('json'),
};

/** Settings that both programs have. */
export const commonShape = {
  WEIR_LOG_LEVEL: fields.logLevel(),
  WEIR_LOG_FORMAT: fields.logFormat(),
  WEIR_NATS_URL: fields.text('the URL of NATS, such as nats://nats:4222'),
  WEIR_NATS_USER: fields.text('the NATS user').optional(),
  WEIR_NATS_PASSWORD: fields.text("the NATS user's password").optional(),
  WEIR_NATS_CA_FILE: fields.text("the CA file of NATS's certificate").optional(),
  WEIR_TLS_CA_FILE: fields.text("the file of the fleet's certificate authority, PEM"),
  WEIR_TLS_CERT_FILE: fields.text("the file of this process's certificate, PEM"),
  WEIR_TLS_KEY_FILE: fields.text("the file of this process's private key, PEM"),
  WEIR_STATE_FILE: fields.text('a file to write the real addresses to').optional(),
};

/** What {@link commonShape} says, in the words of the code. */
export function commonConfig(values: z.infer<z.ZodObject<typeof commonShape>>) {
  return {
    log: { level: values.WEIR_LOG_LEVEL, format: values.WEIR_LOG_FORMAT },
    nats: {
      url: values.WEIR_NATS_URL,
      user: values.WEIR_NATS_USER,
      password: values.WEIR_NATS_PASSWORD,
      caFile: values.WEIR_NATS_CA_FILE,
    },
    tls: { caFile: values.WEIR_TLS_CA_FILE, certFile: values.WEIR_TLS_CERT_FILE, keyFile: values.WEIR_TLS_KEY_FILE },
    stateFile: values.WEIR_STATE_FILE,
  };
}

/** Files of mutual TLS, PEM: the fleet's authority, and the certificate and key of this process. */
export type TlsFiles = ReturnType<typeof commonConfig>['tls'];
