import { pino, type DestinationStream, type Logger } from 'pino';
import { PinoPretty as pretty } from 'pino-pretty';

export type { Logger };

/** Options of {@link createLogger}. */
export interface LogOptions {
  /** Name of the program, on every line. */
  name: string;
  /** trace, debug, info, warn, error or silent. Default info. */
  level?: string;
  /** json for machines (default), text for people. */
  format?: 'json' | 'text';
  destination?: DestinationStream;
}

/**
 * Logger of one process. Fields in use everywhere: `room` (uid), `roomName`, `node`, `participant` (identity), `epoch`, `err`.
 * Tokens, keys and transport dumps (they hold SRTP keys) are never logged.
 */
export function createLogger(options: LogOptions): Logger {
  const settings = {
    name: options.name,
    level: options.level ?? 'info',
    base: { name: options.name },
    redact: { paths: ['token', 'access_token', '*.access_token', 'apiSecret', '*.apiSecret'], censor: '[secret]' },
  };
  if (options.format === 'text') {
    const look = { colorize: process.stdout.isTTY, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l' };
    return pino(settings, pretty({ ...look, sync: true }));
  }
  return options.destination ? pino(settings, options.destination) : pino(settings);
}
