import type { Room } from '#crds/room.ts';
import { codeOf } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import type { FleetIndex } from '#core/placement/mod.ts';
import type { NodeConnections } from '../fleet/connections.ts';
import type { NodeRegistry } from '../fleet/node-registry.ts';
import type { RouteTable } from '../fleet/route-table.ts';
import type { EventRecorder } from '../runtime/events.ts';
import { isNotFound, type ResourceClient } from '../runtime/kube.ts';
import type { Failovers } from './failovers.ts';
import type { Action } from './plan.ts';
import { finalizer, placementOf, refOf, reservedStreams } from './translate.ts';
import { conditionOf, type RoomStatus } from './status.ts';

export interface RoomEffects {
  client: ResourceClient<Room>;
  /** Takes the result of our own write, so that it is read at once. */
  observeWrite: (room: Room) => void;
  fleet: FleetIndex;
  registry: NodeRegistry;
  connections: NodeConnections;
  routes: RouteTable;
  events: EventRecorder;
  /** Told when a room's counts were written. */
  onCounts: (uid: string) => void;
  /** Told what rooms leave and when they are served again. */
  failovers: Failovers;
  /** Told when streams of a room were sent another way. */
  onRerouted: (uid: string) => void;
  log: Logger;
}

/** Placements that are no event: the status says them, and a burst of joins has no time for more writes. */
const ordinary = new Set(['Placed', 'Extended', 'Shrunk']);

/** Carries out one action of a plan. Every action may be carried out twice without harm. */
export async function applyAction(action: Action, room: Room | undefined, effects: RoomEffects): Promise<void> {
  switch (action.type) {
    case 'release':
      return release(action, effects);
    case 'deleteRoute':
      return effects.routes.delete(action.roomName);
    case 'putRoute':
      return effects.routes.put(action.route);
    default:
  }
  if (!room) return;
  const { uid = '', name = '', namespace } = room.metadata;
  switch (action.type) {
    case 'addFinalizer':
      return patchFinalizers(room, [...(room.metadata.finalizers ?? []), finalizer], effects);
    case 'removeFinalizer':
      return patchFinalizers(
        room,
        (room.metadata.finalizers ?? []).filter((other) => other !== finalizer),
        effects,
      );
    case 'writePlacement': {
      const { placement, status, reason, message } = action;
      // Counted before it is written: the next decision is made while this one is under way.
      for (const { node } of placement.nodes)
        effects.fleet.reserve(node, uid, reservedStreams(room, node, placement.nodes));
      try {
        await writeStatus(room, status, effects);
      } catch (error) {
        const kept = new Set(placementOf(room)?.nodes.map(({ node }) => node));
        for (const { node } of placement.nodes) if (!kept.has(node)) effects.fleet.release(node, uid);
        throw error;
      }
      const nodes = placement.nodes.map(({ node }) => node);
      effects.log.info({ room: uid, roomName: refOf(room).roomName, epoch: placement.epoch, nodes, reason }, message);
      if (reason === 'Rerouted') effects.onRerouted(uid);
      if (reason === 'Moved' || reason === 'Dropped') {
        const left = placementOf(room)?.nodes.flatMap(({ node }) => (nodes.includes(node) ? [] : node)) ?? [];
        effects.failovers.left(uid, left);
      }
      if (ordinary.has(reason)) return;
      return effects.events.event(asEventTarget(room), 'Normal', reason, message, 'Schedule');
    }
    case 'writeStatus': {
      await writeStatus(room, action.status, effects);
      effects.onCounts(uid);
      if (conditionOf(action.status, 'Ready')?.status === 'True') effects.failovers.served(uid);
      if (!action.event) return;
      const fields = { room: uid, roomName: refOf(room).roomName, epoch: action.status.epoch, reason: action.reason };
      effects.log[action.event === 'Warning' ? 'warn' : 'info'](fields, action.message);
      return effects.events.event(asEventTarget(room), action.event, action.reason, action.message, 'Reconcile');
    }
    case 'apply': {
      const { registry, connections } = effects;
      const instance = registry.get(action.node)?.heartbeat.instance ?? '';
      const status = await connections.client(action.node).apply(action.assignment);
      return registry.served(action.node, { instance, event: { $case: 'assigned', value: status } });
    }
    case 'deleteRoom':
      effects.log.info({ room: uid, roomName: refOf(room).roomName, reason: action.reason }, action.message);
      return effects.client.delete(name, namespace, { uid }).catch(ignoreNotFound);
  }
}

async function release(action: Extract<Action, { type: 'release' }>, effects: RoomEffects): Promise<void> {
  const { registry, connections } = effects;
  const instance = registry.get(action.node)?.heartbeat.instance ?? '';
  await connections.client(action.node).release(action.room, action.epoch, action.reason);
  registry.served(action.node, { instance, event: { $case: 'released', value: action.room } });
}

async function writeStatus(room: Room, status: RoomStatus, effects: RoomEffects): Promise<void> {
  effects.observeWrite(await effects.client.replaceStatus({ ...room, status }));
}

/** On the condition that nobody else changed the object: a merge patch replaces the whole list. */
async function patchFinalizers(room: Room, finalizers: string[], effects: RoomEffects): Promise<void> {
  const { name = '', namespace, resourceVersion, uid } = room.metadata;
  const body = { metadata: { finalizers, resourceVersion, uid } };
  try {
    const written = await effects.client.patchMerge(name, namespace, body);
    if (!written.metadata.deletionTimestamp || written.metadata.finalizers?.length) effects.observeWrite(written);
  } catch (error) {
    ignoreNotFound(error);
  }
}

function asEventTarget(room: Room): { apiVersion: string; kind: string; metadata: Room['metadata'] } {
  return { apiVersion: 'weir.dev/v1alpha1', kind: 'Room', metadata: room.metadata };
}

function ignoreNotFound(error: unknown): void {
  if (!isNotFound(error)) throw error;
}

/** Whether an error is the node's refusal of an epoch older than one that it has seen. */
export function isStaleEpoch(error: unknown): boolean {
  return codeOf(error) === 'StaleEpoch';
}
