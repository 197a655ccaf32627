import { randomInt, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { trackCertificate } from '#platform/certificate-metric.ts';
import { systemClock as clock } from '#platform/clock.ts';
import { startHttpServer } from '#platform/http.ts';
import type { Logger } from '#platform/log.ts';
import type { Running } from '#platform/run.ts';
import { writeStateFile } from '#platform/state-file.ts';
import packageJson from '../package.json' with { type: 'json' };
import { Cascade } from './cascade/cascade.ts';
import { Feeds } from './cascade/feed/feeds.ts';
import { advertised, withPort, type NodeConfig } from './config.ts';
import { ControlServer } from './control/server.ts';
import { NodeCapacity } from './coordination/capacity.ts';
import { Coordination } from './coordination/coordination.ts';
import { NatsLink } from './coordination/nats-link.ts';
import { RoomHost } from './media/room-host.ts';
import { createNodeMetrics } from './metrics.ts';
import { ApiKeys } from './signal/api-keys.ts';
import { SignalServer } from './signal/server.ts';
import { freshToken } from './signal/token-refresh.ts';
import { TurnServers } from './signal/turn.ts';

/** A node that was told to end listens for this long at least, milliseconds: whoever sends clients to it has to notice. */
const lameDuckMs = 2000;
/** A client that came meanwhile is let be until its join is over and what it publishes is there; milliseconds. */
const joinMs = 4000;
/** It listens no longer than this for those who come, milliseconds. */
const longestLameDuckMs = 10_000;

/**
 * Wires and starts one SFU node. Nothing here waits for NATS or the operator. Told to end, it drains first: the operator
 * moves its rooms, and each client is sent to its new node when that serves.
 * @throws WeirError PortInUse and its kin, BadApiKeys, BadTlsFiles, WorkerNotStarted
 */
export async function startNode(config: NodeConfig, log: Logger): Promise<Running> {
  const { name: node, region, media } = config;
  const version = packageJson.version;
  const instance = randomUUID();
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const metrics = createNodeMetrics(registry);

  const keys = await ApiKeys.create(config.apiKeysFile, log);
  const turn = config.turn && (await TurnServers.create(config.turn, clock, log));
  const nats = NatsLink.create({ ...config.nats, name: `sfu-node ${node}`, clock, log });
  const cascade = Cascade.create({ node, instance, nats, metrics, log });
  const feeds = Feeds.create({ node, nats, clock, log, metrics });
  const rooms = await RoomHost.create({
    node,
    region,
    version,
    workerCount: media.workers,
    addresses: media.addresses,
    portBase: media.portBase,
    streamsPerWorker: Math.ceil(config.capacity.streams / media.workers),
    linkListen: config.cascade,
    cascade,
    feeds,
    clock,
    newId,
    iceServers: (identity) => turn?.iceServers(identity) ?? [],
    freshToken: (bearer) => freshToken(bearer, keys, clock.now()),
    log,
    metrics,
  });
  const control = await ControlServer.create({
    listen: config.control.listen,
    tls: config.tls,
    node,
    instance,
    version,
    rooms,
    clock,
    log,
  });
  trackCertificate(registry, () => control.certificateEndsAt);
  const capacity = new NodeCapacity({ configured: config.capacity, learns: config.learnsCapacity, clock, log });
  metrics.trackCapacity(() => capacity.streams);
  const coordination = Coordination.create({
    node,
    instance,
    nats,
    rooms,
    capacity,
    linkLoss: () => cascade.links.loss,
    metrics,
    clock,
    log,
  });
  const { routes, requests, joins } = coordination;
  const relay = coordination.holder;
  const listen = config.signal.listen;
  const signal = await SignalServer.create({
    listen,
    node,
    region,
    regionHeader: config.signal.regionHeader,
    capacity,
    keys,
    rooms,
    routes,
    requests,
    relay,
    joins,
    metrics,
    clock,
    log,
  });
  const ready = () => {
    if (rooms.draining) return 'draining';
    if (!nats.connection) return 'NATS was not reached yet';
    return routes.synced ? undefined : 'the routing table was not read yet: the leading operator makes it';
  };
  const http = await startHttpServer({ listen: config.httpListen, registry, health: { ready }, log });

  const addresses = media.addresses.map(({ ip, announcedAddress }) => announcedAddress ?? ip);
  const [reachable = ''] = addresses;
  const told = config.control.address;
  const controlAddress = told
    ? withPort(told, control.port)
    : advertised(config.control.listen, control.port, reachable);
  const url = config.signal.url ?? `ws://${advertised(config.signal.listen, signal.port, reachable)}`;
  const { zone, labels, pod } = config;
  coordination.announce({
    node,
    instance,
    region,
    zone,
    controlAddress,
    url,
    addresses,
    version,
    labels,
    pod,
  });
  const httpAddress = advertised(config.httpListen, http.port, reachable);
  if (config.stateFile) {
    const local = `ws://${advertised(config.signal.listen, signal.port, reachable)}`;
    const state = { pid: process.pid, http: httpAddress, signal: local, control: controlAddress, node, region };
    await writeStateFile(config.stateFile, state);
  }
  log.info({ region, signal: url, control: controlAddress, http: httpAddress, workers: media.workers }, 'node is up');

  const drain = async (hurry: AbortSignal) => {
    if (config.drainMs === 0) return;
    rooms.setDraining(true);
    coordination.beat();
    const count = rooms.describe().length;
    const startedAt = clock.now();
    const deadline = AbortSignal.any([hurry, AbortSignal.timeout(config.drainMs)]);
    if (count > 0) log.info({ rooms: count, withinMs: config.drainMs }, 'Draining: rooms move to other nodes');
    await until(
      () => rooms.describe().length === 0,
      (listener) => rooms.watch(listener),
      deadline,
    );
    const left = rooms.describe().length;
    const drainMs = clock.now() - startedAt;
    if (left > 0) log.warn({ rooms: left, drainMs }, 'Rooms are left; their clients find the new nodes by themselves');
    else log.info({ rooms: count, drainMs }, 'Drained');
    const lameUntil = clock.now() + longestLameDuckMs;
    const pause = (ms: number) => sleep(Math.max(0, ms), undefined, { signal: deadline }).catch(() => undefined);
    await pause(lameDuckMs - drainMs);
    // Cut in the middle of a join, an SDK waits for answers that do not come for up to fifteen seconds.
    while (relay.newestAgeMs < joinMs && clock.now() < lameUntil && !deadline.aborted) {
      await pause(Math.min(joinMs - relay.newestAgeMs, lameUntil - clock.now()) + 1);
    }
  };
  const stop = async () => {
    coordination.announceDeparture();
    relay.close('the node that holds this connection is shutting down');
    await rooms.close();
    await signal.close();
    control.close();
    await coordination.close();
    await nats.close();
    await http.close();
    keys.close();
    turn?.close();
  };
  return { drain, stop };
}

/** Waits until something is so, looking again whenever `watch` calls; ends early when the signal fires. */
function until(isSo: () => boolean, watch: (listener: () => void) => () => void, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      unwatch();
      signal.removeEventListener('abort', finish);
      resolve();
    };
    const unwatch = watch(() => isSo() && finish());
    if (isSo() || signal.aborted) finish();
    else signal.addEventListener('abort', finish);
  });
}

/** Ids as LiveKit's clients know them: a prefix and twelve letters or digits. */
function newId(prefix: string): string {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
  return prefix + Array.from({ length: 12 }, () => letters[randomInt(letters.length)]).join('');
}
