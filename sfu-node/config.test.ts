import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { codeOf, messageOf } from '#platform/errors.ts';
import { advertised, readNodeConfig, withPort } from './config.ts';

const needed = {
  WEIR_NODE_NAME: 'sfu-1',
  WEIR_NATS_URL: 'nats://nats:4222',
  WEIR_TLS_CA_FILE: '/pki/ca.crt',
  WEIR_TLS_CERT_FILE: '/pki/tls.crt',
  WEIR_TLS_KEY_FILE: '/pki/tls.key',
  WEIR_API_KEYS_FILE: '/keys.yaml',
  WEIR_MEDIA_LISTEN_IP: '10.0.0.1',
};

describe("a node's configuration", () => {
  it('takes what is given and derives the rest', () => {
    const config = readNodeConfig({ ...needed, WEIR_WORKERS: '2', WEIR_LABELS: 'disk=ssd', WEIR_POD_NAME: 'p' });
    assert.equal(config.name, 'sfu-1');
    assert.equal(config.capacity.streams, 1000);
    assert.deepEqual(config.labels, { disk: 'ssd' });
    assert.deepEqual(config.cascade, { ip: '10.0.0.1', ports: { min: 20_000, max: 29_999 }, capacityMbps: 1000 });
    assert.deepEqual(config.pod, { namespace: '', name: 'p', uid: '' });
    assert.deepEqual(config.signal.listen, { host: '0.0.0.0', port: 7880 });
  });

  const wrong: [string, Record<string, string>, RegExp][] = [
    ['a node name that is no DNS label', { WEIR_NODE_NAME: 'Node_1' }, /WEIR_NODE_NAME: write a DNS label/],
    ['a missing NATS URL', { WEIR_NATS_URL: '' }, /WEIR_NATS_URL is not set: write the URL of NATS/],
    ['a signal URL that is no WebSocket', { WEIR_SIGNAL_URL: 'http://x' }, /WEIR_SIGNAL_URL: write a ws:/],
    [
      'ports that are no range',
      { WEIR_CASCADE_PORTS: '500-400' },
      /WEIR_CASCADE_PORTS: "500-400" is no range of ports/,
    ],
    ['a cascade address that is a name', { WEIR_CASCADE_LISTEN_IP: 'sfu' }, /WEIR_CASCADE_LISTEN_IP: "sfu" is no IP/],
    [
      'links on every address without one to tell',
      { WEIR_MEDIA_LISTEN_IP: '0.0.0.0', WEIR_MEDIA_ANNOUNCED_ADDRESS: 'sfu.example.com' },
      /WEIR_CASCADE_ANNOUNCED_ADDRESS is not set/,
    ],
    ['no workers', { WEIR_WORKERS: '0' }, /WEIR_WORKERS: "0" is no whole number from 1 to 256/],
    [
      'a media address that is a name',
      { WEIR_MEDIA_LISTEN_IP: 'sfu.example.com' },
      /"sfu.example.com" is no IP address/,
    ],
    [
      'two addresses of which one is announced',
      { WEIR_MEDIA_LISTEN_IP: '10.0.0.1,fd00::1', WEIR_MEDIA_ANNOUNCED_ADDRESS: '192.0.2.1' },
      /WEIR_MEDIA_ANNOUNCED_ADDRESS has 1 addresses and WEIR_MEDIA_LISTEN_IP 2/,
    ],
    ['TURN without a secret', { WEIR_TURN_URLS: 'turn:turn' }, /WEIR_TURN_SECRET_FILE is not set/],
    ['a wildcard without an announced address', { WEIR_MEDIA_LISTEN_IP: '0.0.0.0' }, /WEIR_MEDIA_ANNOUNCED_ADDRESS/],
  ];
  for (const [name, env, words] of wrong) {
    it(`refuses ${name}`, () => {
      assert.throws(
        () => readNodeConfig({ ...needed, ...env }),
        (error) => codeOf(error) === 'BadConfiguration' && words.test(messageOf(error)),
      );
    });
  }

  it('takes an address of IPv4 and one of IPv6, each with what is announced for it', () => {
    const both = { ...needed, WEIR_MEDIA_LISTEN_IP: '10.0.0.1,fd00::1' };
    assert.deepEqual(
      readNodeConfig(both).media.addresses.map(({ ip }) => ip),
      ['10.0.0.1', 'fd00::1'],
    );
    const announced = readNodeConfig({ ...both, WEIR_MEDIA_ANNOUNCED_ADDRESS: '192.0.2.1, 2001:db8::1' });
    assert.deepEqual(
      announced.media.addresses.map(({ announcedAddress }) => announcedAddress),
      ['192.0.2.1', '2001:db8::1'],
    );
    assert.equal(announced.cascade.ip, '10.0.0.1');
  });

  it('advertises a reachable address for a wildcard listener', () => {
    assert.equal(advertised({ host: '0.0.0.0', port: 0 }, 81, '10.0.0.1'), '10.0.0.1:81');
    assert.equal(advertised({ host: '::', port: 0 }, 81, 'fd00::1'), '[fd00::1]:81');
    assert.equal(advertised({ host: '127.0.0.1', port: 0 }, 81, '10.0.0.1'), '127.0.0.1:81');
    assert.equal(withPort('10.0.0.1', 81), '10.0.0.1:81');
    assert.equal(withPort('fd00::1', 81), '[fd00::1]:81');
    assert.equal(withPort('[fd00::1]:82', 81), '[fd00::1]:82');
    assert.equal(withPort('node.example:82', 81), 'node.example:82');
  });
});
