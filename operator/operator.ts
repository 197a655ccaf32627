import { collectDefaultMetrics, Registry } from 'prom-client';
import type { NatsConnection } from '@nats-io/transport-node';
import { rooms as roomsResource, type Room } from '#crds/room.ts';
import { sfunodes as nodesResource, type SfuNode } from '#crds/sfunode.ts';
import { systemClock as clock } from '#platform/clock.ts';
import { startHttpServer } from '#platform/http.ts';
import { printAddress } from '#platform/listen.ts';
import type { Logger } from '#platform/log.ts';
import { connectNats } from '#platform/nats.ts';
import { writeStateFile } from '#platform/state-file.ts';
import { subjects } from '#platform/subjects.ts';
import { trackCertificate } from '#platform/certificate-metric.ts';
import { TlsIdentity } from '#platform/tls-identity.ts';
import { Autoscaling } from './autoscaling/autoscaling.ts';
import type { OperatorConfig } from './config.ts';
import { EnsureResponder } from './ensure/ensure.ts';
import { isListening } from './fleet/knock.ts';
import { NodeConnections } from './fleet/connections.ts';
import { FleetView } from './fleet/fleet-view.ts';
import { heartbeatReceiver } from './fleet/heartbeats.ts';
import { NodeRegistry } from './fleet/node-registry.ts';
import { RouteTable } from './fleet/route-table.ts';
import { createAutoscalingMetrics, createOperatorMetrics } from './metrics.ts';
import { RoomController } from './room/controller.ts';
import { networkFigures } from './room/figures.ts';
import { conditionOf } from './room/status.ts';
import { Controller } from './runtime/controller.ts';
import { EventRecorder } from './runtime/events.ts';
import { Health } from './runtime/health.ts';
import { loadKubeConfig, ResourceClient } from './runtime/kube.ts';
import { LeaderElector } from './runtime/leader.ts';
import { createRuntimeMetrics } from './runtime/metrics.ts';
import { Reflector } from './runtime/reflector.ts';
import { WorkQueue } from './runtime/workqueue.ts';
import { SfuNodeController } from './sfunode/controller.ts';

const roomWorkers = 32;
const nodeWorkers = 4;
/** A watch that brings nothing for so long makes the replica not ready, milliseconds. */
const staleMs = 180_000;
const random = Math.random;

/**
 * Wires and starts one operator; the returned function ends it in order. Every replica listens, so that it can take over
 * at once; only the leader reconciles, calls nodes and answers them. `onLost` is called when the lease is lost.
 * @throws WeirError BadKubeConfig, BadTlsFiles, PortInUse and its kin
 */
