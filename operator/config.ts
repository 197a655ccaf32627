import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { z } from 'zod';
import { strategies } from '#core/model.ts';
import { commonConfig, commonShape, fields, readConfig, type ListenAddress } from '#platform/config.ts';
import { WeirError } from '#platform/errors.ts';

const shape = {
  ...commonShape,
  WEIR_HTTP_LISTEN: fields.listen('where probes and metrics are served').default({ host: '0.0.0.0', port: 8081 }),
  WEIR_NAMESPACE: fields.text('the namespace of SfuNodes and of the Lease').default('weir-system'),
  WEIR_JOIN_NAMESPACE: fields.text('the namespace of Rooms that first joins make').default('default'),
  WEIR_OPERATOR_ID: fields.text('an identity that is unique among the replicas').default(() => hostname()),
  WEIR_NODE_DOMAIN: fields
    .text("the domain below which a node's certificate has its name; its name alone when not set")
    .regex(/^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$/, 'write a DNS name, such as sfu-node.weir.internal')
    .optional(),
  WEIR_NATS_REPLICAS: fields.integer(1, 5).default(1),
  WEIR_PUBLIC_URL: fields.text('the WebSocket URL of the fleet, shown in Room status').optional(),
  WEIR_PLACEMENT_STRATEGY: z
    .enum(strategies, {
      error: ({ input }) => `"${String(input)}" is no way to share out rooms; write ${strategies.join(' or ')}`,
    })
    .default('Spread'),
  WEIR_METRICS_API_LISTEN: fields.listen('where the custom metrics API is served').optional(),
  WEIR_METRICS_API_CERT_FILE: fields.text("the file of the metrics API's certificate, PEM").optional(),
  WEIR_METRICS_API_KEY_FILE: fields.text("the file of the metrics API's private key, PEM").optional(),
  WEIR_SCALER_LISTEN: fields.listen('where KEDA calls the external scaler').optional(),
  WEIR_NODE_REMOVE_AFTER_SECONDS: fields.integer(1, 31_536_000).default(600),
  WEIR_IDLE_NODE_SECONDS: fields.integer(1, 86_400).default(30),
  // Shorter than client-go's: no room leaves a lost machine before somebody leads.
  WEIR_LEASE_DURATION_MS: fields.integer(1000, 600_000).default(8000),
  WEIR_LEASE_RENEW_DEADLINE_MS: fields.integer(500, 600_000).default(5000),
  WEIR_LEASE_RETRY_PERIOD_MS: fields.integer(100, 600_000).default(1000),
};

/** Settings of an operator, from its environment. */
export type OperatorConfig = ReturnType<typeof readOperatorConfig>;

/** @throws WeirError BadConfiguration naming every wrong variable */
export function readOperatorConfig(env: Readonly<Record<string, string | undefined>>) {
  const values = readConfig(shape, env);
  return {
    ...commonConfig(values),
    httpListen: values.WEIR_HTTP_LISTEN,
    namespace: values.WEIR_NAMESPACE,
    joinNamespace: values.WEIR_JOIN_NAMESPACE,
    // Another after a restart: a lease held by our former self is waited for like anybody's.
    identity: `${values.WEIR_OPERATOR_ID}_${randomUUID()}`,
    nodeDomain: values.WEIR_NODE_DOMAIN,
    natsReplicas: values.WEIR_NATS_REPLICAS,
    publicUrl: values.WEIR_PUBLIC_URL,
    placementStrategy: values.WEIR_PLACEMENT_STRATEGY,
    metricsApi: metricsApiOf(values),
    scalerListen: values.WEIR_SCALER_LISTEN,
    removeNodeAfterMs: values.WEIR_NODE_REMOVE_AFTER_SECONDS * 1000,
    idleNodeMs: values.WEIR_IDLE_NODE_SECONDS * 1000,
    lease: {
      leaseDurationMs: values.WEIR_LEASE_DURATION_MS,
      renewDeadlineMs: values.WEIR_LEASE_RENEW_DEADLINE_MS,
      retryPeriodMs: values.WEIR_LEASE_RETRY_PERIOD_MS,
    },
  };
}

interface MetricsApiValues {
  WEIR_METRICS_API_LISTEN?: ListenAddress;
  WEIR_METRICS_API_CERT_FILE?: string;
  WEIR_METRICS_API_KEY_FILE?: string;
}

/** Settings of the custom metrics API; undefined when it is off. */
function metricsApiOf(values: MetricsApiValues) {
  const listen = values.WEIR_METRICS_API_LISTEN;
  if (!listen) return undefined;
  const { WEIR_METRICS_API_CERT_FILE: certFile, WEIR_METRICS_API_KEY_FILE: keyFile } = values;
  if (certFile && keyFile) return { listen, files: { certFile, keyFile } };
  const missing = certFile ? 'WEIR_METRICS_API_KEY_FILE' : 'WEIR_METRICS_API_CERT_FILE';
  const words = `${missing} is not set: write the PEM file of a certificate (and of its key) for the Service in front of WEIR_METRICS_API_LISTEN; the API server calls it with TLS alone`;
  throw new WeirError('BadConfiguration', words, { where: 'environment' });
}
