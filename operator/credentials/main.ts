/** Fills the Secrets of a release, and ends. The chart runs it as a Job, and daily. */
import { systemClock as clock } from '#platform/clock.ts';
import { codeOf, messageOf } from '#platform/errors.ts';
import { createLogger } from '#platform/log.ts';
import { loadKubeConfig } from '../runtime/kube.ts';
import { readCredentialsConfig, readRequest } from './config.ts';
import { provideCredentials } from './credentials.ts';

try {
  const config = readCredentialsConfig(process.env);
  const log = createLogger({ name: 'credentials', ...config.log });
  const request = await readRequest(config.file);
  await provideCredentials({ request, kubeConfig: loadKubeConfig(), clock, log });
  process.exit(0);
} catch (error) {
  process.stderr.write(`credentials: ${codeOf(error)}: ${messageOf(error)}\n`);
  process.exit(1);
}
