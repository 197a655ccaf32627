import { unwatchFile, watchFile } from 'node:fs';
import type { Clock } from '#platform/clock.ts';
import { messageOf } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { expiryProblem, readKeyPair, type KeyPair } from '#platform/pem.ts';

/** Files are looked at this often, milliseconds. */
const refreshMs = 5000;

/** Files of the metrics API's certificate and key, PEM. */
export interface ServingFiles {
  certFile: string;
  keyFile: string;
}

/** A server's certificate and key from files, read again when they change; what is wrong then is not taken up. */
export class ServingCertificate {
  readonly #files: ServingFiles;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #onChange: () => void;
  readonly #look = () => void this.#reload();
  #pair: KeyPair;

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
    pair: KeyPair,
  ) {
    this.#files = files;
    this.#clock = clock;
    this.#log = log;
    this.#onChange = onChange;
    this.#pair = pair;
    this.#tellExpiry();
    for (const file of [files.certFile, files.keyFile]) {
      watchFile(file, { interval: refreshMs, persistent: false }, this.#look);
    }
  }

  get pair(): KeyPair {
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
    this.#tellExpiry();
    this.#onChange();
  }

  #tellExpiry(): void {
    const problem = expiryProblem(this.#pair.certificate, 'WEIR_METRICS_API_CERT_FILE', this.#clock.now());
    if (problem) this.#log.error({ code: problem.code }, problem.message);
  }
}

function load({ certFile, keyFile }: ServingFiles): Promise<KeyPair> {
  return readKeyPair(
    { name: 'WEIR_METRICS_API_CERT_FILE', file: certFile },
    { name: 'WEIR_METRICS_API_KEY_FILE', file: keyFile },
  );
}
