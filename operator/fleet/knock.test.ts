import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { test } from 'node:test';
import { isListening } from './knock.ts';

test('somebody who listens is there, on IPv4 and IPv6, and not any more when that ends', async () => {
  for (const [host, printed] of [
    ['127.0.0.1', '127.0.0.1'],
    ['::1', '[::1]'],
  ] as const) {
    const server = createServer().listen(0, host);
    await once(server, 'listening');
    const address = `${printed}:${(server.address() as AddressInfo).port}`;
    assert.equal(await isListening(address), true, address);
    server.close();
    await once(server, 'close');
    assert.equal(await isListening(address), false, address);
  }
});

test('a process that stands still is there', async () => {
  const program = `require('net').createServer().listen(0, '127.0.0.1', function () { console.log(this.address().port); })`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [port] = (await once(child.stdout, 'data')) as [Buffer];
    child.kill('SIGSTOP');
    assert.equal(await isListening(`127.0.0.1:${port.toString().trim()}`), true);
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
});

test('nobody is at an address that is none, or that nothing answers from', async () => {
  for (const address of ['', 'nobody', '127.0.0.1:1', 'no-such-name.invalid:80']) {
    assert.equal(await isListening(address), false, address);
  }
});
