import { randomBytes } from 'node:crypto';
import type { KubeConfig } from '@kubernetes/client-node';
import { stringify } from 'yaml';
import { Authority, type Credentials } from '#platform/authority.ts';
import type { Clock } from '#platform/clock.ts';
import type { Logger } from '#platform/log.ts';
import { ResourceClient } from '../runtime/kube.ts';
import type { CredentialsRequest } from './config.ts';
import { planAuthority, whyRenew } from './plan.ts';
import { authorityFacts, certificateFacts, Secret } from './secret.ts';

/** How long an authority is good, days. */
const authorityDays = 3650;

/** Options of {@link provideCredentials}. */
export interface CredentialsOptions {
  request: CredentialsRequest;
  kubeConfig: KubeConfig;
  clock: Clock;
  log: Logger;
}

/**
 * Fills the Secrets of a release with what they lack, and renews certificates whose time comes. What is there and good
 * stays, so it may run at any time and as often as one likes.
 * @throws WeirError SecretMissing, KubeApiError
 */
export async function provideCredentials(options: CredentialsOptions): Promise<void> {
  const { request } = options;
  if (request.passwords) await providePasswords(options, request.passwords);
  if (request.apiKeys) await provideApiKey(options, request.apiKeys.secret);
  if (!request.authority) return;
  const { authority, trusted } = await provideAuthority(options, request.authority.secret);
  for (const wanted of request.certificates) await provideCertificate(options, wanted, authority, trusted);
  for (const name of request.apiServices) await tellApiService(options, name, trusted.join(''));
}

/** The authority that signs, and the certificates of those that are trusted. */
async function provideAuthority(
  { request, kubeConfig, clock, log }: CredentialsOptions,
  name: string,
): Promise<{ authority: Authority; trusted: string[] }> {
  const secret = await Secret.read(kubeConfig, request.namespace, name);
  const now = () => clock.now();
  const current = credentialsOf(secret, 'tls');
  const next = credentialsOf(secret, 'next');
  const step = planAuthority(authorityFacts(current?.certificate), authorityFacts(next?.certificate), now());
  if (step.do !== 'keep') log.info({ secret: name, step: step.do, reason: step.reason }, 'The authority changes');
  const create = () => Authority.create({ commonName: name, days: authorityDays, now });
  const authority =
    step.do === 'create' || !current
      ? await create()
      : await Authority.load(step.do === 'promote' && next ? next : current, now);
  const coming = step.do === 'announce' ? (await create()).credentials : step.do === 'keep' ? next : undefined;
  const old = step.do === 'promote' ? current?.certificate : undefined;
  const trusted = trustedNow([authority.credentials.certificate, coming?.certificate, old], secret, clock.now());
  await secret.write({
    'tls.crt': authority.credentials.certificate,
    'tls.key': authority.credentials.key,
    'next.crt': coming?.certificate,
    'next.key': coming?.key,
    'ca.crt': trusted.join(''),
  });
  return { authority, trusted };
}

/** These and those that were trusted before, until they end; each once. */
function trustedNow(certificates: readonly (string | undefined)[], secret: Secret, now: number): string[] {
  const before = secret.data['ca.crt']?.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n?/g) ?? [];
  const all = [...certificates, ...before].filter((pem) => pem !== undefined).map((pem) => `${pem.trim()}\n`);
  return [...new Set(all)].filter((pem) => (authorityFacts(pem)?.notAfter ?? 0) > now);
}

async function provideCertificate(
  { request, kubeConfig, clock, log }: CredentialsOptions,
  wanted: CredentialsRequest['certificates'][number],
  authority: Authority,
  trusted: readonly string[],
): Promise<void> {
  const secret = await Secret.read(kubeConfig, request.namespace, wanted.secret);
  const present = certificateFacts(secret.data['tls.crt'], secret.data['tls.key'], trusted);
  const signer = authorityFacts(authority.credentials.certificate)?.fingerprint ?? '';
  const reason = whyRenew(wanted, present, signer, clock.now());
  const ca = { 'ca.crt': trusted.join('') };
  if (reason === undefined) {
    await secret.write(ca);
    return;
  }
  const { certificate, key } = await authority.issue({ ...wanted });
  await secret.write({ ...ca, 'tls.crt': certificate, 'tls.key': key });
  log.info({ secret: wanted.secret, reason, days: wanted.days }, 'A certificate was made');
}

/** Passwords that are there stay: the programs that use them read them at their start. */
async function providePasswords(
  { request, kubeConfig, log }: CredentialsOptions,
  wanted: NonNullable<CredentialsRequest['passwords']>,
): Promise<void> {
  const secret = await Secret.read(kubeConfig, request.namespace, wanted.secret);
  const missing = wanted.keys.filter((key) => !secret.data[key]);
  await secret.write(Object.fromEntries(missing.map((key) => [key, randomBytes(24).toString('hex')])));
  if (missing.length > 0) log.info({ secret: wanted.secret, keys: missing }, 'Passwords were made');
}

async function provideApiKey({ request, kubeConfig, log }: CredentialsOptions, name: string): Promise<void> {
  const secret = await Secret.read(kubeConfig, request.namespace, name);
  if (secret.data['keys.yaml']) return;
  const key = {
    key: `key-${randomBytes(6).toString('hex')}`,
    secret: randomBytes(32).toString('hex'),
    createRooms: true,
  };
  await secret.write({ 'keys.yaml': stringify([key]) });
  log.info({ secret: name, apiKey: key.key }, 'An API key was made');
}

/** Tells the API server by which authority it knows an aggregated API. */
async function tellApiService({ kubeConfig, log }: CredentialsOptions, name: string, ca: string): Promise<void> {
  const resource = { group: 'apiregistration.k8s.io', version: 'v1', plural: 'apiservices' };
  const client = new ResourceClient<{ metadata: { name: string }; spec: { caBundle?: string } }>({
    ...resource,
    kubeConfig,
  });
  const caBundle = Buffer.from(ca).toString('base64');
  if ((await client.get(name)).spec.caBundle === caBundle) return;
  await client.patchMerge(name, undefined, { spec: { caBundle } });
  log.info({ apiService: name }, 'The API server was told the authority');
}

function credentialsOf(secret: Secret, prefix: string): Credentials | undefined {
  const [certificate, key] = [secret.data[`${prefix}.crt`], secret.data[`${prefix}.key`]];
  return certificate && key ? { certificate, key } : undefined;
}
