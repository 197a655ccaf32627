import { request } from 'node:https';

/** Material of a TLS client, PEM. */
export interface ClientTls {
  ca: string;
  cert: string;
  key: string;
}

/** GET over TLS with a client certificate; the status and the body as text. */
export async function httpsGet(
  url: string,
  tls: ClientTls,
  timeoutMs = 2000,
): Promise<{ status: number; body: string }> {
  return await new Promise((resolve, reject) => {
    const call = request(url, { ...tls, agent: false, timeout: timeoutMs }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.once('error', reject);
      response.once('end', () =>
        resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') }),
      );
    });
    call.once('timeout', () => call.destroy(new Error(`no answer in ${timeoutMs} ms`)));
    call.once('error', reject);
    call.end();
  });
}
