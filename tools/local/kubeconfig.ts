import { writeFile } from 'node:fs/promises';
import { stringify } from 'yaml';

/** What a kubeconfig of one cluster and one user says. */
export interface KubeconfigOptions {
  server: string;
  ca: string;
  certificate: string;
  key: string;
  user?: string;
  namespace?: string;
}

/** Writes a kubeconfig with everything embedded, readable by its owner alone. */
export async function writeKubeconfig(file: string, options: KubeconfigOptions): Promise<void> {
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  const user = options.user ?? 'admin';
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'weir', cluster: { server: options.server, 'certificate-authority-data': base64(options.ca) } }],
    users: [
      {
        name: user,
        user: {
          'client-certificate-data': base64(options.certificate),
          'client-key-data': base64(options.key),
        },
      },
    ],
    contexts: [{ name: 'weir', context: { cluster: 'weir', user, namespace: options.namespace ?? 'default' } }],
    'current-context': 'weir',
  };
  await writeFile(file, stringify(config), { mode: 0o600 });
}
