import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type ClientReadableStream, credentials, type ServiceError, status } from '@grpc/grpc-js';
import {
  type ApplyResponse,
  type Assignment,
  NodeControlClient,
  type NodeDescription,
  type NodeEvent,
  Role,
  type AssignmentStatus,
} from '#proto/weir/control/v1/control.ts';
import { systemClock } from '#platform/clock.ts';
import { codeOf, messageOf } from '#platform/errors.ts';
import { ControlServer } from '#sfu-node/control/server.ts';
import { LocalAuthority, type CredentialFiles } from '#tools/local/certificates.ts';
import { eventually } from '#tools/local/eventually.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';
import { EchoRooms, log, roomRef } from './node-edges.ts';

const dir = temporaryDirectory('node-control');
const caFile = join(dir, 'ca.crt');
const rooms = new EchoRooms('a');
const clients: NodeControlClient[] = [];
let authority: LocalAuthority;
let nodeFiles: CredentialFiles;
let server: ControlServer;

before(async () => {
  authority = await LocalAuthority.create('fleet');
  await writeFile(caFile, authority.certificate);
  nodeFiles = await authority.issueFiles(dir, 'a', { subject: 'OU=sfu-node,CN=a', names: ['a'] });
  server = await start({ host: '127.0.0.1', port: 0 });
});

after(() => {
  for (const client of clients) client.close();
  server?.close();
});

function start(listen: { host: string; port: number }): Promise<ControlServer> {
  const tls = { caFile, certFile: nodeFiles.certFile, keyFile: nodeFiles.keyFile };
  return ControlServer.create({
    listen,
    tls,
    node: 'a',
    instance: 'i1',
    version: '1.2.3',
    rooms,
    clock: systemClock,
    log,
  });
}

async function dial(files?: CredentialFiles): Promise<NodeControlClient> {
  const ca = await readFile(caFile);
  const channel = files
    ? credentials.createSsl(ca, await readFile(files.keyFile), await readFile(files.certFile))
    : credentials.createSsl(ca);
  const client = new NodeControlClient(`127.0.0.1:${server.port}`, channel, { 'grpc.ssl_target_name_override': 'a' });
  clients.push(client);
  return client;
}

async function asOperator(): Promise<NodeControlClient> {
  return dial(await authority.issueFiles(dir, 'op', { subject: 'OU=operator,CN=weir-operator', names: ['op'] }));
}

