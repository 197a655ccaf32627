import { isIP, isIPv6 } from 'node:net';
import { availableParallelism, hostname } from 'node:os';
import { z } from 'zod';
import { commonConfig, commonShape, fields, type ListenAddress, readConfig } from '#platform/config.ts';
import { WeirError } from '#platform/errors.ts';
import { printAddress } from '#platform/listen.ts';
import type { LinkListen } from './cascade/link.ts';
import type { MediaAddress } from './media/worker-pool.ts';
import type { TurnOptions } from './signal/turn.ts';

const listen = (what: string, fallback: ListenAddress) => fields.listen(what).default(fallback);

/** Node names are tokens of NATS subjects and names in certificates. */
const nodeName = () =>
  fields
    .text('a DNS label that is unique in the fleet, such as the pod or host name')
    .regex(
      /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/,
      'write a DNS label: lower-case letters, digits and hyphens, at most 63',
    );

const shape = {
  ...commonShape,
  WEIR_NODE_NAME: nodeName().default(() => hostname().toLowerCase().split('.')[0] ?? 'sfu'),
  WEIR_REGION: fields
    .text('the region of this node')
    .regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, 'write a DNS label, such as eu-west')
    .default('default'),
  WEIR_ZONE: fields.text('the zone of this node').default(''),
  WEIR_LABELS: fields.pairs().default({}),
  WEIR_HTTP_LISTEN: listen('where probes and metrics are served', { host: '0.0.0.0', port: 9090 }),
  WEIR_SIGNAL_LISTEN: listen('where clients open their WebSocket', { host: '0.0.0.0', port: 7880 }),
  WEIR_SIGNAL_URL: fields
    .text('the ws:// or wss:// URL by which clients reach this node')
    .regex(/^wss?:\/\/./, 'write a ws:// or wss:// URL')
    .optional(),
  WEIR_REGION_HEADER: fields
    .text('the name of the header in which the ingress says where a client is')
    .regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/, 'write the name of an HTTP header, such as x-weir-region')
    .default('x-weir-region'),
  WEIR_CONTROL_LISTEN: listen('where the operator calls', { host: '0.0.0.0', port: 7990 }),
  WEIR_CONTROL_ADDRESS: fields.text('host or host:port by which the operator reaches this node').optional(),
  WEIR_MEDIA_LISTEN_IP: fields
    .list('the IP address that media sockets bind, or one of IPv4 and one of IPv6 with a comma between them')
    .default(['0.0.0.0']),
  WEIR_MEDIA_ANNOUNCED_ADDRESS: fields
    .list('the address that clients are told for media, one for each of WEIR_MEDIA_LISTEN_IP')
    .optional(),
  WEIR_MEDIA_PORT_BASE: fields.integer(0, 65535).default(0),
  WEIR_CASCADE_LISTEN_IP: fields
    .ip('the IP address that cascade links bind; WEIR_MEDIA_LISTEN_IP when not set')
    .optional(),
  WEIR_CASCADE_ANNOUNCED_ADDRESS: fields.ip('the IP address by which other nodes reach cascade links').optional(),
  WEIR_CASCADE_PORTS: fields.portRange('the UDP ports of cascade links, one a room and neighbour').default({
    min: 20_000,
    max: 29_999,
  }),
  WEIR_CASCADE_LINK_MBPS: fields.integer(1, 1_000_000).default(1000),
  WEIR_WORKERS: fields.integer(1, 256).default(() => availableParallelism()),
  WEIR_CAPACITY_STREAMS: fields.integer(1, 10_000_000).optional(),
  WEIR_CAPACITY_MBPS: fields.integer(1, 10_000_000).optional(),
  WEIR_CAPACITY_MODE: z
    .enum(['Learnt', 'Fixed'], {
      error: ({ input }) => `"${String(input)}" is no way to know a capacity; write Learnt or Fixed`,
    })
    .default('Learnt'),
  WEIR_DRAIN_SECONDS: fields.integer(0, 3600).default(50),
  WEIR_API_KEYS_FILE: fields.text('the YAML file of API keys, a list of {key, secret, createRooms}'),
  WEIR_TURN_URLS: fields.list('the turn: and turns: URLs that clients are told').optional(),
  WEIR_TURN_SECRET_FILE: fields.text('the file of the secret that the TURN servers share').optional(),
  WEIR_TURN_TTL_SECONDS: fields.integer(60, 604_800).default(3600),
  WEIR_POD_NAMESPACE: fields.text("the pod's namespace").optional(),
  WEIR_POD_NAME: fields.text("the pod's name").optional(),
  WEIR_POD_UID: fields.text("the pod's uid").optional(),
};

/** What one worker (one core) carries when nothing else is said: published plus subscribed tracks, and megabits a second. */
const PER_WORKER = { streams: 500, mbps: 500 } as const;

/** Settings of a node, from its environment. */
export type NodeConfig = ReturnType<typeof readNodeConfig>;

