import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { projectRoot } from '#tools/local/leftovers.ts';
import {
  at,
  chart,
  find,
  helm,
  podTemplates,
  skip,
  template,
  templateText,
  variants,
  type Container,
  type Values,
} from './helm.ts';

const read = (path: string) => readFile(join(projectRoot, path), 'utf8');

interface Schema {
  type?: string | string[];
  description?: string;
  properties?: Record<string, Schema>;
  additionalProperties?: boolean | Schema;
  $ref?: string;
  $defs?: Record<string, Schema>;
}

async function readSchema(): Promise<Schema> {
  return JSON.parse(await read('helm/weir/values.schema.json')) as Schema;
}

/** Environment of a container by name; what comes from elsewhere as `<...>`. */
function environment(container: Container | undefined): Record<string, string> {
  return Object.fromEntries(
    (container?.env ?? []).map(({ name, value, valueFrom }) => [name, value ?? `<${JSON.stringify(valueFrom)}>`]),
  );
}

void describe('values', { skip }, () => {
  void it('every value has a description, and nothing that is described is missing from values.yaml', async () => {
    const schema = await readSchema();
    const values = parse(await read('helm/weir/values.yaml')) as Values;
    const resolve = (node: Schema): Schema =>
      node.$ref ? (schema.$defs?.[node.$ref.split('/').at(-1) ?? ''] ?? {}) : node;
    const check = (given: Schema, value: unknown, path: string) => {
      const node = resolve(given);
      assert.ok(node.description && node.description.length > 8, `${path} has no description`);
      if (!node.properties) return;
      assert.equal(node.additionalProperties, false, `${path} lets wrong names pass`);
      for (const [name, child] of Object.entries(node.properties)) {
        const next = value === undefined ? undefined : (value as Values)[name];
        const free = /(resources\.(requests|limits|claims)|global)$/.test(`${path}.${name}`);
        if (!free) assert.notEqual(next, undefined, `${path}.${name} is not in values.yaml`);
        check(child, next, `${path}.${name}`);
      }
    };
    check(schema, values, 'values');
  });

  const refused: [string, Values, RegExp][] = [
    ['a name that does not exist', { operators: {} }, /operators/],
    ['a wrong name deep inside', { sfuNode: { media: { anounce: 'PodIP' } } }, /anounce/],
    ['no workers', { sfuNode: { workers: 0 } }, /sfuNode\/workers/],
    ['a region that is no label', { pools: { eu: { region: 'EU West' } } }, /pools\/eu\/region/],
    ['an unknown way of announcing', { sfuNode: { media: { announce: 'Magic' } } }, /media\/announce/],
    ['two NATS servers', { nats: { replicas: 2 } }, /nats\/replicas/],
    ['an Ingress without a host', { signal: { ingress: { enabled: true } } }, /ingress\/host/],
    ['a TURN URL that is none', { turn: { urls: ['http://turn'] } }, /turn\/urls/],
    ['a public URL that is no WebSocket', { signal: { publicUrl: 'https://calls' } }, /signal\/publicUrl/],
    ['TURN without a secret', { turn: { urls: ['turn:turn'] } }, /turn\.existingSecret/],
    ['a fixed address that is missing', { sfuNode: { media: { announce: 'Fixed' } } }, /media\.address/],
    [
      'an address of the Node for a pod network',
      { sfuNode: { media: { announce: 'HostIP' } } },
      /HostPort or HostNetwork/,
    ],
    [
      'fewer pods at most than at least',
      { sfuNode: { autoscaling: { minReplicas: 5, maxReplicas: 2 } } },
      /minReplicas 5/,
    ],
    ['a drain longer than the grace period', { sfuNode: { drainSeconds: 60 } }, /drainSeconds 60/],
    ['an HPA without the metrics API', { metricsAPI: { enabled: false } }, /autoscaling\.mode HPA/],
    [
      'prometheus-adapter beside the metrics API',
      { sfuNode: { autoscaling: { mode: 'PrometheusAdapter' } } },
      /write metricsAPI\.enabled: false/,
    ],
    ['own certificates without the CA', { certificates: { mode: 'Existing' } }, /metricsAPI\.caBundle/],
  ];
  for (const [title, values, words] of refused) {
    void it(`${title}: is refused by name`, () => assert.rejects(template(values), words));
  }
});

