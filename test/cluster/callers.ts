/** Callers without rights, tried on the ports of an installed release. */
import { createSocket } from 'node:dgram';
import https from 'node:https';
import { connect as connectTcp } from 'node:net';
import { credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { Authority } from '#platform/authority.ts';
import { NodeControlClient } from '#proto/weir/control/v1/control.ts';
import { createToken } from '#test/fleet/token.ts';
import { namespace, type WeirCluster } from './weir-cluster.ts';

/** How a caller fared, in a word or two: `401`, `PERMISSION_DENIED`. */
export type Answers = Record<string, string>;

async function firstAddress(weir: WeirCluster, component: 'operator' | 'sfu-node' | 'nats'): Promise<string> {
  const [pod] = await weir.pods(component);
  if (!pod?.status.podIP) throw new Error(`no pod of ${component} has an address`);
  return pod.status.podIP;
}

async function secret(weir: WeirCluster, name: string): Promise<Record<string, string>> {
  const { data } = await weir.cluster.kubectl.json<{ data: Record<string, string> }>(
    '-n',
    namespace,
    'get',
    'secret',
    name,
  );
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]));
}

function statusOf(url: string, headers: Record<string, string> = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = https.get(url, { headers, rejectUnauthorized: false, timeout: 10_000 }, (response) => {
      response.resume();
      resolve(String(response.statusCode));
    });
    request.on('timeout', () => request.destroy(new Error('no answer')));
    request.on('error', reject);
  });
}

/** The custom metrics API, called at its pod past the API server. */
export async function tryMetricsApi(weir: WeirCluster): Promise<Answers> {
  const address = await firstAddress(weir, 'operator');
  const url = `https://${address}:6443/apis/custom.metrics.k8s.io/v1beta2/namespaces/${namespace}/pods/*/sfu_streams`;
  const token = (await weir.kubectl('create', 'token', 'default')).trim();
  return {
    'without a token': await statusOf(url),
    'as whom it says it is': await statusOf(url, { 'x-remote-user': 'admin', 'x-remote-group': 'system:masters' }),
    'with a token that is none': await statusOf(url, { authorization: 'Bearer eyJhbGciOiJub25lIn0.e30.' }),
    'with an account that has no right': await statusOf(url, { authorization: `Bearer ${token}` }),
  };
}

/** The gRPC port by which the operator commands nodes. */
export async function tryControl(weir: WeirCluster): Promise<Answers> {
  const address = await firstAddress(weir, 'sfu-node');
  const node = await secret(weir, 'weir-sfu-node-tls');
  const ca = Buffer.from(node['ca.crt'] ?? '');
  const stranger = await Authority.create({ commonName: 'stranger', days: 1, now: Date.now });
  const forged = await stranger.issue({ subject: 'CN=operator,OU=operator' });
  const channel = (made: { certificate: string; key: string } | undefined) =>
    made ? credentials.createSsl(ca, Buffer.from(made.key), Buffer.from(made.certificate)) : credentials.createSsl(ca);
  const call = (channelCredentials: ReturnType<typeof credentials.createInsecure>) => {
    const client = new NodeControlClient(`${address}:7990`, channelCredentials, {
      'grpc.ssl_target_name_override': `any.sfu-node.${namespace}.weir.internal`,
    });
    return new Promise<string>((resolve) => {
      const deadline = Date.now() + 10_000;
      client.drain({ drain: true }, new Metadata(), { deadline }, (error: ServiceError | null) => {
        client.close();
        resolve(error ? (status[error.code] ?? 'unknown') : 'OK');
      });
    });
  };
  return {
    'in plain text': await call(credentials.createInsecure()),
    'without a certificate': await call(channel(undefined)),
    'as an operator of another authority': await call(channel(forged)),
    'as a node': await call(channel({ certificate: node['tls.crt'] ?? '', key: node['tls.key'] ?? '' })),
  };
}