/** @throws WeirError BadConfiguration naming every wrong variable */
export function readNodeConfig(env: Readonly<Record<string, string | undefined>>) {
  const values = readConfig(shape, env);
  const { WEIR_POD_NAME, WEIR_POD_NAMESPACE, WEIR_POD_UID } = values;
  const workers = values.WEIR_WORKERS;
  return {
    name: values.WEIR_NODE_NAME,
    region: values.WEIR_REGION,
    zone: values.WEIR_ZONE,
    labels: values.WEIR_LABELS,
    ...commonConfig(values),
    httpListen: values.WEIR_HTTP_LISTEN,
    signal: {
      listen: values.WEIR_SIGNAL_LISTEN,
      url: values.WEIR_SIGNAL_URL,
      regionHeader: values.WEIR_REGION_HEADER.toLowerCase(),
    },
    control: { listen: values.WEIR_CONTROL_LISTEN, address: values.WEIR_CONTROL_ADDRESS },
    media: {
      addresses: mediaAddresses(values),
      portBase: values.WEIR_MEDIA_PORT_BASE,
      workers,
    },
    cascade: cascadeListen(values),
    capacity: {
      streams: values.WEIR_CAPACITY_STREAMS ?? PER_WORKER.streams * workers,
      mbps: values.WEIR_CAPACITY_MBPS ?? PER_WORKER.mbps * workers,
    },
    learnsCapacity: values.WEIR_CAPACITY_MODE === 'Learnt',
    drainMs: 1000 * values.WEIR_DRAIN_SECONDS,
    apiKeysFile: values.WEIR_API_KEYS_FILE,
    turn: turnOf(values),
    pod: WEIR_POD_NAME
      ? { namespace: WEIR_POD_NAMESPACE ?? '', name: WEIR_POD_NAME, uid: WEIR_POD_UID ?? '' }
      : undefined,
  };
}

/** Settings of TURN servers; undefined when there are none. */
function turnOf(values: {
  WEIR_TURN_URLS?: string[];
  WEIR_TURN_SECRET_FILE?: string;
  WEIR_TURN_TTL_SECONDS: number;
}): TurnOptions | undefined {
  const { WEIR_TURN_URLS: urls, WEIR_TURN_SECRET_FILE: secretFile, WEIR_TURN_TTL_SECONDS: ttlSeconds } = values;
  if (!urls) return undefined;
  if (secretFile) return { urls, secretFile, ttlSeconds };
  const words =
    'WEIR_TURN_SECRET_FILE is not set: write the file of the secret that the servers of WEIR_TURN_URLS share (static-auth-secret of coturn)';
  throw new WeirError('BadConfiguration', words, { where: 'environment' });
}

/** Addresses that media sockets bind, each with what clients are told of it. */
function mediaAddresses(values: {
  WEIR_MEDIA_LISTEN_IP: string[];
  WEIR_MEDIA_ANNOUNCED_ADDRESS?: string[];
}): MediaAddress[] {
  const { WEIR_MEDIA_LISTEN_IP: ips, WEIR_MEDIA_ANNOUNCED_ADDRESS: announced } = values;
  const refuse = (words: string): never => {
    throw new WeirError('BadConfiguration', words, { where: 'environment' });
  };
  const wrong = ips.find((ip) => isIP(ip) === 0);
  if (wrong !== undefined) refuse(`WEIR_MEDIA_LISTEN_IP: "${wrong}" is no IP address`);
  const wildcard = ips.find((ip) => ip === '0.0.0.0' || ip === '::');
  if (wildcard !== undefined && !announced)
    refuse(
      `WEIR_MEDIA_ANNOUNCED_ADDRESS is not set: write the address by which clients reach this node, as WEIR_MEDIA_LISTEN_IP is ${wildcard}`,
    );
  if (announced && announced.length !== ips.length)
    refuse(
      `WEIR_MEDIA_ANNOUNCED_ADDRESS has ${announced.length} addresses and WEIR_MEDIA_LISTEN_IP ${ips.length}: write one for each`,
    );
  return ips.map((ip, index) => ({ ip, announcedAddress: announced?.[index] }));
}

interface CascadeValues {
  WEIR_CASCADE_LISTEN_IP?: string;
  WEIR_CASCADE_ANNOUNCED_ADDRESS?: string;
  WEIR_CASCADE_PORTS: { min: number; max: number };
  WEIR_CASCADE_LINK_MBPS: number;
  WEIR_MEDIA_LISTEN_IP: string[];
  WEIR_MEDIA_ANNOUNCED_ADDRESS?: string[];
}

/** Peers are told the bound address; when every address is bound, the one that clients are told, if it is an IP address. */
function cascadeListen(values: CascadeValues): LinkListen {
  const ip = values.WEIR_CASCADE_LISTEN_IP ?? values.WEIR_MEDIA_LISTEN_IP[0] ?? '';
  const limits = { ports: values.WEIR_CASCADE_PORTS, capacityMbps: values.WEIR_CASCADE_LINK_MBPS };
  const announcedAddress = values.WEIR_CASCADE_ANNOUNCED_ADDRESS;
  if (announcedAddress) return { ip, announcedAddress, ...limits };
  if (ip !== '0.0.0.0' && ip !== '::') return { ip, ...limits };
  const [told] = values.WEIR_MEDIA_ANNOUNCED_ADDRESS ?? [];
  if (told && isIP(told) !== 0) return { ip, announcedAddress: told, ...limits };
  const words =
    'WEIR_CASCADE_ANNOUNCED_ADDRESS is not set: write the IP address by which other nodes reach this one, as cascade links listen on every address';
  throw new WeirError('BadConfiguration', words, { where: 'environment' });
}

/** host:port that others may dial for a listener on `listen`: a wildcard host is replaced by `reachable`. */
export function advertised(listen: ListenAddress, port: number, reachable: string): string {
  const isWildcard = listen.host === '0.0.0.0' || listen.host === '::';
  const host = isWildcard ? reachable : listen.host;
  return printAddress({ host, port });
}

/** host:port of what may be a host alone, an IPv6 address without brackets too. */
export function withPort(address: string, port: number): string {
  if (isIPv6(address)) return printAddress({ host: address, port });
  return /:\d+$/.test(address) ? address : `${address}:${port}`;
}