export async function startOperator(
  config: OperatorConfig,
  log: Logger,
  onLost: () => void,
): Promise<() => Promise<void>> {
  const kubeConfig = loadKubeConfig();
  const identity = await TlsIdentity.create(config.tls, { clock, log });
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const metrics = createRuntimeMetrics(registry);
  trackCertificate(registry, () => identity.endsAt);
  const common = { kubeConfig, clock, random, log, metrics };

  const rooms = new Reflector<Room>({ ...common, ...roomsResource });
  const sfuNodes = new Reflector<SfuNode>({ ...common, ...nodesResource, namespace: config.namespace });
  const roomClient = new ResourceClient<Room>({ ...roomsResource, kubeConfig, metrics });
  const nodeClient = new ResourceClient<SfuNode>({ ...nodesResource, kubeConfig, metrics });
  const events = new EventRecorder({
    kubeConfig,
    component: 'weir.dev/operator',
    instance: config.identity,
    clock,
    log,
  });

  const nodes = new NodeRegistry({ isThere: ({ controlAddress }) => isListening(controlAddress), clock, log });
  const connections = new NodeConnections({
    registry: nodes,
    access: { identity, nodeDomain: config.nodeDomain },
    clock,
    log,
  });
  const routes = new RouteTable({ replicas: config.natsReplicas, clock, log });
  const view = new FleetView(config.placementStrategy);
  const roomQueue = new WorkQueue({ name: 'room', clock, metrics });
  const nodeQueue = new WorkQueue({ name: 'sfunode', clock, metrics });

  const operatorMetrics = createOperatorMetrics(registry, {
    rooms: () => count(rooms.list().map(({ status }) => conditionOf(status, 'Ready')?.status === 'True')),
    nodes: () => count(nodes.list().map(({ alive }) => alive)),
    network: () => networkFigures(rooms.list()),
  });
  const roomController = new RoomController({
    ...{
      rooms,
      client: roomClient,
      queue: roomQueue,
      fleet: view.index,
      registry: nodes,
      connections,
      routes,
      events,
      clock,
      random,
      log,
    },
    metrics: operatorMetrics,
    url: config.publicUrl,
    idleNodeMs: config.idleNodeMs,
  });
  const nodeController = new SfuNodeController({
    ...{
      nodes: sfuNodes,
      client: nodeClient,
      queue: nodeQueue,
      view,
      registry: nodes,
      connections,
      events,
      clock,
      log,
    },
    metrics: operatorMetrics,
    namespace: config.namespace,
    removeAfterMs: config.removeNodeAfterMs,
    onCapacity: () => roomController.retryPending(),
    onRoomsAffected: (node) => roomController.enqueueNode(node),
  });
  const controllers = [
    new Controller({
      name: 'room',
      queue: roomQueue,
      reconcile: (key) => roomController.reconcile(key),
      workers: roomWorkers,
      log,
      metrics,
      clock,
    }),
    new Controller({
      name: 'sfunode',
      queue: nodeQueue,
      reconcile: (key) => nodeController.reconcile(key),
      workers: nodeWorkers,
      log,
      metrics,
      clock,
    }),
  ];
  const ensure = new EnsureResponder({
    client: roomClient,
    find: (roomName) => roomController.index.owner(roomName),
    exists: (key) => rooms.get(key) !== undefined,
    demand: (room, demand) => roomController.demand(room, demand),
    observeWrite: (room) => rooms.observeWrite(room),
    namespace: config.joinNamespace,
    clock,
    log,
  });

  let nats: NatsConnection | undefined;
  const elector = new LeaderElector({
    ...common,
    ...config.lease,
    namespace: config.namespace,
    name: 'weir-operator',
    identity: config.identity,
  });
  const health = new Health();
  for (const [name, reflector] of Object.entries({ rooms, sfunodes: sfuNodes })) {
    health.addCheck('ready', name, () => {
      if (!reflector.hasSynced) return 'not listed from the API server yet';
      const staleness = reflector.stalenessMs;
      return staleness > staleMs ? `nothing heard of the API server for ${Math.round(staleness / 1000)} s` : undefined;
    });
  }
  health.addCheck('ready', 'nats', () => (nats ? undefined : 'not reached yet'));
  const http = await startHttpServer({ listen: config.httpListen, registry, health, log });
  const autoscaling = await Autoscaling.start({
    ...{ config, kubeConfig, registry: nodes, rooms, sfuNodes, clock, random, log },
    metrics: createAutoscalingMetrics(registry),
    runtimeMetrics: metrics,
  });

  const lead = () => {
    connections.open();
    for (const controller of controllers) controller.start();
    if (nats) ensure.start(nats);
    autoscaling.lead();
  };
  const stopping = new AbortController();
  connectNats({ ...config.nats, name: `operator ${config.identity}`, log, clock, signal: stopping.signal })
    .then(async (connection) => {
      nats = connection;
      const receive = heartbeatReceiver(nodes, log);
      connection.subscribe(subjects.allHeartbeats, {
        callback: (error, message) => {
          if (error) log.error({ err: error }, 'Heartbeats cannot be received');
          else receive(message);
        },
      });
      routes.attach(connection);
      nodes.resume();
      if (elector.isLeader) ensure.start(connection);
      // While we cannot hear, nobody is declared dead.
      for await (const { type } of connection.status()) {
        if (type === 'disconnect') nodes.pause();
        if (type !== 'reconnect') continue;
        nodes.resume();
        routes.attach(connection);
        roomController.enqueueAll();
      }
    })
    .catch((error: unknown) => {
      if (!stopping.signal.aborted) log.error({ err: error }, 'The connection to NATS ended');
    });
  rooms.start();
  sfuNodes.start();
  void Promise.all([rooms.synced(), sfuNodes.synced()]).then(() => {
    if (!stopping.signal.aborted) elector.run({ onElected: lead, onLost });
  });

  if (config.stateFile) {
    const { host } = config.httpListen;
    await writeStateFile(config.stateFile, {
      pid: process.pid,
      http: printAddress({ host, port: http.port }),
      identity: config.identity,
      ...autoscaling.ports,
    });
  }
  log.info({ identity: config.identity, namespace: config.namespace, http: http.port }, 'Operator is up');

  return async () => {
    stopping.abort();
    ensure.stop();
    await Promise.all([...controllers.map((controller) => controller.stop()), autoscaling.unlead()]);
    await elector.stop();
    // Events that still wait; main ends the process if they take too long.
    await events.flush();
    connections.close();
    identity.close();
    nodes.close();
    await routes.close();
    await Promise.all([rooms.stop(), sfuNodes.stop(), nats?.close(), http.close(), autoscaling.close()]);
  };
}

function count(ready: boolean[]): { ready: number; notReady: number } {
  const yes = ready.filter(Boolean).length;
  return { ready: yes, notReady: ready.length - yes };
}
