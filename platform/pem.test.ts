import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Authority } from './authority.ts';
import { endOf, expiryProblem } from './pem.ts';

const dayMs = 24 * 3600 * 1000;

test('a certificate is told of from a week before its end, with its end, its variable and what to do', async () => {
  const now = () => Date.parse('2030-01-01T00:00:00Z');
  const authority = await Authority.create({ commonName: 'fleet', days: 100, now });
  const { certificate } = await authority.issue({ subject: 'CN=node', days: 90 });
  const pem = Buffer.from(certificate);
  const end = endOf(pem);
  assert.equal(end, now() + 90 * dayMs);
  const at = (ms: number) => expiryProblem(pem, 'WEIR_TLS_CERT_FILE', end + ms);
  assert.equal(at(-8 * dayMs), undefined);
  assert.match(
    at(-6 * dayMs)?.message ?? '',
    /WEIR_TLS_CERT_FILE ends at 2030-04-01T00:00:00.000Z.*kubectl create job/,
  );
  assert.match(at(1)?.message ?? '', /ended at 2030-04-01/);
  assert.equal(at(1)?.code, 'CertificateExpired');
  const short = Buffer.from((await authority.issue({ subject: 'CN=node', days: 5 })).certificate);
  const beforeEnd = (ms: number) => expiryProblem(short, 'WEIR_TLS_CERT_FILE', endOf(short) - ms);
  assert.equal(beforeEnd(2 * dayMs), undefined, 'it is renewed with a third of its life left');
  assert.ok(beforeEnd(0.9 * dayMs));
});
