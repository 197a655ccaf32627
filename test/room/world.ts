import assert from 'node:assert/strict';
import type { NodeView, Placement } from '#core/model.ts';
import { choicesOf, FleetIndex, servingNodes } from '#core/placement/mod.ts';
import { pairKey, pairOf } from '#core/topology/mod.ts';
import type { Room } from '#crds/room.ts';
import { RoomMemories } from '#operator/room/memory.ts';
import { sightOf } from '#operator/room/observe.ts';
import { planRoom, type Action, type Plan, type RoomSnapshot } from '#operator/room/plan.ts';
import { conditionOf, type ConditionType } from '#operator/room/status.ts';
import { finalizer, placementOf, reservedStreams } from '#operator/room/translate.ts';
import { LinkState, LinkStatus, type Assignment, type AssignmentStatus } from '#proto/weir/control/v1/control.ts';
import type { Route } from '#proto/weir/fleet/v1/fleet.ts';

/** Nodes on which nobody is leave a room after this, milliseconds. */
export const idleNodeMs = 30_000;

/** When worlds begin, milliseconds since the epoch. */
export const start = Date.parse('2026-03-01T10:00:00Z');

/** A node that can take rooms: ready, empty, in eu-west. */
export function nodeView(name: string, more: Partial<NodeView> = {}): NodeView {
  return {
    name,
    region: 'eu-west',
    zone: '',
    labels: {},
    ready: true,
    unschedulable: false,
    draining: false,
    capacity: { streams: 500, mbps: 500 },
    load: { streams: 0, mbps: 0, cpu: 0 },
    reliability: { joinSuccess: 1, linkLoss: 0 },
    cost: 100,
    ...more,
  };
}

/** A Room as it is when it was just made. */
export function newRoom(
  name = 'daily',
  more: { spec?: Room['spec']; metadata?: Partial<Room['metadata']> } = {},
): Room {
  return {
    metadata: { name, namespace: 'default', uid: `uid-${name}`, generation: 1, ...more.metadata },
    spec: more.spec ?? {},
  };
}

/** A fleet and one Room, in memory: actions are carried out at once, and every step is told in words. */
export class World {
  readonly key = 'default/daily';
  /** What each node was last told. */
  readonly told = new Map<string, Assignment>();
  /** Links that do not work as they should, by pairKey; all others are up as soon as both ends know of them. */
  readonly trouble = new Map<string, Partial<LinkStatus>>();
  readonly fleet = new FleetIndex();
  readonly log: string[] = [];
  readonly served = new Map<string, Map<string, AssignmentStatus>>();
  readonly gone = new Set<string>();
  readonly unknown = new Set<string>();
  readonly uncallable = new Set<string>();
  /** Nodes that beat, and confirm nothing. */
  readonly deaf = new Set<string>();
  room: Room | undefined;
  nameTakenBy: string | undefined;
  route: Route | undefined;
  countsWrittenAt = 0;
  readonly memories = new RoomMemories();
  now = start;

  constructor(room: Room | undefined, ...nodes: NodeView[]) {
    this.room = room;
    for (const node of nodes) this.add(node);
  }

  add(node: NodeView): void {
    this.fleet.update(node);
    if (!this.served.has(node.name)) this.served.set(node.name, new Map());
  }

  /** No heartbeats any more: not ready, and not to be called. What it said it serves stays its last word. */
  lose(name: string): void {
    this.fleet.update({ ...this.view(name), ready: false });
    this.gone.add(name);
    this.uncallable.add(name);
  }

  back(name: string, instance: 'same' | 'new'): void {
    this.fleet.update({ ...this.view(name), ready: true });
    this.gone.delete(name);
    this.uncallable.delete(name);
    if (instance === 'new') this.served.set(name, new Map());
  }

  view(name: string): NodeView {
    return this.fleet.get(name) ?? assert.fail(`no node ${name}`);
  }

