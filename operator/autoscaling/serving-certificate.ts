import type { Clock } from '#platform/clock.ts';
import { messageOf } from '#platform/errors.ts';
import { followFiles } from '#platform/follow-files.ts';
import type { Logger } from '#platform/log.ts';
import { ExpiryWatch, readKeyPair, type KeyPair } from '#platform/pem.ts';

/** Files are looked at this often, milliseconds. */
const refreshMs = 5000;

/** Files of the metrics API's certificate and key, PEM. */
export interface ServingFiles {
  certFile: string;
  keyFile: string;
}

export interface ServingOptions {
  files: ServingFiles;
  /** Called when there is another pair. */
  onChange: () => void;
  clock: Clock;
  log: Logger;
}

/** A server's certificate and key from files, read again when they change; what is wrong then is not taken up. */
export class ServingCertificate {
  readonly #expiry: ExpiryWatch;
  readonly #unfollow: () => void;
  #pair: KeyPair;

  /** @throws WeirError BadTlsFiles naming the file that is missing or wrong */
  static async create(options: ServingOptions): Promise<ServingCertificate> {
    return new ServingCertificate(options, await load(options.files));
  }

  private constructor({ files, onChange, clock, log }: ServingOptions, pair: KeyPair) {
    this.#pair = pair;
    const certificate = () => this.#pair.certificate;
    this.#expiry = new ExpiryWatch({ certificate, variable: 'WEIR_METRICS_API_CERT_FILE', clock, log });
    this.#unfollow = followFiles({
      files: [files.certFile, files.keyFile],
      intervalMs: refreshMs,
      load: () => load(files),
      taken: (next) => {
        this.#pair = next;
        log.info("The metrics API's certificate was read again");
        this.#expiry.look();
        onChange();
      },
      wrong: (error) => {
        const fields = { reason: messageOf(error) };
        log.warn(fields, "The metrics API's changed certificate is wrong; the earlier one stays in use");
      },
    });
  }

  get pair(): KeyPair {
    return this.#pair;
  }

  close(): void {
    this.#unfollow();
    this.#expiry.close();
  }
}

function load({ certFile, keyFile }: ServingFiles): Promise<KeyPair> {
  return readKeyPair(
    { name: 'WEIR_METRICS_API_CERT_FILE', file: certFile },
    { name: 'WEIR_METRICS_API_KEY_FILE', file: keyFile },
  );
}
