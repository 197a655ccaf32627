import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';
import { z } from 'zod';
import { messageOf, WeirError } from '#platform/errors.ts';
import { followFiles } from '#platform/follow-files.ts';
import type { Logger } from '#platform/log.ts';

/** One API key of the fleet. */
export interface ApiKey {
  readonly key: string;
  readonly secret: Uint8Array;
  /** A first join to a room that nobody made makes the Room object. */
  readonly createRooms: boolean;
}

/** Shorter secrets can be guessed from one captured token (HS256, RFC 7518 3.2 asks for 32 bytes). */
const MIN_SECRET_BYTES = 32;

const fileSchema = z.array(
  z.object({ key: z.string().min(1), secret: z.string().min(1), createRooms: z.boolean().default(false) }),
);

/**
 * Keys from the text of a key file: a YAML list of {key, secret, createRooms}.
 * @throws WeirError BadApiKeys naming the file and what is wrong; secrets are never in it
 */
export function parseApiKeys(text: string, file: string, log?: Logger): Map<string, ApiKey> {
  let document: unknown;
  try {
    document = parse(text);
  } catch {
    throw new WeirError('BadApiKeys', `${file} is no YAML: write a list of {key, secret, createRooms}`, {
      where: file,
    });
  }
  const parsed = fileSchema.safeParse(document);
  if (!parsed.success) {
    const wrong = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'file'}: ${issue.message}`).join('; ');
    const words = `${file}: ${wrong}; write a list of {key, secret, createRooms}`;
    throw new WeirError('BadApiKeys', words, { where: file });
  }
  const keys = new Map<string, ApiKey>();
  for (const { key, secret, createRooms } of parsed.data) {
    if (keys.has(key)) throw new WeirError('BadApiKeys', `${file}: key ${key} stands there twice`, { where: file });
    const bytes = new TextEncoder().encode(secret);
    if (bytes.length < MIN_SECRET_BYTES) {
      log?.warn({ apiKey: key }, `secret of an API key is shorter than ${MIN_SECRET_BYTES} bytes: make a longer one`);
    }
    keys.set(key, { key, secret: bytes, createRooms });
  }
  return keys;
}

/** The API keys of a file, read again when it changes; a file that became wrong keeps the keys that were. */
export class ApiKeys {
  #keys: Map<string, ApiKey>;
  readonly #end: () => void;

  /** @throws WeirError BadApiKeys when the file is missing or wrong at the start */
  static async create(file: string, log: Logger): Promise<ApiKeys> {
    return new ApiKeys(file, await load(file, log), log);
  }

  private constructor(file: string, keys: Map<string, ApiKey>, log: Logger) {
    this.#keys = keys;
    this.#end = followFiles({
      files: [file],
      intervalMs: 2000,
      load: () => load(file, log),
      taken: (next) => {
        this.#keys = next;
        log.info({ keys: next.size }, 'API keys read again');
      },
      wrong: (error) => log.error({ err: error }, 'API keys are wrong; the earlier ones stay in use'),
    });
  }

  get(key: string): ApiKey | undefined {
    return this.#keys.get(key);
  }

  close(): void {
    this.#end();
  }
}

async function load(file: string, log: Logger): Promise<Map<string, ApiKey>> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    const words = `${file} cannot be read (${messageOf(error)}): set WEIR_API_KEYS_FILE to a YAML list of {key, secret, createRooms}`;
    throw new WeirError('BadApiKeys', words, { where: file, cause: error });
  });
  return parseApiKeys(text, file, log);
}