  plan(): Plan {
    this.#report();
    const serving = [...this.served].flatMap(([node, rooms]) =>
      [...rooms.values()].map((status) => ({ node, status })),
    );
    const { key, room, nameTakenBy, gone, unknown, route, countsWrittenAt, now } = this;
    const callable = new Set([...this.served.keys()].filter((name) => !this.uncallable.has(name)));
    const memory = this.memories.look(room?.metadata.uid ?? '', sightOf(room ?? newRoom(), { serving, route, now }));
    const seen = { key, room, nameTakenBy, serving, gone, unknown, callable, route, countsWrittenAt, memory, now };
    const snapshot: RoomSnapshot = { ...seen, idleNodeMs, url: 'wss://fleet' };
    return planRoom(
      snapshot,
      choicesOf(this.fleet, () => 0),
    );
  }

  /** Plans and carries out until nothing is left to do, and checks after every step what must always hold. */
  settle(): Plan {
    for (let step = 0; step < 32; step += 1) {
      const plan = this.plan();
      const isVain = (action: Action) => action.type === 'apply' && this.deaf.has(action.node);
      if (plan.actions.every(isVain)) return plan;
      for (const action of plan.actions) this.#carryOut(action);
      this.#check();
    }
    return assert.fail(`no end of steps:\n${this.log.join('\n')}`);
  }

  get ready(): string {
    const condition = conditionOf(this.room?.status, 'Ready');
    return `${condition?.status} ${condition?.reason}`;
  }

  take(): string[] {
    return this.log.splice(0);
  }

  get uid(): string {
    return this.room?.metadata.uid ?? '';
  }

  /** A client of a region wants to join; the nodes that it tried are full. */
  demand(region: string, ...full: string[]): void {
    this.memories.demand(this.uid, { region, full }, this.now);
  }

  /** People on nodes, and two streams each. */
  people(on: Readonly<Record<string, number>>): void {
    for (const [node, participants] of Object.entries(on)) {
      const status = this.served.get(node)?.get(this.uid);
      if (status) this.served.get(node)?.set(this.uid, { ...status, participants, streams: 2 * participants });
    }
  }

  /** Both ends of a link say this of it from now on; nothing: it works. */
  link(a: string, b: string, says?: Partial<LinkStatus>): void {
    if (says) this.trouble.set(pairKey(pairOf(a, b)), says);
    else this.trouble.delete(pairKey(pairOf(a, b)));
  }

  /** From which neighbour a node takes the streams of another. */
  via(node: string, source: string): string | undefined {
    return this.told.get(node)?.routes.find((route) => route.source === source)?.via;
  }

  get links(): string[] {
    return (this.room?.status?.links ?? []).map(({ from, to, state }) => `${from}-${to} ${state}`);
  }

  condition(type: ConditionType): string {
    const { status, reason, message } = conditionOf(this.room?.status, type)!;
    return `${status} ${reason}: ${message}`;
  }

