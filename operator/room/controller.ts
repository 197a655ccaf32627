import type { Room } from '#crds/room.ts';
import type { Placement } from '#core/model.ts';
import { place, type FleetIndex } from '#core/placement/mod.ts';
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
import { observeRoom, type RoomSources } from './observe.ts';
import { Occupancy } from './occupancy.ts';
import { planRoom, type RoomSnapshot } from './plan.ts';
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
  readonly #occupancy = new Occupancy();
  readonly #countsWritten = new Map<string, number>();
  /** Rooms that fit nowhere, looked at again when the fleet changes. */
  readonly #pending = new Set<string>();

  constructor(options: RoomControllerOptions) {
    this.#options = options;
    const { rooms, client, fleet, registry, connections, routes, events, clock, log, url } = options;
    this.#sources = {
      rooms,
      index: this.index,
      registry,
      connections,
      routes,
      occupancy: this.#occupancy,
      countsWritten: this.#countsWritten,
      url,
      clock,
    };
    const onCounts = (uid: string) => void this.#countsWritten.set(uid, clock.now());
    this.#effects = {
      client,
      observeWrite: (room) => rooms.observeWrite(room),
      fleet,
      registry,
      connections,
      routes,
      events,
      onCounts,
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
      const plan = planRoom(snapshot, (room) =>
        this.#options.metrics.timePlacement(() => place(room, this.#options.fleet, this.#options.random)),
      );
      this.#notePending(key, snapshot, plan.requeueAfterMs !== undefined);
      for (const action of plan.actions) {
        try {
          await applyAction(action, snapshot.room, this.#effects);
        } catch (error) {
          if (isStaleEpoch(error) && snapshot.room) return await this.#raiseEpoch(snapshot.room, error);
          if (action.type === 'apply' && snapshot.room) await this.#tellFailure(snapshot.room, error);
          throw error;
        }
      }
      if (plan.actions.length === 0)
        return plan.requeueAfterMs === undefined ? undefined : { requeueAfterMs: plan.requeueAfterMs };
    }
    return { requeueAfterMs: 1000 };
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
    const now = new Set(current && placementOf(current)?.nodes.map(({ node }) => node));
    if (previous) {
      const same = previous.metadata.uid === current?.metadata.uid;
      for (const { node } of placementOf(previous)?.nodes ?? []) {
        if (!same || !now.has(node)) fleet.release(node, previous.metadata.uid ?? '');
      }
    }
    if (current) for (const node of now) fleet.reserve(node, uid, reservedStreams(current));
    queue.add(key);
    if (!current) {
      this.#pending.delete(key);
      this.#occupancy.forget(uid);
      this.#countsWritten.delete(uid);
      if (previous) this.#enqueueName(roomNameOf(previous));
      this.retryPending();
    }
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
