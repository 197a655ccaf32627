import type { Room } from '#crds/room.ts';
import type { Placement } from '#core/model.ts';
import { choicesOf, type Choices, type Demand, type DemandAnswer, type FleetIndex } from '#core/placement/mod.ts';
import type { Clock } from '#platform/clock.ts';
import { codeOf, messageOf } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import type { NodeConnections } from '../fleet/connections.ts';
import type { NodeRegistry } from '../fleet/node-registry.ts';
import type { RouteTable } from '../fleet/route-table.ts';
import type { OperatorMetrics } from '../metrics.ts';
import type { ReconcileResult } from '../runtime/controller.ts';
import type { EventRecorder } from '../runtime/events.ts';
import { keyOf, type ResourceClient } from '../runtime/kube.ts';
import type { Reflector } from '../runtime/reflector.ts';
import type { WorkQueue } from '../runtime/workqueue.ts';
import { applyAction, isStaleEpoch, type RoomEffects } from './apply.ts';
import { Failovers } from './failovers.ts';
import { observeRoom, type RoomSources } from './observe.ts';
import { RoomMemories } from './memory.ts';
import { spanRequest } from './network.ts';
import { planRoom, type Action, type RoomSnapshot } from './plan.ts';
import { RoomIndex } from './room-index.ts';
import { conditionOf, nextStatus, placementFields } from './status.ts';
import { placementOf, reservedStreams, roomNameOf } from './translate.ts';

/** Steps that one reconciliation may take; a room needs five from its creation to Ready. */
const maxSteps = 16;

export interface RoomControllerOptions {
  rooms: Reflector<Room>;
  client: ResourceClient<Room>;
  queue: WorkQueue;
  fleet: FleetIndex;
  registry: NodeRegistry;
  connections: NodeConnections;
  routes: RouteTable;
  events: EventRecorder;
  metrics: OperatorMetrics;
  url: string | undefined;
  /** A node on which nobody of a room was for so long leaves it, milliseconds. */
  idleNodeMs: number;
  clock: Clock;
  random: () => number;
  log: Logger;
}

/** Brings each Room onto the nodes that serve it: observe, plan, apply, until there is nothing left to do. */
export class RoomController {
  readonly index = new RoomIndex();
  readonly #options: RoomControllerOptions;
  readonly #sources: RoomSources;
  readonly #effects: RoomEffects;
  readonly #memories = new RoomMemories();
  readonly #choices: Choices;
  readonly #failovers: Failovers;
  readonly #countsWritten = new Map<string, number>();
  /** Rooms that fit nowhere, looked at again when the fleet changes. */
  readonly #pending = new Set<string>();

