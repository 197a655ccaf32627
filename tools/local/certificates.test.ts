import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { test } from 'node:test';
import { LocalAuthority } from './certificates.ts';

test('a certificate carries its subject and its names', async () => {
  const authority = await LocalAuthority.create('test');
  const { certificate } = await authority.issue({ subject: 'OU=sfu-node,CN=sfu-1', names: ['sfu-1', '127.0.0.1'] });
  const parsed = new X509Certificate(certificate);
  assert.deepEqual(parsed.subject.split('\n').sort(), ['CN=sfu-1', 'OU=sfu-node']);
  assert.equal(parsed.checkHost('sfu-1'), 'sfu-1');
  assert.equal(parsed.checkIP('127.0.0.1'), '127.0.0.1');
  assert.ok(parsed.checkIssued(new X509Certificate(authority.certificate)));
});

test('both sides of mutual TLS accept certificates of one authority', async (context) => {
  const authority = await LocalAuthority.create('test');
  const [server, client] = await Promise.all([
    authority.issue({ subject: 'CN=server', names: ['server'], usage: 'server' }),
    authority.issue({ subject: 'OU=operator,CN=client', usage: 'client' }),
  ]);
  const ca = authority.certificate;
  const listener = createServer({
    ca,
    cert: server.certificate,
    key: server.key,
    requestCert: true,
    rejectUnauthorized: true,
  });
  listener.listen(0, '127.0.0.1');
  context.after(() => listener.close());
  await once(listener, 'listening');
  const { port } = listener.address() as AddressInfo;
  const accepted = once(listener, 'secureConnection') as Promise<[TLSSocket]>;
  const socket = connect({
    host: '127.0.0.1',
    port,
    servername: 'server',
    ca,
    cert: client.certificate,
    key: client.key,
  });
  await once(socket, 'secureConnect');
  assert.equal(socket.authorized, true);
  const [peer] = await accepted;
  assert.equal(peer.getPeerCertificate().subject.OU, 'operator');
  socket.destroy();
  peer.destroy();
});
