import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { fields, readConfig } from '#platform/config.ts';

const shape = {
  WEIR_LOG_LEVEL: fields.logLevel(),
  WEIR_LOG_FORMAT: fields.logFormat(),
  WEIR_NATS_URL: fields.text('the URL of NATS, such as nats://nats:4222'),
  WEIR_NATS_USER: fields.text('the NATS user').optional(),
  WEIR_NATS_PASSWORD: fields.text("the NATS user's password").optional(),
  WEIR_NATS_CA_FILE: fields.text("the CA file of NATS's certificate").optional(),
  WEIR_TLS_CA_FILE: fields.text("the file of the fleet's certificate authority, PEM"),
  WEIR_TLS_CERT_FILE: fields.text("the file of the operator's certificate, PEM"),
  WEIR_TLS_KEY_FILE: fields.text("the file of the operator's private key, PEM"),
  WEIR_HTTP_LISTEN: fields.listen('where probes and metrics are served').default({ host: '0.0.0.0', port: 8081 }),
  WEIR_NAMESPACE: fields.text('the namespace of SfuNodes and of the Lease').default('weir-system'),
  WEIR_JOIN_NAMESPACE: fields.text('the namespace of Rooms that first joins make').default('default'),
  WEIR_OPERATOR_ID: fields.text('an identity that is unique among the replicas').default(() => hostname()),
  WEIR_PUBLIC_URL: fields.text('the WebSocket URL of the fleet, shown in Room status').optional(),
  WEIR_NODE_REMOVE_AFTER_SECONDS: fields.integer(1, 31_536_000).default(600),
  WEIR_LEASE_DURATION_MS: fields.integer(1000, 600_000).default(15_000),
  WEIR_LEASE_RENEW_DEADLINE_MS: fields.integer(500, 600_000).default(10_000),
  WEIR_LEASE_RETRY_PERIOD_MS: fields.integer(100, 600_000).default(2000),
  WEIR_STATE_FILE: fields.text('a file to write the real addresses to').optional(),
};

/** Settings of an operator, from its environment. */
export type OperatorConfig = ReturnType<typeof readOperatorConfig>;

/** @throws WeirError BadConfiguration naming every wrong variable */
export function readOperatorConfig(env: Readonly<Record<string, string | undefined>>) {
  const values = readConfig(shape, env);
  return {
    log: { level: values.WEIR_LOG_LEVEL, format: values.WEIR_LOG_FORMAT },
    nats: {
      url: values.WEIR_NATS_URL,
      user: values.WEIR_NATS_USER,
      password: values.WEIR_NATS_PASSWORD,
      caFile: values.WEIR_NATS_CA_FILE,
    },
    tls: { caFile: values.WEIR_TLS_CA_FILE, certFile: values.WEIR_TLS_CERT_FILE, keyFile: values.WEIR_TLS_KEY_FILE },
    httpListen: values.WEIR_HTTP_LISTEN,
    namespace: values.WEIR_NAMESPACE,
    joinNamespace: values.WEIR_JOIN_NAMESPACE,
    // Another after a restart: a lease held by our former self is waited for like anybody's.
    identity: `${values.WEIR_OPERATOR_ID}_${randomUUID()}`,
    publicUrl: values.WEIR_PUBLIC_URL,
    removeNodeAfterMs: values.WEIR_NODE_REMOVE_AFTER_SECONDS * 1000,
    lease: {
      leaseDurationMs: values.WEIR_LEASE_DURATION_MS,
      renewDeadlineMs: values.WEIR_LEASE_RENEW_DEADLINE_MS,
      retryPeriodMs: values.WEIR_LEASE_RETRY_PERIOD_MS,
    },
    stateFile: values.WEIR_STATE_FILE,
  };
}
