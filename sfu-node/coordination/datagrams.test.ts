import assert from 'node:assert/strict';
import { test } from 'node:test';
import { droppedShare, parseDatagrams, readDatagrams } from './datagrams.ts';

const snmp = `Tcp: RtoAlgorithm RtoMin
Tcp: 1 200
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors
Udp: 1000 7 20 900 15 0
UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors
UdpLite: 5 0 0 0 5 0
`;
const snmp6 = `Ip6InReceives                   	70
Udp6InDatagrams                 	200
Udp6RcvbufErrors                	5
`;

test('datagrams of both IP versions are counted, and those that found a full buffer', () => {
  assert.deepEqual(parseDatagrams(snmp, snmp6), { received: 1200, dropped: 20 });
});

test('what the system does not tell counts as nothing', () => {
  assert.deepEqual(parseDatagrams('', ''), { received: 0, dropped: 0 });
  assert.deepEqual(parseDatagrams(snmp, ''), { received: 1000, dropped: 15 });
});

test('the share that is dropped is of all that came between two looks', () => {
  assert.equal(droppedShare({ received: 100, dropped: 0 }, { received: 190, dropped: 10 }), 0.1);
  assert.equal(droppedShare({ received: 100, dropped: 3 }, { received: 100, dropped: 3 }), 0);
  assert.equal(droppedShare({ received: 100, dropped: 3 }, { received: 0, dropped: 0 }), 0);
});

test('the counts of this machine can be read', () => {
  const { received, dropped } = readDatagrams();
  assert.ok(Number.isInteger(received) && Number.isInteger(dropped));
});