  constructor(options: RoomControllerOptions) {
    this.#options = options;
    const { rooms, client, fleet, registry, connections, routes, events, clock, log, url, idleNodeMs } = options;
    this.#sources = {
      rooms,
      index: this.index,
      registry,
      connections,
      routes,
      memories: this.#memories,
      countsWritten: this.#countsWritten,
      url,
      idleNodeMs,
      clock,
    };
    const choices = choicesOf(fleet, options.random);
    this.#choices = { ...choices, span: (request) => options.metrics.timePlacement(() => choices.span(request)) };
    this.#failovers = new Failovers({
      node: (name) => registry.get(name),
      now: () => clock.now(),
      onEnd: (cause, seconds) => options.metrics.failovers.observe({ cause }, seconds),
    });
    const onCounts = (uid: string) => void this.#countsWritten.set(uid, clock.now());
    const onRerouted = (uid: string) => this.#memories.rerouted(uid, clock.now());
    this.#effects = {
      client,
      observeWrite: (room) => rooms.observeWrite(room),
      fleet,
      registry,
      connections,
      routes,
      events,
      onCounts,
      onRerouted,
      failovers: this.#failovers,
      log,
    };
    rooms.onChange((key, current, previous) => this.#roomChanged(key, current, previous));
    registry.onServed(({ namespace, name }) => options.queue.add(`${namespace}/${name}`));
    routes.onChange((roomName) => this.#enqueueName(roomName));
  }

  /** One reconciliation of the room under a key. */
  async reconcile(key: string): Promise<void | ReconcileResult> {
    for (let step = 0; step < maxSteps; step += 1) {
      const snapshot = observeRoom(key, this.#sources);
      const plan = planRoom(snapshot, this.#choices);
      this.#notePending(key, snapshot, plan.requeueAfterMs !== undefined);
      const stop = await this.#carryOut(plan.actions, snapshot.room);
      if (stop) return stop;
      if (plan.actions.length === 0)
        return plan.requeueAfterMs === undefined ? undefined : { requeueAfterMs: plan.requeueAfterMs };
    }
    return { requeueAfterMs: 1000 };
  }

  /**
   * Takes what a client that waits for its join asks of a placed room; when the room can be extended for it, it will be.
   * The answer is for this moment.
   */
  demand(room: Room, demand: Demand): DemandAnswer {
    const key = keyOf(room);
    const snapshot = observeRoom(key, this.#sources);
    const answer = this.#choices.answerTo(demand, spanRequest(room, snapshot));
    if (answer.kind === 'extend') {
      const isNew = this.#memories.demand(room.metadata.uid ?? '', demand, snapshot.now);
      if (isNew) this.#options.queue.add(key);
    }
    return answer;
  }

  /** Looks again at every room that fits nowhere: the fleet has changed for the better. */
  retryPending(): void {
    for (const key of this.#pending) this.#options.queue.add(key);
  }

  /** Looks again at every room: what they all depend on came back. */
  enqueueAll(): void {
    for (const room of this.#options.rooms.list()) this.#options.queue.add(keyOf(room));
  }

  /** Looks again at every room that is placed on a node. */
  enqueueNode(node: string): void {
    for (const room of this.#options.rooms.list()) {
      const { namespace = '', name = '' } = room.metadata;
      if (placementOf(room)?.nodes.some((placed) => placed.node === node))
        this.#options.queue.add(`${namespace}/${name}`);
    }
  }

  #roomChanged(key: string, current: Room | undefined, previous: Room | undefined): void {
    const { fleet, queue } = this.#options;
    this.index.change(key, current, previous);
    const uid = (current ?? previous)?.metadata.uid ?? '';
    const placed = (current && placementOf(current)?.nodes) ?? [];
    const now = new Set(placed.map(({ node }) => node));
    if (previous) {
      const same = previous.metadata.uid === current?.metadata.uid;
      for (const { node } of placementOf(previous)?.nodes ?? []) {
        if (!same || !now.has(node)) fleet.release(node, previous.metadata.uid ?? '');
      }
    }
    if (current) for (const { node } of placed) fleet.reserve(node, uid, reservedStreams(current, node, placed));
    queue.add(key);
    if (!current) {
      this.#pending.delete(key);
      this.#memories.forget(uid);
      this.#countsWritten.delete(uid);
      this.#failovers.forget(uid);
      if (previous) this.#enqueueName(roomNameOf(previous));
      this.retryPending();
    }
  }

  /** Carries a plan out; assignments go to all nodes at once. Answers when this reconciliation ends with it. */
  async #carryOut(actions: readonly Action[], room: Room | undefined): Promise<ReconcileResult | undefined> {
    const applies = actions.filter(({ type }) => type === 'apply');
    const others = actions.filter(({ type }) => type !== 'apply');
    const results = await Promise.allSettled(applies.map((action) => applyAction(action, room, this.#effects)));
    const failed = results.flatMap((result): unknown[] => (result.status === 'rejected' ? [result.reason] : []));
    const stale = failed.find(isStaleEpoch);
    if (stale !== undefined && room) return this.#raiseEpoch(room, stale);
    if (failed.length > 0) {
      if (room) await this.#tellFailure(room, failed[0]);
      throw failed[0];
    }
    for (const action of others) await applyAction(action, room, this.#effects);
    return undefined;
  }

  #enqueueName(roomName: string): void {
    for (const key of this.index.keys(roomName)) this.#options.queue.add(key);
    const left = this.#options.routes.get(roomName)?.room;
    if (left) this.#options.queue.add(`${left.namespace}/${left.name}`);
  }

  #notePending(key: string, { room }: RoomSnapshot, waits: boolean): void {
    const placed = room && (placementOf(room)?.nodes.length ?? 0) > 0;
    if (room && !placed && waits) this.#pending.add(key);
    else this.#pending.delete(key);
  }

  /** A room that is not served yet says why; one that is served keeps that. */
  async #tellFailure(room: Room, error: unknown): Promise<void> {
    const ready = conditionOf(room.status, 'Ready');
    const reason = codeOf(error);
    if (ready?.status === 'True' || ready?.reason === reason) return;
    const message = messageOf(error);
    const status = nextStatus(room.status, {
      wanted: { Ready: { status: 'False', reason, message } },
      generation: room.metadata.generation ?? 1,
      now: this.#options.clock.now(),
    });
    await applyAction({ type: 'writeStatus', status, reason, message, event: 'Warning' }, room, this.#effects);
  }

  /** The node has seen a newer epoch than the status holds (a backup of etcd was restored, say): climb past it. */
  async #raiseEpoch(room: Room, error: unknown): Promise<ReconcileResult> {
    const placement: Placement = placementOf(room) ?? { epoch: 0, nodes: [] };
    const message = messageOf(error);
    const epoch = placement.epoch + 1;
    const generation = room.metadata.generation ?? 1;
    const status = nextStatus(room.status, {
      ...placementFields(epoch, placement.nodes),
      wanted: { Ready: { status: 'False', reason: 'StaleEpoch', message } },
      generation,
      now: this.#options.clock.now(),
    });
    await applyAction(
      { type: 'writeStatus', status, reason: 'StaleEpoch', message, event: 'Warning' },
      room,
      this.#effects,
    );
    return { requeueAfterMs: 0 };
  }
}
