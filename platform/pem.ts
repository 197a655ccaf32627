import { X509Certificate, createPrivateKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Clock } from './clock.ts';
import { messageOf, WeirError } from './errors.ts';
import type { Logger } from './log.ts';

/** A setting that names a file. */
export interface FileSetting {
  /** The environment variable. */
  readonly name: string;
  readonly file: string;
}

/** A certificate and its key, PEM. */
export interface KeyPair {
  readonly certificate: Buffer;
  readonly key: Buffer;
}

/**
 * A certificate and its key from two files.
 * @throws WeirError BadTlsFiles naming the file that is missing or wrong, or when they do not belong together
 */
export async function readKeyPair(certSetting: FileSetting, keySetting: FileSetting): Promise<KeyPair> {
  const [certificate, key] = await Promise.all([
    readPem(certSetting.name, certSetting.file, (pem) => new X509Certificate(pem)),
    readPem(keySetting.name, keySetting.file, (pem) => createPrivateKey(pem)),
  ]);
  // Renewal replaces two files one after the other.
  if (new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key))) return { certificate, key };
  const words = `the key in ${keySetting.name} does not belong to the certificate in ${certSetting.name}`;
  throw new WeirError('BadTlsFiles', words, { where: keySetting.file });
}

/**
 * From so long before its end on, or a sixth of its life if that is less, a certificate is told of: nothing has renewed it.
 * Milliseconds.
 */
const tellBeforeMs = 7 * 24 * 3600 * 1000;

/** Certificates are looked at this often for that, milliseconds. */
const tellEveryMs = 3_600_000;

/** When a certificate ends, milliseconds since the epoch. */
export function endOf(certificate: Buffer): number {
  return new X509Certificate(certificate).validToDate.getTime();
}

/** What is wrong with the time that a certificate is good for, with code CertificateExpired; undefined when nothing is. */
export function expiryProblem(certificate: Buffer, variable: string, now: number): WeirError | undefined {
  const end = endOf(certificate);
  const life = end - new X509Certificate(certificate).validFromDate.getTime();
  if (end - now > Math.min(tellBeforeMs, life / 6)) return undefined;
  const state = end > now ? 'ends' : 'ended';
  const words = `the certificate in ${variable} ${state} at ${new Date(end).toISOString()} and was not renewed: others refuse it from then on. Renew it; with certificates of the chart: kubectl create job --from=cronjob/weir-credentials renew-now`;
  return new WeirError('CertificateExpired', words, { where: variable });
}

/** Logs what is wrong with the time that a certificate is good for: now, every hour, and when it is told to look. */
export class ExpiryWatch {
  readonly #look: () => void;
  #cancel: () => void = () => undefined;

  /**
   * @param options.certificate the one in use
   * @param options.variable the setting that names its file
   */
  constructor(options: { certificate: () => Buffer; variable: string; clock: Clock; log: Logger }) {
    const { certificate, variable, clock, log } = options;
    this.#look = () => {
      const problem = expiryProblem(certificate(), variable, clock.now());
      if (problem) log.error({ code: problem.code }, problem.message);
      this.#cancel();
      this.#cancel = clock.after(tellEveryMs, this.#look);
    };
    this.#look();
  }

  /** There is another certificate. */
  look(): void {
    this.#look();
  }

  close(): void {
    this.#cancel();
  }
}

/**
 * A PEM file that `parse` can read.
 * @throws WeirError BadTlsFiles naming the variable and the file
 */
export async function readPem(variable: string, file: string, parse: (pem: Buffer) => unknown): Promise<Buffer> {
  try {
    const pem = await readFile(file);
    parse(pem);
    return pem;
  } catch (error) {
    const words = `${variable}=${file} cannot be used (${messageOf(error)}): give it a PEM file`;
    throw new WeirError('BadTlsFiles', words, { where: file, cause: error });
  }
}
