import { join } from 'node:path';
import { projectRoot } from '#tools/local/leftovers.ts';
import { provideGoPrograms, type GoModule } from './go-programs.ts';

/** Version that go.mod pins; stamped into the binaries, or clients cannot tell what they talk to. */
const kubernetes = { version: 'v1.36.3', major: '1', minor: '36' };
const stamp = 'k8s.io/component-base/version';
const ldflags = [
  '-s -w',
  `-X ${stamp}.gitVersion=${kubernetes.version}`,
  `-X ${stamp}.gitMajor=${kubernetes.major}`,
  `-X ${stamp}.gitMinor=${kubernetes.minor}`,
].join(' ');

// Selectable fields of custom resources came with Kubernetes 1.31.
const kube = {
  version: /^(?:Kubernetes|Client Version:) v(\d+)\.(\d+)\.\d+(?![\w.]|-(?!eks|gke|k3s))/m,
  atLeast: [1, 31],
} as const;

const module = {
  source: join(projectRoot, 'tools/controlplane'),
  inputs: ['go.mod', 'go.sum'],
  ldflags,
};

const controlPlane = {
  ...module,
  duration: '5 to 10 minutes',
  programs: {
    etcd: {
      package: 'go.etcd.io/etcd/server/v3',
      versionArgs: ['--version'],
      version: /etcd Version: (\d+)\.(\d+)/,
      atLeast: [3, 5],
    },
    'kube-apiserver': { package: 'k8s.io/kubernetes/cmd/kube-apiserver', versionArgs: ['--version'], ...kube },
    'kube-controller-manager': {
      package: 'k8s.io/kubernetes/cmd/kube-controller-manager',
      versionArgs: ['--version'],
      ...kube,
    },
    kubectl: { package: 'k8s.io/kubernetes/cmd/kubectl', versionArgs: ['version', '--client'], ...kube },
    'nats-server': {
      package: 'github.com/nats-io/nats-server/v2',
      versionArgs: ['--version'],
      version: /v(\d+)\.(\d+)\.\d+/,
      atLeast: [2, 10],
    },
  },
} as const satisfies GoModule<string>;

/** What Kubernetes runs beside its API, of the same module and version. */
export const kubernetesNode = {
  ...module,
  duration: '2 to 4 minutes',
  programs: {
    kubelet: { package: 'k8s.io/kubernetes/cmd/kubelet', versionArgs: ['--version'], ...kube },
    'kube-proxy': { package: 'k8s.io/kubernetes/cmd/kube-proxy', versionArgs: ['--version'], ...kube },
    'kube-scheduler': { package: 'k8s.io/kubernetes/cmd/kube-scheduler', versionArgs: ['--version'], ...kube },
  },
} as const satisfies GoModule<string>;

/**
 * Finds or builds the programs of the local control plane.
 *
 * @returns absolute paths by name.
 */
export async function provideControlPlane(): Promise<Record<keyof typeof controlPlane.programs, string>> {
  return await provideGoPrograms(controlPlane);
}