/** NATS, also with the rights of a node where only the operator may write. */
export async function tryNats(weir: WeirCluster): Promise<Answers> {
  const address = await firstAddress(weir, 'nats');
  const { 'sfu-node': password = '' } = await secret(weir, 'weir-nats-auth');
  const { 'ca.crt': ca } = await secret(weir, 'weir-nats-tls');
  const attempt = async (
    options: { user?: string; pass?: string; ca?: string },
    use?: (connection: NatsConnection) => Promise<unknown>,
  ): Promise<string> => {
    const { user, pass } = options;
    try {
      const servers = `${address}:4222`;
      // The server's certificate has its name, not the address of its pod.
      const tls = options.ca ? { ca: options.ca, checkServerIdentity: () => undefined } : undefined;
      const connection = await connect({ servers, user, pass, tls, timeout: 10_000, reconnect: false });
      try {
        await use?.(connection);
        return 'OK';
      } finally {
        await connection.close();
      }
    } catch (error) {
      const { cause, code, name } = error as Error & { code?: string };
      return cause instanceof Error ? cause.name : (code ?? name);
    }
  };
  const asNode = { user: 'sfu-node', pass: password, ca };
  return {
    'by an authority that it is not of': await attempt({ ...asNode, ca: await strangeCa() }),
    'without a password': await attempt({ ca }),
    'with a wrong password': await attempt({ ...asNode, pass: 'wrong' }),
    'as a node that writes a route': await attempt(asNode, (connection) =>
      connection.request('$KV.weir_routes.room', '{}', { timeout: 5000 }),
    ),
    'as a node that listens to what others ask of the operator': await attempt(asNode, async (connection) => {
      for await (const _message of connection.subscribe('weir.operator.>')) break;
    }),
  };
}

async function strangeCa(): Promise<string> {
  return (await Authority.create({ commonName: 'stranger', days: 1, now: Date.now })).credentials.certificate;
}

/** Signalling, at the Service's pods. */
export async function trySignal(weir: WeirCluster): Promise<Answers> {
  const base = `http://${await firstAddress(weir, 'sfu-node')}:7880/rtc/validate`;
  const { apiKey, apiSecret } = await weir.apiKey();
  const ask = async (token?: string) => {
    const response = await fetch(token === undefined ? base : `${base}?access_token=${token}`);
    await response.arrayBuffer();
    return String(response.status);
  };
  const person = { apiKey, apiSecret, room: 'closed', identity: 'eve' };
  return {
    'without a token': await ask(),
    'with a token that another secret signed': await ask(await createToken({ ...person, apiSecret: 'x'.repeat(32) })),
    'with a key that is not there': await ask(await createToken({ ...person, apiKey: 'key-nobody' })),
    'with a token that has expired': await ask(await createToken({ ...person, expiresIn: -120 })),
    'with a token that does not grant a join': await ask(await createToken({ ...person, grant: { roomJoin: false } })),
  };
}

/** Bytes that are nothing, on the ports of media. Answers what came back, in bytes. */
export async function tryMedia(weir: WeirCluster): Promise<Answers> {
  const address = await firstAddress(weir, 'sfu-node');
  const noise = Buffer.from(Array.from({ length: 600 }, (_, index) => (index * 73) % 256));
  const overUdp = await new Promise<number>((resolve, reject) => {
    const socket = createSocket('udp4');
    let received = 0;
    socket.on('message', (message) => (received += message.length));
    socket.on('error', reject);
    for (let count = 0; count < 200; count += 1) socket.send(noise.subarray(count), 7882, address);
    setTimeout(() => socket.close(() => resolve(received)), 1000);
  });
  const overTcp = await new Promise<number>((resolve) => {
    let received = 0;
    const socket = connectTcp({ host: address, port: 7882 }, () => socket.end(noise));
    socket.on('data', (chunk) => (received += chunk.length));
    socket.on('error', () => resolve(received));
    socket.on('close', () => resolve(received));
    socket.setTimeout(10_000, () => socket.destroy());
  });
  return { 'over UDP': `${overUdp} bytes`, 'over TCP': `${overTcp} bytes` };
}