function call<T>(run: (callback: (error: ServiceError | null, response: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => run((error, response) => (error ? reject(error) : resolve(response))));
}

function errorOf(promise: Promise<unknown>): Promise<ServiceError> {
  return promise.then(
    () => assert.fail('the call was answered'),
    (error: unknown) => error as ServiceError,
  );
}

function assignment(roomName: string, epoch: number, generation = 1): Assignment {
  const placement = [{ node: 'a', region: 'test', role: Role.HUB }];
  return {
    room: roomRef(roomName),
    epoch,
    generation,
    role: Role.HUB,
    placement,
    links: [],
    routes: [],
    settings: undefined,
  };
}

describe('the control service', () => {
  test('applies, describes and releases rooms for the operator', async () => {
    const client = await asOperator();
    const { statuses } = await call<ApplyResponse>((done) =>
      client.apply({ assignments: [assignment('r1', 3)] }, done),
    );
    assert.equal(statuses[0]?.epoch, 3);
    const description = await call<NodeDescription>((done) => client.describe({}, done));
    assert.equal(description.node, 'a');
    assert.equal(description.instance, 'i1');
    assert.deepEqual(
      description.assignments.map(({ room }) => room?.roomName),
      ['r1'],
    );
    await call((done) => client.release({ room: roomRef('r1'), epoch: 3, reason: 'RoomDeleted' }, done));
    assert.equal(rooms.served.size, 0);
  });

  test('refuses an older epoch with its code in words and metadata', async () => {
    const client = await asOperator();
    await call((done) => client.apply({ assignments: [assignment('r2', 5)] }, done));
    const error = await errorOf(call((done) => client.apply({ assignments: [assignment('r2', 4)] }, done)));
    assert.equal(error.code, status.FAILED_PRECONDITION);
    assert.match(error.details, /^StaleEpoch: /);
    assert.deepEqual(error.metadata.get('weir-error-code'), ['StaleEpoch']);
    rooms.served.clear();
  });

  test('refuses an assignment that names no room', async () => {
    const client = await asOperator();
    const error = await errorOf(
      call((done) => client.apply({ assignments: [{ ...assignment('r', 1), room: undefined }] }, done)),
    );
    assert.equal(error.code, status.INVALID_ARGUMENT);
    assert.match(error.details, /room\.uid/);
  });

  test('drains and takes it back', async () => {
    const client = await asOperator();
    await call((done) => client.drain({ drain: true }, done));
    assert.equal(rooms.draining, true);
    await call((done) => client.drain({ drain: false }, done));
    assert.equal(rooms.draining, false);
  });
});

describe('a caller that is not the operator', () => {
  test('is refused without a certificate', async () => {
    const client = await dial();
    const error = await errorOf(call((done) => client.describe({}, done)));
    assert.equal(error.code, status.UNAUTHENTICATED);
    assert.match(error.details, /client certificate/);
  });

  test('is refused with a certificate of another authority, even one that says operator', async () => {
    const other = await LocalAuthority.create('elsewhere');
    const client = await dial(await other.issueFiles(dir, 'fake', { subject: 'OU=operator,CN=weir-operator' }));
    const error = await errorOf(call((done) => client.describe({}, done)));
    assert.equal(error.code, status.UNAUTHENTICATED);
  });

  test('is refused with the certificate of a node', async () => {
    const client = await dial(nodeFiles);
    const error = await errorOf(call((done) => client.drain({ drain: true }, done)));
    assert.equal(error.code, status.PERMISSION_DENIED);
    assert.match(error.details, /OU=operator/);
    assert.equal(rooms.draining, false);
  });

  test('cannot watch either', async () => {
    const client = await dial(nodeFiles);
    const error = await new Promise<ServiceError>((resolve) => client.watch({}).on('error', resolve));
    assert.equal(error.code, status.PERMISSION_DENIED);
  });

  test('is refused when it speaks plain text', async () => {
    const client = new NodeControlClient(`127.0.0.1:${server.port}`, credentials.createInsecure());
    clients.push(client);
    const error = await errorOf(call((done) => client.describe({}, done)));
    assert.equal(error.code, status.UNAVAILABLE);
  });
});

describe('a watch', () => {
  test('begins with a snapshot and follows with changes, counts at most every 2 s', async () => {
    const client = await asOperator();
    await call((done) => client.apply({ assignments: [assignment('w', 1)] }, done));
    const { events, stream } = watch(client);
    await eventually(() => events.length === 1);
    assert.equal(events[0]?.event?.$case, 'snapshot');
    assert.equal(events[0]?.instance, 'i1');
    for (let participants = 1; participants <= 10; participants++) rooms.change(counts('w', 1, participants));
    // A new epoch is not held back.
    await call((done) => client.apply({ assignments: [assignment('w', 2)] }, done));
    await eventually(() => assigned(events).some(({ epoch }) => epoch === 2));
    assert.deepEqual(
      assigned(events).map(({ epoch, participants }) => [epoch, participants]),
      [[2, 0]],
    );
    for (let participants = 1; participants <= 10; participants++) rooms.change(counts('w', 2, participants));
    await eventually(() => assigned(events).some(({ participants }) => participants === 10));
    assert.equal(assigned(events).length, 2);
    await call((done) => client.release({ room: roomRef('w'), epoch: 2, reason: 'RoomDeleted' }, done));
    await eventually(() => events.some(({ event }) => event?.$case === 'released'));
    stream.cancel();
  });

  function watch(client: NodeControlClient): { events: NodeEvent[]; stream: ClientReadableStream<NodeEvent> } {
    const events: NodeEvent[] = [];
    const stream = client.watch({});
    stream.on('data', (event: NodeEvent) => events.push(event)).on('error', () => {});
    return { events, stream };
  }

  function assigned(events: NodeEvent[]): AssignmentStatus[] {
    return events.flatMap(({ event }) => (event?.$case === 'assigned' ? [event.value] : []));
  }

  function counts(roomName: string, epoch: number, participants: number) {
    const status = { room: roomRef(roomName), epoch, generation: 1, participants, streams: 0, links: [] };
    return { kind: 'assigned', status } as const;
  }
});

test('a renewed certificate is taken up without a restart', { timeout: 20_000 }, async () => {
  const renewed = await authority.issue({ subject: 'OU=sfu-node,CN=a', names: ['renewed'] });
  await writeFile(nodeFiles.certFile, renewed.certificate);
  await writeFile(nodeFiles.keyFile, renewed.key);
  const ca = await readFile(caFile);
  await eventually(
    async () => {
      const channel = credentials.createSsl(ca);
      const options = { 'grpc.ssl_target_name_override': 'renewed' };
      const client = new NodeControlClient(`127.0.0.1:${server.port}`, channel, options);
      clients.push(client);
      // Refused for want of a client certificate, which takes a trusted server to say.
      return (await errorOf(call((done) => client.describe({}, done)))).code === status.UNAUTHENTICATED;
    },
    { timeoutMs: 15_000, intervalMs: 500 },
  );
});

describe('what cannot start says why', () => {
  test('a port in use, with the name of the variable', async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as { port: number };
    try {
      await assert.rejects(start({ host: '127.0.0.1', port }), (error) => {
        assert.equal(codeOf(error), 'PortInUse');
        assert.match(messageOf(error), new RegExp(`port ${port}.*WEIR_CONTROL_LISTEN`));
        return true;
      });
    } finally {
      other.close();
    }
  });

  test('a certificate file that is no certificate', async () => {
    const file = join(dir, 'bad.crt');
    await writeFile(file, 'hello');
    const tls = { caFile, certFile: file, keyFile: nodeFiles.keyFile };
    const options = { node: 'a', instance: 'i', version: '1', rooms, clock: systemClock, log };
    await assert.rejects(ControlServer.create({ ...options, tls, listen: { host: '127.0.0.1', port: 0 } }), (error) => {
      assert.equal(codeOf(error), 'BadTlsFiles');
      assert.match(messageOf(error), /WEIR_TLS_CERT_FILE/);
      return true;
    });
  });
});
