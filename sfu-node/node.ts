import { randomInt, randomUUID } from 'node:crypto';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { systemClock as clock } from '#platform/clock.ts';
import { startHttpServer } from '#platform/http.ts';
import type { Logger } from '#platform/log.ts';
import { writeStateFile } from '#platform/state-file.ts';
import packageJson from '../package.json' with { type: 'json' };
import { Cascade } from './cascade/cascade.ts';
import { Feeds } from './cascade/feed/feeds.ts';
import { advertised, type NodeConfig } from './config.ts';
import { ControlServer } from './control/server.ts';
import { Coordination } from './coordination/coordination.ts';
import { NatsLink } from './coordination/nats-link.ts';
import { RoomHost } from './media/room-host.ts';
import { createNodeMetrics } from './metrics.ts';
import { ApiKeys } from './signal/api-keys.ts';
import { SignalServer } from './signal/server.ts';

/**
 * Wires and starts one SFU node; the returned function ends it in order. Nothing here waits for NATS or the operator.
 * @throws WeirError PortInUse and its kin, BadApiKeys, BadTlsFiles, WorkerNotStarted
 */
export async function startNode(config: NodeConfig, log: Logger): Promise<() => Promise<void>> {
  const { name: node, region, media } = config;
  const version = packageJson.version;
  const instance = randomUUID();
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const metrics = createNodeMetrics(registry);

  const keys = await ApiKeys.create(config.apiKeysFile, log);
  const nats = NatsLink.create({ ...config.nats, name: `sfu-node ${node}`, clock, log });
  const cascade = Cascade.create({ node, instance, nats, metrics, log });
  const feeds = Feeds.create({ node, nats, clock, log, metrics });
  const rooms = await RoomHost.create({
    node,
    region,
    version,
    workerCount: media.workers,
    listenIp: media.listenIp,
    announcedAddress: media.announcedAddress,
    portBase: media.portBase,
    streamsPerWorker: Math.ceil(config.capacity.streams / media.workers),
    linkListen: config.cascade,
    cascade,
    feeds,
    clock,
    newId,
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
  const coordination = Coordination.create({
    node,
    instance,
    nats,
    rooms,
    capacity: config.capacity,
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
    capacity: config.capacity,
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
  const ready = () => (rooms.draining ? 'draining' : nats.connection ? undefined : 'NATS was not reached yet');
  const http = await startHttpServer({ listen: config.httpListen, registry, health: { ready }, log });

  const reachable = media.announcedAddress ?? media.listenIp;
  const controlAddress = config.control.address ?? advertised(config.control.listen, control.port, reachable);
  const url = config.signal.url ?? `ws://${advertised(config.signal.listen, signal.port, reachable)}`;
  const { zone, labels, capacity, pod } = config;
  const addresses = [reachable];
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
    capacity,
    pod,
  });
  const httpAddress = advertised(config.httpListen, http.port, reachable);
  if (config.stateFile) {
    const local = `ws://${advertised(config.signal.listen, signal.port, reachable)}`;
    const state = { pid: process.pid, http: httpAddress, signal: local, control: controlAddress, node, region };
    await writeStateFile(config.stateFile, state);
  }
  log.info({ region, signal: url, control: controlAddress, http: httpAddress, workers: media.workers }, 'node is up');

  return async () => {
    coordination.announceDeparture();
    await rooms.close();
    await signal.close();
    relay.close('the node that holds this connection is shutting down');
    control.close();
    coordination.close();
    await nats.close();
    await http.close();
    keys.close();
  };
}

/** Ids as LiveKit's clients know them: a prefix and twelve letters or digits. */
function newId(prefix: string): string {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
  return prefix + Array.from({ length: 12 }, () => letters[randomInt(letters.length)]).join('');
}
