/** A fleet and its Rooms in memory: the operator's own planning, with nodes that do at once as they are told. */
import type { NodeView, Placement } from '#core/model.ts';
import { choicesOf, FleetIndex, servingNodes, type Choices } from '#core/placement/mod.ts';
import { pairKey, pairOf } from '#core/topology/mod.ts';
import type { Room } from '#crds/room.ts';
import { RoomMemories } from '#operator/room/memory.ts';
import { sightOf } from '#operator/room/observe.ts';
import { planRoom, type Action, type RoomSnapshot } from '#operator/room/plan.ts';
import { conditionOf } from '#operator/room/status.ts';
import { finalizer, placementOf, reservedStreams } from '#operator/room/translate.ts';
import { LinkState, LinkStatus, type Assignment, type AssignmentStatus } from '#proto/weir/control/v1/control.ts';
import type { Route } from '#proto/weir/fleet/v1/fleet.ts';

/** Steps after which a room that finds no rest is a bug. */
const maxSteps = 32;

/** A Room and all that nodes and routing table have of it. */
export interface SimulatedRoom {
  readonly room: Room;
  readonly uid: string;
  /** Participants by region. */
  readonly people: Map<string, number>;
  readonly statuses: Map<string, AssignmentStatus>;
  readonly told: Map<string, Assignment>;
  route: Route | undefined;
}

export class SimulatedFleet {
  readonly index = new FleetIndex();
  readonly rooms: SimulatedRoom[] = [];
  /** Nanoseconds that each look at a room took to plan. */
  readonly planNanos: number[] = [];
  /** Links that are down, by pairKey. */
  readonly down = new Set<string>();
  now = Date.parse('2026-03-01T10:00:00Z');
  readonly #memories = new RoomMemories();
  readonly #roomsOn = new Map<string, Set<SimulatedRoom>>();
  readonly #choices: Choices;

  constructor(nodes: readonly NodeView[], random: () => number) {
    for (const node of nodes) this.index.update(node);
    this.#choices = choicesOf(this.index, random);
  }

  /** A new Room, served. */
  add(name: string, spec: Room['spec']): SimulatedRoom {
    const uid = `uid-${name}`;
    const metadata = { name, namespace: 'default', uid, generation: 1 };
    const room: SimulatedRoom = {
      room: { metadata, spec },
      uid,
      people: new Map(),
      statuses: new Map(),
      told: new Map(),
      route: undefined,
    };
    this.rooms.push(room);
    this.settle(room);
    return room;
  }

  /** Somebody joins from a region; `full` of the room's nodes refused. */
  join(room: SimulatedRoom, region: string, full: readonly string[] = []): void {
    room.people.set(region, (room.people.get(region) ?? 0) + 1);
    this.#memories.demand(room.uid, { region, full }, this.now);
    this.settle(room);
  }

