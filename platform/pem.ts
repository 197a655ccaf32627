import { X509Certificate, createPrivateKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { messageOf, WeirError } from './errors.ts';

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
