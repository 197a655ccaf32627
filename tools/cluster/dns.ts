import { Resolver } from 'node:dns/promises';
import { writeFile } from 'node:fs/promises';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import type { LocalControlPlane } from '#tools/local/control-plane.ts';
import { hostPort } from '#tools/local/ports.ts';
import { LocalProcess } from '#tools/local/process.ts';

/** CoreDNS on the host's address in the cluster's network: names of Services and pods, and the machine's own resolver. */
export async function startDns(options: {
  dir: string;
  /** Where it listens. */
  addresses: readonly [string, ...string[]];
  command: string;
  plane: LocalControlPlane;
}): Promise<LocalProcess> {
  const { dir, addresses, command, plane } = options;
  const file = join(dir, 'Corefile');
  await writeFile(
    file,
    `.:53 {
  bind ${addresses.join(' ')}
  errors
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    kubeconfig ${plane.kubeconfigPath}
    fallthrough in-addr.arpa ip6.arpa
  }
  forward . /etc/resolv.conf
  cache 5
}
`,
  );
  const resolver = new Resolver({ timeout: 500, tries: 1 });
  resolver.setServers([hostPort(addresses[0], 53)]);
  return await LocalProcess.start({
    name: 'coredns',
    command,
    args: ['-conf', file],
    cwd: dir,
    logFile: join(dir, 'coredns.log'),
    ready: async () => {
      const name = 'kubernetes.default.svc.cluster.local';
      const found = await (isIPv6(addresses[0]) ? resolver.resolve6(name) : resolver.resolve4(name));
      return found.length > 0;
    },
  });
}