  /** A node dies; its rooms are planned anew. Answers with how many they were. */
  lose(name: string): number {
    const view = this.index.get(name);
    if (!view) return 0;
    this.index.update({ ...view, ready: false });
    const rooms = [...(this.#roomsOn.get(name) ?? [])];
    for (const room of rooms) {
      room.statuses.delete(name);
      this.settle(room);
    }
    return rooms.length;
  }

  /** Plans and carries out until there is nothing left to do. */
  settle(simulated: SimulatedRoom): void {
    for (let step = 0; step < maxSteps; step += 1) {
      const snapshot = this.#observe(simulated);
      const start = process.hrtime.bigint();
      const { actions } = planRoom(snapshot, this.#choices);
      this.planNanos.push(Number(process.hrtime.bigint() - start));
      if (actions.length === 0) return;
      for (const action of actions) this.#carryOut(action, simulated);
    }
    throw new Error(`room ${simulated.uid} found no rest`);
  }

  /** What is wrong with a room; undefined when it is served and all its nodes reach one another. */
  fault({ room, told }: SimulatedRoom): string | undefined {
    if (conditionOf(room.status, 'Ready')?.status !== 'True') return 'it is not Ready';
    const placement = placementOf(room);
    for (const { node } of placement?.nodes ?? []) {
      if (!this.index.get(node)?.ready) return `${node} is dead`;
      for (const { node: source } of servingNodes(placement?.nodes ?? []))
        if (source !== node && !this.#reaches(told, source, node)) return `${source} does not reach ${node}`;
    }
    return undefined;
  }

  #reaches(told: ReadonlyMap<string, Assignment>, source: string, node: string): boolean {
    let at = node;
    for (let hops = 0; hops <= told.size; hops += 1) {
      if (at === source) return true;
      const via = told.get(at)?.routes.find((route) => route.source === source)?.via;
      if (via === undefined || this.down.has(pairKey(pairOf(at, via)))) return false;
      at = via;
    }
    return false;
  }

  #observe({ room, statuses, told, people, route }: SimulatedRoom): RoomSnapshot {
    const placed = placementOf(room)?.nodes ?? [];
    const regions = new Map(placed.map(({ node, region }) => [node, region]));
    const served = new Set<string>();
    for (const { node, region } of placed) {
      const status = statuses.get(node);
      if (!status) continue;
      // The first of a region has its people.
      const participants = served.has(region) ? 1 : (people.get(region) ?? 0);
      served.add(region);
      const links = (told.get(node)?.links ?? []).map((peer) => this.#linkStatus(node, peer, regions));
      statuses.set(node, { ...status, participants, streams: participants * 4, links });
    }
    const serving = [...statuses].map(([node, status]) => ({ node, status }));
    const memory = this.#memories.look(room.metadata.uid ?? '', sightOf(room, { serving, route, now: this.now }));
    return {
      key: `default/${room.metadata.name}`,
      room,
      nameTakenBy: undefined,
      serving,
      gone: new Set(placed.map(({ node }) => node).filter((node) => !this.index.get(node)?.ready)),
      unknown: new Set(),
      callable: new Set(statuses.keys()),
      route,
      url: undefined,
      countsWrittenAt: 0,
      idleNodeMs: 30_000,
      memory,
      now: this.now,
    };
  }

  #linkStatus(node: string, peer: string, regions: ReadonlyMap<string, string>): LinkStatus {
    const state = this.down.has(pairKey(pairOf(node, peer))) ? LinkState.DOWN : LinkState.UP;
    return LinkStatus.create({ peer, state, rttMs: rttMs(regions.get(node) ?? '', regions.get(peer) ?? '') });
  }

  #carryOut(action: Action, simulated: SimulatedRoom): void {
    const { room, statuses, told, uid } = simulated;
    switch (action.type) {
      case 'addFinalizer':
        room.metadata.finalizers = [finalizer];
        return;
      case 'writePlacement':
        this.#reserve(simulated, action.placement);
        room.status = action.status;
        if (action.reason === 'Rerouted') this.#memories.rerouted(uid, this.now);
        return;
      case 'writeStatus':
        room.status = action.status;
        return;
      case 'apply': {
        const { room: ref, epoch, generation } = action.assignment;
        const known = statuses.get(action.node) ?? { participants: 0, streams: 0, links: [] };
        statuses.set(action.node, { ...known, room: ref, epoch, generation });
        told.set(action.node, action.assignment);
        return;
      }
      case 'putRoute':
        simulated.route = action.route;
        return;
      case 'release':
        statuses.delete(action.node);
        told.delete(action.node);
        return;
      default:
        throw new Error(`${action.type} was not to be expected`);
    }
  }

  #reserve(simulated: SimulatedRoom, { nodes }: Placement): void {
    const { room, uid } = simulated;
    for (const { node } of placementOf(room)?.nodes ?? []) {
      this.index.release(node, uid);
      this.#roomsOn.get(node)?.delete(simulated);
    }
    for (const { node } of nodes) {
      this.index.reserve(node, uid, reservedStreams(room, node, nodes));
      this.#roomsOn.set(node, (this.#roomsOn.get(node) ?? new Set()).add(simulated));
    }
  }
}

/** Between regions as far apart as their numbers are, milliseconds. */
function rttMs(a: string, b: string): number {
  const number = (region: string) => Number(region.split('-')[1]);
  return a === b ? 1 : 20 * Math.abs(number(a) - number(b)) + 5;
}
