import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { pino } from 'pino';
import { systemClock as clock } from '#platform/clock.ts';
import { codeOf, messageOf } from '#platform/errors.ts';
import { LocalAuthority } from '#tools/local/certificates.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';
import { ServingCertificate, type ServingFiles } from './serving-certificate.ts';

const dir = temporaryDirectory('serving');
const authority = await LocalAuthority.create('metrics');
const server = { subject: 'CN=metrics', names: ['metrics.weir.svc'], usage: 'server' } as const;

/** What is logged while the files are used; they are let go with the test. */
async function use(t: TestContext, files: ServingFiles): Promise<string[]> {
  const logged: string[] = [];
  const log = pino({}, { write: (line: string) => void logged.push((JSON.parse(line) as { msg: string }).msg) });
  const certificate = await ServingCertificate.create({ files, onChange: () => undefined, clock, log });
  t.after(() => certificate.close());
  return logged;
}

test('a good certificate is used without a word', async (t) => {
  assert.deepEqual(await use(t, await authority.issueFiles(dir, 'good', server)), []);
});

test('a certificate that has expired is told of at the start', async (t) => {
  const [line] = await use(t, await authority.issueFiles(dir, 'old', { ...server, days: -0.5 }));
  assert.match(line ?? '', /WEIR_METRICS_API_CERT_FILE ended at .*Renew it/);
});

test('what is missing, no PEM or does not fit together is refused with the variable and the file', async (t) => {
  const good = await authority.issueFiles(dir, 'one', server);
  const other = await authority.issueFiles(dir, 'other', server);
  const text = join(dir, 'text.pem');
  await writeFile(text, 'hello');
  for (const [files, words] of [
    [{ ...good, certFile: join(dir, 'nowhere.crt') }, /WEIR_METRICS_API_CERT_FILE=.*nowhere\.crt/],
    [{ ...good, keyFile: text }, /WEIR_METRICS_API_KEY_FILE=.*text\.pem/],
    [{ ...good, keyFile: other.keyFile }, /does not belong to the certificate/],
  ] as const) {
    await assert.rejects(use(t, files), (error) => codeOf(error) === 'BadTlsFiles' && words.test(messageOf(error)));
  }
});
