import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { codeOf } from '#platform/errors.ts';
import {
  environmentFile,
  externalAddressOf,
  loadBalancerAddressOf,
  podLabel,
  serviceOf,
  topologyOf,
  type IpFamily,
} from './plan.ts';

void describe('where a pod runs', () => {
  const node = {
    metadata: { name: 'eu-1', labels: { 'topology.kubernetes.io/region': 'eu-west' } },
    status: {
      addresses: [
        { type: 'InternalIP', address: '10.0.0.1' },
        { type: 'ExternalIP', address: '192.0.2.1' },
        { type: 'ExternalIP', address: '2001:db8::1' },
      ],
    },
  };

  void it('is told by the labels that the Node has, and by no others', () => {
    assert.deepEqual(topologyOf(node), { WEIR_REGION: 'eu-west' });
    assert.deepEqual(topologyOf({ metadata: {} }), {});
  });

  const families: [IpFamily, string][] = [
    ['IPv4', '192.0.2.1'],
    ['IPv6', '2001:db8::1'],
    ['DualStack', '192.0.2.1,2001:db8::1'],
  ];
  for (const [family, wanted] of families)
    void it(`is announced by the external address of ${family}`, () =>
      assert.equal(externalAddressOf(node, family), wanted));

  void it('is refused in words when the Node has no external address of the family', () => {
    const inside = { metadata: { name: 'eu-1' }, status: { addresses: [{ type: 'InternalIP', address: '10.0.0.1' }] } };
    assert.throws(
      () => externalAddressOf(inside, 'IPv4'),
      (error) => codeOf(error) === 'NoExternalAddress' && /eu-1.*HostIP or Fixed/.test(String(error)),
    );
  });

  void it('is written as variables, one a line', () => {
    assert.equal(environmentFile({ A: '1', B: '2' }), 'A=1\nB=2\n');
  });
});

void describe('the Service of a pod', () => {
  const pod = { name: 'sfu-1', namespace: 'weir-system', uid: 'u' };
  const service = serviceOf(pod, {
    ports: { min: 7882, max: 7883 },
    ipFamily: 'IPv4',
    loadBalancer: { annotations: { a: 'b' } },
  });

  void it('leads to this pod alone, on each media port by UDP and TCP, and goes with the pod', () => {
    assert.deepEqual(service.spec.selector, { [podLabel]: 'sfu-1' });
    assert.deepEqual(
      service.spec.ports.map(({ port, protocol }) => `${port}/${protocol}`),
      ['7882/UDP', '7882/TCP', '7883/UDP', '7883/TCP'],
    );
    assert.equal(service.metadata.ownerReferences[0]?.uid, 'u');
  });

  void it('has an address when its load balancer has given one: an IP address or a name', () => {
    const given = (ingress: { ip?: string; hostname?: string }[]) =>
      loadBalancerAddressOf({ metadata: {}, status: { loadBalancer: { ingress } } });
    assert.equal(loadBalancerAddressOf({ metadata: {} }), undefined);
    assert.equal(given([{ ip: '192.0.2.9' }]), '192.0.2.9');
    assert.equal(given([{ hostname: 'lb.example.org' }]), 'lb.example.org');
  });
});
