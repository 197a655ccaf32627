import assert from 'node:assert/strict';
import { test } from 'node:test';
import { codeOf, messageOf } from '#platform/errors.ts';
import { readOperatorConfig } from './config.ts';

const required = {
  WEIR_NATS_URL: 'nats://nats:4222',
  WEIR_TLS_CA_FILE: 'ca.crt',
  WEIR_TLS_CERT_FILE: 'tls.crt',
  WEIR_TLS_KEY_FILE: 'tls.key',
};
const files = { WEIR_METRICS_API_CERT_FILE: 'api.crt', WEIR_METRICS_API_KEY_FILE: 'api.key' };

function failureOf(env: Record<string, string>): string {
  try {
    readOperatorConfig({ ...required, ...env });
  } catch (error) {
    assert.equal(codeOf(error), 'BadConfiguration');
    return messageOf(error);
  }
  throw new assert.AssertionError({ message: 'it was accepted' });
}

test('autoscaling is off, and rooms are spread, unless it is said otherwise', () => {
  const config = readOperatorConfig(required);
  assert.equal(config.metricsApi, undefined);
  assert.equal(config.scalerListen, undefined);
  assert.equal(config.placementStrategy, 'Spread');
});

test('the metrics API, the scaler and packing are turned on', () => {
  const env = { WEIR_METRICS_API_LISTEN: ':6443', WEIR_SCALER_LISTEN: '[::]:6000', WEIR_PLACEMENT_STRATEGY: 'Pack' };
  const config = readOperatorConfig({ ...required, ...files, ...env });
  assert.deepEqual(config.metricsApi, {
    listen: { host: '0.0.0.0', port: 6443 },
    files: { certFile: 'api.crt', keyFile: 'api.key' },
  });
  assert.deepEqual(config.scalerListen, { host: '::', port: 6000 });
  assert.equal(config.placementStrategy, 'Pack');
});

test('a metrics API without a certificate is refused with what to write', () => {
  const listen = { WEIR_METRICS_API_LISTEN: ':6443' };
  assert.match(failureOf(listen), /WEIR_METRICS_API_CERT_FILE is not set: write the PEM file/);
  assert.match(failureOf({ ...listen, WEIR_METRICS_API_CERT_FILE: 'api.crt' }), /WEIR_METRICS_API_KEY_FILE is not set/);
});

test('a strategy that is none is refused with those that are', () => {
  assert.match(failureOf({ WEIR_PLACEMENT_STRATEGY: 'pack' }), /WEIR_PLACEMENT_STRATEGY: "pack".*Spread or Pack/);
});