  /** Nodes say how their links are; those that cannot be called have said their last. */
  #report(): void {
    for (const [node, rooms] of this.served) {
      const status = rooms.get(this.uid);
      const assignment = this.told.get(node);
      if (!status || !assignment || this.uncallable.has(node)) continue;
      rooms.set(this.uid, { ...status, links: assignment.links.map((peer) => this.#linkStatus(node, peer)) });
    }
  }

  #linkStatus(node: string, peer: string): LinkStatus {
    const mutual = this.served.get(peer)?.has(this.uid) && this.told.get(peer)?.links.includes(node);
    const far = this.view(node).region !== this.view(peer).region;
    const state = mutual && !this.uncallable.has(peer) ? LinkState.UP : LinkState.OPENING;
    return LinkStatus.create({ peer, state, rttMs: far ? 80 : 1, ...this.trouble.get(pairKey(pairOf(node, peer))) });
  }

  #carryOut(action: Action): void {
    const room = this.room;
    const say = (words: string) => this.log.push(words);
    const uid = room?.metadata.uid ?? '';
    switch (action.type) {
      case 'addFinalizer':
        room!.metadata.finalizers = [finalizer];
        return void say('finalizer');
      case 'removeFinalizer':
        this.room = undefined;
        return void say('finalizer removed');
      case 'writePlacement':
        for (const { node } of placementOf(room!)?.nodes ?? []) this.fleet.release(node, uid);
        for (const { node } of action.placement.nodes)
          this.fleet.reserve(node, uid, reservedStreams(room!, node, action.placement.nodes));
        room!.status = action.status;
        if (action.reason === 'Rerouted') this.memories.rerouted(uid, this.now);
        return void say(`placed on ${action.status.nodes} at epoch ${action.placement.epoch} (${action.reason})`);
      case 'writeStatus':
        room!.status = action.status;
        this.countsWrittenAt = this.now;
        return void say(`status ${this.ready}${action.event ? ', event' : ''}`);
      case 'apply': {
        if (this.deaf.has(action.node)) return;
        const { room: ref, epoch, generation } = action.assignment;
        const known = this.served.get(action.node)?.get(uid);
        const kept = known ?? { participants: 0, streams: 0, links: [] };
        this.served.get(action.node)?.set(uid, { ...kept, room: ref, epoch, generation });
        this.told.set(action.node, action.assignment);
        return void say(`${action.node} serves epoch ${epoch} generation ${generation}`);
      }
      case 'putRoute':
        this.route = action.route;
        return void say(`route to ${action.route.nodes.map(({ node }) => node).join()} at epoch ${action.route.epoch}`);
      case 'deleteRoute':
        this.route = undefined;
        return void say('route removed');
      case 'release': {
        const known = this.served.get(action.node)?.get(action.room.uid);
        if (known && known.epoch <= action.epoch) this.served.get(action.node)?.delete(action.room.uid);
        return void say(`${action.node} lets go (${action.reason})`);
      }
      case 'deleteRoom':
        room!.metadata.deletionTimestamp = new Date(this.now);
        return void say(`room deleted: ${action.message}`);
    }
  }

  #check(): void {
    const { room } = this;
    if (!room || conditionOf(room.status, 'Ready')?.status !== 'True' || room.metadata.deletionTimestamp) return;
    const placement = placementOf(room);
    assert.ok(placement && placement.nodes.length > 0, 'Ready has a placement');
    assert.equal(this.route?.epoch, placement.epoch, 'Ready has its route');
    this.#checkNetwork(placement);
  }

  /** Both ends know of a link, and every node has a way by which the streams of every other come. */
  #checkNetwork({ epoch, nodes }: Placement): void {
    const told = new Map(
      nodes.map(({ node }) => [node, this.told.get(node) ?? assert.fail(`${node} was told nothing`)]),
    );
    for (const [node, assignment] of told) {
      assert.equal(assignment.epoch, epoch, `${node} was told of this epoch`);
      for (const peer of assignment.links)
        assert.ok(told.get(peer)?.links.includes(node), `${peer} knows of its link with ${node}`);
      for (const source of servingNodes(nodes)) if (source.node !== node) this.#checkWay(source.node, node);
    }
  }

  #checkWay(source: string, node: string): void {
    const way = [node];
    for (let at = node; at !== source;) {
      const next = this.via(at, source) ?? assert.fail(`streams of ${source} reach ${node}: ${way.join()}`);
      assert.ok(this.told.get(at)?.links.includes(next), `${at} has a link with ${next}`);
      assert.ok(!way.includes(next), `streams of ${source} go in no circles: ${way.join()}`);
      way.push(next);
      at = next;
    }
  }
}

/** A world whose room is served. */
export function settled(...nodes: NodeView[]): World {
  const world = new World(newRoom(), ...nodes);
  world.settle();
  world.take();
  return world;
}

/** A node says how many are in the room. */
export const counts = (world: World, node: string, participants: number, streams: number) => {
  const status = world.served.get(node)?.get('uid-daily');
  assert.ok(status);
  world.served.get(node)?.set('uid-daily', { ...status, participants, streams });
};

/** A small generator of numbers in [0, 1), so that a failure can be run again by its seed. */
export function randomOf(seed: number): () => number {
  let state = seed + 1;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return state / 2_147_483_648;
  };
}