void describe('the chart', { skip }, () => {
  for (const [title, values] of Object.entries(variants)) {
    void it(`renders ${title}, each object once, with the labels of the release`, async () => {
      const objects = await template(values);
      const names = objects.map(({ kind, metadata }) => `${kind}/${metadata.namespace ?? ''}/${metadata.name}`);
      assert.deepEqual(names, [...new Set(names)]);
      for (const { kind, metadata } of objects) {
        assert.equal(metadata.labels?.['app.kubernetes.io/instance'], 'weir', `${kind} ${metadata.name}`);
        assert.equal(metadata.labels['app.kubernetes.io/part-of'], 'weir', `${kind} ${metadata.name}`);
      }
    });
  }

  void it('passes helm lint', async () => {
    assert.match(await helm(['lint', chart, '--strict']), /0 chart\(s\) failed/);
  });

  void it('names its images and versions in the annotations of Artifact Hub', async () => {
    const { appVersion, version, annotations } = parse(await read('helm/weir/Chart.yaml')) as {
      appVersion: string;
      version: string;
      annotations: Record<string, string>;
    };
    const packageJson = JSON.parse(await read('package.json')) as { version: string };
    assert.equal(appVersion, packageJson.version);
    assert.equal(version, packageJson.version);
    const images = (parse(annotations['artifacthub.io/images'] ?? '') as { image: string }[]).map(({ image }) => image);
    const rendered = [...podTemplates(await template()).values()].flatMap(({ spec }) => spec.containers);
    assert.deepEqual([...new Set(rendered.map(({ image }) => image))].sort(), images.sort());
    const goMod = await read('tools/controlplane/go.mod');
    const nats = /github\.com\/nats-io\/nats-server\/v2 v(\S+)/.exec(goMod)?.[1];
    assert.ok(images.includes(`docker.io/library/nats:${nats}`), 'NATS is of the version that tests run');
  });

  void it('has the CRDs of the project, kept when it goes', async () => {
    for (const object of (await template()).filter(({ kind }) => kind === 'CustomResourceDefinition')) {
      const name = object.metadata.name.split('.')[0];
      const source = parse(await read(`crds/weir.dev_${name}.yaml`)) as { spec: unknown };
      assert.deepEqual(object['spec'], source.spec);
      assert.equal(object.metadata.annotations?.['helm.sh/resource-policy'], 'keep');
    }
  });

  void it('has no secret words of its own, in no kind of object', async () => {
    for (const values of Object.values(variants)) {
      for (const object of await template(values)) {
        if (object.kind === 'Secret') assert.equal(object['data'] ?? object['stringData'], undefined);
        if (object.kind === 'ConfigMap') assert.doesNotMatch(JSON.stringify(object['data']), /BEGIN|PRIVATE KEY/);
      }
    }
  });

  void it('takes other names, so that a release may have any', async () => {
    const text = await templateText({ fullnameOverride: 'calls' });
    assert.doesNotMatch(text, /name: weir-(operator|nats|sfu-node)/);
    assert.match(text, /name: calls-operator/);
  });
});

