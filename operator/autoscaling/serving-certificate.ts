import { X509Certificate, createPrivateKey } from 'node:crypto';
import { unwatchFile, watchFile } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Clock } from '#platform/clock.ts';
import { messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';

/** Files are looked at this often, milliseconds. */
const refreshMs = 5000;

/** Files of the metrics API's certificate and key, PEM. */
export interface ServingFiles {
  certFile: string;
  keyFile: string;
}

/** A certificate and its key, PEM. */
export interface ServingPair {
  cert: Buffer;
  key: Buffer;
}

/** A server's certificate and key from files, read again when they change; what is wrong then is not taken up. */
export class ServingCertificate {
  readonly #files: ServingFiles;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #onChange: () => void;
  readonly #look = () => void this.#reload();
  #pair: ServingPair;

  /** @throws WeirError BadTlsFiles naming the file that is missing or wrong */
  static async create(options: {
    files: ServingFiles;
    /** Called when there is another pair. */
    onChange: () => void;
    clock: Clock;
    log: Logger;
  }): Promise<ServingCertificate> {
    return new ServingCertificate(options, await load(options.files));
  }

  private constructor(
    { files, onChange, clock, log }: { files: ServingFiles; onChange: () => void; clock: Clock; log: Logger },
    pair: ServingPair,
  ) {
    this.#files = files;
    this.#clock = clock;
    this.#log = log;
    this.#onChange = onChange;
    this.#pair = pair;
    this.#warnIfExpired();
    for (const file of [files.certFile, files.keyFile]) {
      watchFile(file, { interval: refreshMs, persistent: false }, this.#look);
    }
  }

  get pair(): ServingPair {
    return this.#pair;
  }

  close(): void {
    for (const file of [this.#files.certFile, this.#files.keyFile]) unwatchFile(file, this.#look);
  }

  async #reload(): Promise<void> {
    try {
      this.#pair = await load(this.#files);
    } catch (error) {
      const fields = { reason: messageOf(error) };
      return this.#log.warn(fields, "The metrics API's changed certificate is wrong; the earlier one stays in use");
    }
    this.#log.info("The metrics API's certificate was read again");
    this.#warnIfExpired();
    this.#onChange();
  }

  #warnIfExpired(): void {
    const { validTo } = new X509Certificate(this.#pair.cert);
    if (Date.parse(validTo) > this.#clock.now()) return;
    this.#log.warn({ validTo }, "The metrics API's certificate has expired: the API server refuses it; renew it");
  }
}

async function load({ certFile, keyFile }: ServingFiles): Promise<ServingPair> {
  const [cert, key] = await Promise.all([
    read('WEIR_METRICS_API_CERT_FILE', certFile, (pem) => new X509Certificate(pem)),
    read('WEIR_METRICS_API_KEY_FILE', keyFile, (pem) => createPrivateKey(pem)),
  ]);
  // Renewal replaces two files one after the other.
  if (new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) return { cert, key };
  const words = 'the key in WEIR_METRICS_API_KEY_FILE does not belong to the certificate in WEIR_METRICS_API_CERT_FILE';
  throw new WeirError('BadTlsFiles', words, { where: keyFile });
}

async function read(variable: string, file: string, parse: (pem: Buffer) => unknown): Promise<Buffer> {
  try {
    const pem = await readFile(file);
    parse(pem);
    return pem;
  } catch (error) {
    const words = `${variable}=${file} cannot be used (${messageOf(error)}): give it a PEM file`;
    throw new WeirError('BadTlsFiles', words, { where: file, cause: error });
  }
}
