import { createHmac } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { ICEServer } from '@livekit/protocol';
import type { Clock } from '#platform/clock.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import { followFiles } from '#platform/follow-files.ts';
import type { Logger } from '#platform/log.ts';

/** TURN servers that know a secret of ours. */
export interface TurnOptions {
  urls: readonly string[];
  /** File of the shared secret. */
  secretFile: string;
  /** How long the credentials of a client are good, seconds. */
  ttlSeconds: number;
}

/**
 * User name and password that a TURN server takes until they end: the "TURN REST API" of coturn (use-auth-secret) and
 * STUNner, draft-uberti-behave-turn-rest-00.
 * @param expiresAt seconds since the epoch
 */
export function turnCredentials(
  secret: string,
  identity: string,
  expiresAt: number,
): { username: string; credential: string } {
  const username = `${expiresAt}:${identity}`;
  return { username, credential: createHmac('sha1', secret).update(username).digest('base64') };
}

/** What clients are told of TURN servers. The secret is read again when its file changes. */
export class TurnServers {
  readonly #options: TurnOptions;
  readonly #clock: Clock;
  readonly #end: () => void;
  #secret: string;

  /** @throws WeirError BadTurnSecret when the file is missing or empty at the start */
  static async create(options: TurnOptions, clock: Clock, log: Logger): Promise<TurnServers> {
    return new TurnServers(options, await load(options.secretFile), clock, log);
  }

  private constructor(options: TurnOptions, secret: string, clock: Clock, log: Logger) {
    this.#options = options;
    this.#secret = secret;
    this.#clock = clock;
    this.#end = followFiles({
      files: [options.secretFile],
      intervalMs: 2000,
      load: () => load(options.secretFile),
      taken: (next) => {
        this.#secret = next;
        log.info('The secret of TURN servers was read again');
      },
      wrong: (error) => log.error({ err: error }, 'The secret of TURN servers is wrong; the earlier one stays in use'),
    });
  }

  /** The servers, with credentials for one client. */
  iceServers(identity: string): ICEServer[] {
    const { urls, ttlSeconds } = this.#options;
    const expiresAt = Math.floor(this.#clock.now() / 1000) + ttlSeconds;
    return [new ICEServer({ urls: [...urls], ...turnCredentials(this.#secret, identity, expiresAt) })];
  }

  close(): void {
    this.#end();
  }
}

async function load(file: string): Promise<string> {
  const secret = await readFile(file, 'utf8').catch((error: unknown) => {
    const words = `${file} cannot be read (${messageOf(error)}): set WEIR_TURN_SECRET_FILE to the file of the secret that the TURN servers share`;
    throw new WeirError('BadTurnSecret', words, { where: file, cause: error });
  });
  if (secret.trim() !== '') return secret.trim();
  const words = `${file} is empty: write the secret that the TURN servers share (static-auth-secret of coturn)`;
  throw new WeirError('BadTurnSecret', words, { where: file });
}