void describe('pods', { skip }, () => {
  void it('run as nobody, on a read-only root, without any capability, in each variant', async () => {
    for (const [title, values] of Object.entries(variants)) {
      for (const [name, { spec }] of podTemplates(await template(values))) {
        assert.equal(spec.securityContext['runAsNonRoot'], true, `${title}: ${name}`);
        assert.deepEqual(spec.securityContext['seccompProfile'], { type: 'RuntimeDefault' });
        for (const container of [...spec.containers, ...(spec.initContainers ?? [])]) {
          assert.deepEqual(container.securityContext, {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'] },
          });
          assert.ok(at(container.resources, 'requests'), `${title}: ${name} asks for nothing`);
        }
      }
    }
  });

  void it('take nothing of the Kubernetes Node unless they are told to', async () => {
    for (const [title, values] of Object.entries(variants)) {
      const onHost = /of its Nodes/.test(title);
      for (const [name, { spec }] of podTemplates(await template(values))) {
        const ports = spec.containers.flatMap((container) => container.ports ?? []);
        const isNode = name.includes('sfu-node');
        const takes = spec.hostNetwork === true || ports.some(({ hostPort }) => hostPort !== undefined);
        assert.equal(takes, onHost && isNode, `${title}: ${name}`);
        assert.ok(!(spec.volumes ?? []).some((volume) => 'hostPath' in volume));
      }
    }
  });

  void it('have a token of Kubernetes only where they call its API', async () => {
    for (const [name, { spec }] of podTemplates(await template())) {
      const calls = /operator|credentials|uninstall/.test(name);
      assert.equal(spec.automountServiceAccountToken ?? true, calls, name);
    }
    const asking = podTemplates(await template(variants['with the network of its Nodes'] ?? {}));
    const node = asking.get('Deployment/weir-sfu-node');
    const mounts = (container: Container | undefined) => container?.volumeMounts?.map(({ name }) => name) ?? [];
    assert.ok(mounts(node?.spec.initContainers?.[0]).includes('api-access'));
    assert.ok(!mounts(node?.spec.containers[0]).includes('api-access'));
  });

  void it('are started, alive and ready by three different words', async () => {
    for (const name of ['Deployment/weir-operator', 'Deployment/weir-sfu-node']) {
      const container = podTemplates(await template()).get(name)?.spec.containers[0];
      assert.equal(container?.startupProbe?.httpGet.path, '/startupz');
      assert.equal(container.livenessProbe?.httpGet.path, '/livez');
      assert.equal(container.readinessProbe?.httpGet.path, '/readyz');
    }
  });

  void it('know each of several NATS servers, which the certificate names', async () => {
    const urls = async (replicas: number) => {
      const pods = podTemplates(await template({ nats: { replicas } }));
      const [operator, node] = ['operator', 'sfu-node'].map((name) => {
        return environment(pods.get(`Deployment/weir-${name}`)?.spec.containers[0])['WEIR_NATS_URL'];
      });
      assert.equal(operator, node);
      return operator?.split(',');
    };
    const service = 'tls://weir-nats.weir-system.svc:4222';
    assert.deepEqual(await urls(1), [service]);
    const server = (index: number) => `tls://weir-nats-${index}.weir-nats-headless.weir-system.svc:4222`;
    assert.deepEqual(await urls(3), [service, server(0), server(1), server(2)]);
    assert.match(
      await templateText({ nats: { replicas: 3 } }),
      /names: \[.*"\*\.weir-nats-headless\.weir-system\.svc"/,
    );
  });

  void it('of several NATS servers hand over before they end, one after the other', async () => {
    const nats = async (replicas: number) => {
      const objects = await template({ nats: { replicas } });
      const { spec } = podTemplates(objects).get('StatefulSet/weir-nats') ?? {};
      const minReadySeconds = at(find(objects, 'StatefulSet', 'weir-nats'), 'spec.minReadySeconds');
      return {
        preStop: spec?.containers[0]?.lifecycle?.preStop,
        grace: spec?.terminationGracePeriodSeconds,
        minReadySeconds,
      };
    };
    assert.deepEqual(await nats(1), { preStop: undefined, grace: 60, minReadySeconds: undefined });
    const { preStop, grace = 0, minReadySeconds } = await nats(3);
    assert.deepEqual(preStop?.exec.command, ['nats-server', '--signal', 'ldm=/run/nats/nats.pid']);
    assert.ok(Number(minReadySeconds) > 5, 'time to catch up');
    const settings = await templateText({ nats: { replicas: 3 } });
    const duration = Number(/lame_duck_duration: (\d+)s/.exec(settings)?.[1]);
    assert.ok(duration < grace, 'it is not killed in the middle of that');
  });

  void it('set only variables that the programs know', async () => {
    const sources = await Promise.all(
      ['platform/config.ts', 'operator/config.ts', 'sfu-node/config.ts', 'operator/credentials/config.ts'].map(read),
    );
    sources.push(
      await read('operator/reload/main.ts'),
      await read('operator/place/config.ts'),
      await read('operator/uninstall/main.ts'),
      await read('tools/check/call.ts'),
    );
    for (const values of Object.values(variants)) {
      for (const [name, { spec }] of podTemplates(await template(values))) {
        for (const container of [...spec.containers, ...(spec.initContainers ?? [])]) {
          for (const variable of Object.keys(environment(container)).filter((key) => key.startsWith('WEIR_')))
            assert.ok(
              sources.some((source) => source.includes(`${variable}:`)),
              `${name} sets ${variable}`,
            );
        }
      }
    }
  });
});

void describe('SFU nodes', { skip }, () => {
  const nodeOf = async (values: Values) => {
    const pod = podTemplates(await template(values)).get('Deployment/weir-sfu-node');
    assert.ok(pod);
    return { pod, env: environment(pod.spec.containers[0]) };
  };

  void it('take region and zone from the labels that Kubernetes copies to the pod', async () => {
    const { env } = await nodeOf({});
    assert.match(env['WEIR_REGION'] ?? '', /topology\.kubernetes\.io\/region/);
    assert.match(env['WEIR_ZONE'] ?? '', /topology\.kubernetes\.io\/zone/);
  });

  void it('are told what to announce', async () => {
    const announced = async (media: Values) =>
      (await nodeOf({ sfuNode: { media } })).env['WEIR_MEDIA_ANNOUNCED_ADDRESS'];
    assert.equal(await announced({}), undefined);
    assert.match((await announced({ network: 'HostNetwork', announce: 'HostIP' })) ?? '', /status\.hostIP/);
    assert.equal(await announced({ announce: 'Fixed', address: '192.0.2.1' }), '192.0.2.1');
    assert.equal(await announced({ announce: 'LoadBalancer' }), undefined);
  });

  void it('have a media port a worker, UDP and TCP', async () => {
    const { pod } = await nodeOf({ sfuNode: { workers: 3, media: { portBase: 9000 } } });
    const media = (pod.spec.containers[0]?.ports ?? []).filter(({ name }) => name.startsWith('media'));
    assert.deepEqual(
      media.map(({ containerPort, protocol }) => `${containerPort}/${protocol}`),
      ['9000/UDP', '9000/TCP', '9001/UDP', '9001/TCP', '9002/UDP', '9002/TCP'],
    );
  });

  void it('get a Deployment, a budget and an autoscaler a pool, with what the pool says', async () => {
    const objects = await template(variants['with one pool a region'] ?? {});
    assert.equal(at(find(objects, 'Deployment', 'weir-sfu-node-us'), 'spec.replicas'), 3);
    assert.equal(at(find(objects, 'Deployment', 'weir-sfu-node-eu'), 'spec.replicas'), undefined);
    find(objects, 'HorizontalPodAutoscaler', 'weir-sfu-node-eu');
    assert.throws(() => find(objects, 'HorizontalPodAutoscaler', 'weir-sfu-node-us'));
    for (const pool of ['eu', 'us']) {
      const budget = find(objects, 'PodDisruptionBudget', `weir-sfu-node-${pool}`);
      assert.equal(at(budget, 'spec.selector.matchLabels')?.['weir.dev/pool' as never], pool);
    }
  });

  void it('scale on their streams, at 70 % of what a pod carries', async () => {
    const target = async (sfuNode: Values) =>
      at(
        find(await template({ sfuNode }), 'HorizontalPodAutoscaler', 'weir-sfu-node'),
        'spec.metrics.0.pods.target.averageValue',
      );
    assert.equal(await target({}), '350');
    assert.equal(await target({ workers: 4 }), '1400');
    assert.equal(await target({ capacity: { streams: 1000 } }), '700');
    assert.equal(await target({ autoscaling: { targetStreams: 123 } }), '123');
  });

  void it('do not share the ports of a Kubernetes Node with those that they replace', async () => {
    const strategy = async (media: Values) =>
      at(find(await template({ sfuNode: { media } }), 'Deployment', 'weir-sfu-node'), 'spec.strategy.rollingUpdate');
    assert.deepEqual(await strategy({}), { maxSurge: 1, maxUnavailable: 0 });
    assert.deepEqual(await strategy({ network: 'HostPort' }), { maxSurge: 0, maxUnavailable: 1 });
  });
});

void describe('rights in Kubernetes', { skip }, () => {
  interface Rule {
    apiGroups: string[];
    resources: string[];
    resourceNames?: string[];
    verbs: string[];
  }

  void it('name no wildcard, and Secrets only one by one', async () => {
    for (const values of Object.values(variants)) {
      for (const object of await template(values)) {
        for (const rule of (object['rules'] as Rule[] | undefined) ?? []) {
          assert.ok(![...rule.apiGroups, ...rule.resources, ...rule.verbs].includes('*'), object.metadata.name);
          if (rule.resources.includes('secrets')) assert.ok((rule.resourceNames ?? []).length > 0);
        }
      }
    }
  });

  void it('of the operator are those of docs/security.md', async () => {
    const objects = await template();
    const rules = ['ClusterRole', 'Role'].flatMap((kind) => {
      const name = kind === 'Role' ? 'weir-operator' : 'weir-system:weir-operator';
      return find(objects, kind, name)['rules'] as Rule[];
    });
    const given = new Set(
      rules.flatMap(({ apiGroups, resources, verbs }) =>
        resources.flatMap((resource) =>
          verbs.map((verb) => {
            const [plural, subresource] = resource.split('/');
            const group = apiGroups[0] ? `.${apiGroups[0]}` : '';
            return `${plural}${group}${subresource ? `/${subresource}` : ''} ${verb}`;
          }),
        ),
      ),
    );
    const section = (await read('docs/security.md'))
      .split('## What the operator may do in Kubernetes')[1]
      ?.split('\n## ')[0];
    const rows = [...(section ?? '').matchAll(/^\| `([^`]+)` +\| ([a-z, ]+?) +\|/gm)];
    const documented = new Set(
      rows.flatMap(([, resource, verbs]) => (verbs ?? '').split(', ').map((verb) => `${resource} ${verb}`)),
    );
    // Delegated checks of callers come with a role of Kubernetes, system:auth-delegator.
    const own = [...documented].filter((entry) => !/reviews|configmaps/.test(entry));
    assert.deepEqual([...given].sort(), own.sort());
  });
});

void describe('objects of other projects', { skip }, () => {
  const matches = (selector: unknown, labels: Record<string, string>) =>
    Object.entries(selector as Record<string, string>).every(([key, value]) => labels[key] === value);

  void it('a ScaledObject leads KEDA, and KEDA alone, to the scaler, with words that the scaler knows', async () => {
    const objects = await template(variants['with KEDA'] ?? {});
    const scaled = find(objects, 'ScaledObject', 'weir-sfu-node');
    const metadata = at(scaled, 'spec.triggers.0.metadata') as Record<string, string>;
    const { scalerAddress, ...words } = metadata;
    assert.equal(scalerAddress, 'weir-operator.weir-system.svc:6000');
    const scaler = await read('operator/autoscaling/scaler.ts');
    for (const word of Object.keys(words)) assert.ok(scaler.includes(`  ${word}: z`), word);
    const labels = podTemplates(objects).get('Deployment/weir-sfu-node')?.metadata.labels ?? {};
    const selector = metadata['podSelector']?.split(',').map((part) => part.split('=')) ?? [];
    assert.ok(matches(Object.fromEntries(selector), labels));

    assert.equal(at(find(objects, 'Service', 'weir-operator'), 'spec.ports.1.port'), 6000);
    const rules = at(find(objects, 'NetworkPolicy', 'weir-operator'), 'spec.ingress') as {
      ports: { port: string }[];
      from?: unknown;
    }[];
    assert.deepEqual(rules.find(({ ports }) => ports[0]?.port === 'scaler')?.from, [
      { namespaceSelector: {}, podSelector: { matchLabels: { app: 'keda-operator' } } },
    ]);
  });

  void it('the longest names give a ScaledObject and an HPA of names that KEDA takes', async () => {
    const objects = await template({
      fullnameOverride: 'f'.repeat(32),
      pools: { ['p'.repeat(16)]: { autoscaling: { mode: 'KEDA' } } },
    });
    const [scaled] = objects.filter(({ kind }) => kind === 'ScaledObject');
    const hpa = at(scaled, 'spec.advanced.horizontalPodAutoscalerConfig.name') as string;
    assert.equal(hpa, `keda-${scaled?.metadata.name}`);
    assert.ok(hpa.length <= 63, hpa);
  });

  void it('an HPA lets a ScaledObject come that replaces it', async () => {
    const hpa = find(await template(), 'HorizontalPodAutoscaler', 'weir-sfu-node');
    assert.equal(hpa.metadata.annotations?.['validations.keda.sh/hpa-ownership'], 'false');
  });

  void it('cert-manager makes each Secret of certificates that a pod mounts, by an issuer that is there', async () => {
    for (const title of ['with cert-manager', 'with an issuer of cert-manager that exists']) {
      const objects = await template(variants[title]);
      const certificates = objects.filter(({ kind }) => kind === 'Certificate');
      const made = certificates.map((certificate) => at(certificate, 'spec.secretName') as string);
      const mounted = [...podTemplates(objects).values()]
        .flatMap(({ spec }) => spec.volumes ?? [])
        .map((volume) => at(volume, 'secret.secretName') as string | undefined)
        .filter((name) => name?.endsWith('-tls'));
      assert.deepEqual([...new Set(mounted)].sort(), made.filter((name) => name !== 'weir-ca').sort());
      for (const certificate of certificates) {
        const name = at(certificate, 'spec.issuerRef.name') as string;
        if (name !== 'fleet') find(objects, 'Issuer', name);
        // The authority's key stays, or those who know the old certificate do not trust the new one's.
        const isAuthority = at(certificate, 'spec.isCA') === true;
        assert.equal(at(certificate, 'spec.privateKey.rotationPolicy'), isAuthority ? 'Never' : 'Always');
      }
      const service = find(objects, 'APIService', 'v1beta2.custom.metrics.k8s.io');
      const source = service.metadata.annotations?.['cert-manager.io/inject-ca-from'];
      assert.equal(source, 'weir-system/weir-metrics-api-tls');
      find(objects, 'Certificate', 'weir-metrics-api-tls');
    }
  });

  void it('an issuer may be of a kind that cert-manager does not have itself', async () => {
    const certManager = { issuerName: 'fleet', issuerKind: 'StepClusterIssuer', issuerGroup: 'certmanager.step.sm' };
    const objects = await template({ certificates: { mode: 'CertManager', certManager } });
    assert.deepEqual(at(find(objects, 'Certificate', 'weir-operator-tls'), 'spec.issuerRef'), {
      name: 'fleet',
      kind: 'StepClusterIssuer',
      group: 'certmanager.step.sm',
    });
  });

  void it('a PodMonitor selects the pods of its component, at a port that they have', async () => {
    const objects = await template({ monitoring: { podMonitors: { enabled: true } }, pools: { eu: {}, us: {} } });
    const pods = podTemplates(objects);
    const monitored = objects
      .filter(({ kind }) => kind === 'PodMonitor')
      .map((monitor) => {
        assert.equal(at(monitor, 'spec.namespaceSelector'), undefined);
        const port = at(monitor, 'spec.podMetricsEndpoints.0.port');
        const selected = [...pods].filter(([, { metadata }]) =>
          matches(at(monitor, 'spec.selector.matchLabels'), metadata.labels),
        );
        for (const [name, { spec }] of selected)
          assert.ok(
            spec.containers.some(({ ports }) => ports?.some((own) => own.name === port)),
            name,
          );
        return [monitor.metadata.name, selected.map(([name]) => name)];
      });
    assert.deepEqual(monitored, [
      ['weir-operator', ['Deployment/weir-operator']],
      ['weir-sfu-node', ['Deployment/weir-sfu-node-eu', 'Deployment/weir-sfu-node-us']],
    ]);
  });

  void it('the rule of prometheus-adapter gives the metric that the HPA asks for', async () => {
    const objects = await template(variants['with prometheus-adapter'] ?? {});
    const text = at(find(objects, 'ConfigMap', 'weir-prometheus-adapter'), 'data') as Record<string, string>;
    const [rule] = parse(text['rules.yaml'] ?? '') as { name: { matches: string; as: string } }[];
    const hpa = find(objects, 'HorizontalPodAutoscaler', 'weir-sfu-node');
    assert.equal(at(hpa, 'spec.metrics.0.pods.metric.name'), rule?.name.as);
    assert.match(rule?.name.as ?? '', new RegExp(rule?.name.matches ?? ''));
    assert.ok(!objects.some(({ kind }) => kind === 'APIService'));
  });
});

void describe('monitoring', { skip }, () => {
  interface Alert {
    alert: string;
    expr: string;
    for?: string;
    runbook: string;
  }
  const readAlerts = async () => parse(await read('helm/weir/files/alerts.yaml')) as Alert[];

  /** Expressions of all alerts and dashboards. */
  async function readExpressions(): Promise<string[]> {
    const expressions = (await readAlerts()).map(({ expr }) => expr);
    for (const file of await readdir(join(chart, 'files/dashboards'))) {
      const { uid, panels } = JSON.parse(await read(`helm/weir/files/dashboards/${file}`)) as {
        uid: string;
        panels: { title: string; description: string; targets: { expr: string }[] }[];
      };
      assert.equal(`${uid}.json`, file);
      for (const { title, description, targets } of panels) {
        assert.ok(description.length > 0, `${file}: ${title} has no description`);
        expressions.push(...targets.map(({ expr }) => expr));
      }
    }
    assert.ok(expressions.length > 50);
    return expressions;
  }

  void it('dashboards and alerts use only metrics that docs/operations.md has', async () => {
    const page = await read('docs/operations.md');
    const expressions = await readExpressions();
    const prefix = /\b(?:sfu|weir|workqueue|reflector|controller_runtime|rest_client|leader_election)_[a-z_]+/g;
    for (const expression of expressions) {
      const names = expression.replaceAll(/"[^"]*"/g, '').match(prefix) ?? [];
      for (const name of names.map((metric) => metric.replace(/_bucket$/, '')))
        assert.ok(page.includes(`| \`${name}\``), `${name} of ${expression}`);
    }
  });

  void it('what other programs have by the same name is told from theirs', async () => {
    const shared = /\b(?:leader_election|controller_runtime|workqueue|rest_client|process|nodejs)_[a-z0-9_]+/g;
    for (const expression of await readExpressions()) {
      for (const { 0: name, index } of expression.matchAll(shared)) {
        const rest = expression.slice(index + name.length);
        const isTold = /^\{(?:name|controller)=/.test(rest) || /^(?:\[\w+\]\))? and on \(job, instance\)/.test(rest);
        assert.ok(isTold, `${name} of ${expression}`);
      }
    }
  });

  void it('alerts are those of docs/operations.md, and lead to headings of it', async () => {
    const page = await read('docs/operations.md');
    const section = page.split('\n## Alerts\n')[1]?.split('\n## ')[0] ?? '';
    const documented = [
      ...section.matchAll(/^\| [^|`]+\| `((?:[^`]|\\\|)+)`(?: for (\d+) (s|m))?(, or absent)?/gm),
    ].map(([, expr = '', time = '', unit = '', absent]) => [expr.replaceAll('\\|', '|'), time + unit, absent] as const);
    const alerts = await readAlerts();
    const headings = [...page.matchAll(/^## (.+)$/gm)].map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\w\s-]/g, '')
        .replaceAll(' ', '-'),
    );
    for (const { alert, runbook } of alerts) assert.ok(headings.includes(runbook), `${alert} leads to #${runbook}`);
    // The page may leave out what tells Weir's series from those of others.
    const plain = (expr: string) => expr.replaceAll(/\{(?:name|controller)=[^}]*\}/g, '');
    assert.deepEqual(
      alerts.map(({ expr }) => plain(expr.replace(/ or absent\(.*\)$/, ''))),
      documented.map(([expr]) => plain(expr)),
    );
  });

  void it('rules and dashboards are rendered with their links and labels', async () => {
    const objects = await template({
      monitoring: {
        podMonitors: { enabled: true },
        alerts: { enabled: true, runbooks: 'https://example.org/operations' },
        dashboards: { enabled: true, annotations: { folder: 'Weir' } },
      },
    });
    const rules = at(find(objects, 'PrometheusRule', 'weir'), 'spec.groups.0.rules') as {
      annotations: { runbook_url: string };
    }[];
    assert.equal(rules.length, (await readAlerts()).length);
    for (const { annotations } of rules) assert.match(annotations.runbook_url, /^https:\/\/example\.org\/operations#/);
    for (const name of ['fleet', 'links', 'slos']) {
      const dashboard = find(objects, 'ConfigMap', `weir-dashboard-${name}`);
      assert.equal(dashboard.metadata.labels?.['grafana_dashboard'], '1');
      assert.equal(dashboard.metadata.annotations?.['folder'], 'Weir');
      JSON.parse((at(dashboard, 'data') as Record<string, string>)[`weir-${name}.json`] ?? '');
    }
    for (const name of ['weir-operator', 'weir-sfu-node']) find(objects, 'PodMonitor', name);
  });
});
