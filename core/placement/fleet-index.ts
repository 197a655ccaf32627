import type { NodeView, Strategy } from '../model.ts';
import { standing } from './score.ts';

/** Standings (0..0.6) are grouped in steps of this size: nodes of one group count as equals. */
export const standingStep = 0.01;

const groups = 64;

/** Nodes that can be chosen, grouped by standing. */
export interface Tier {
  /** Group number to nodes, in no particular order; higher groups stand better. */
  readonly byStanding: readonly (readonly NodeView[])[];
  /** Highest group that has a node; -1 for none. */
  readonly top: number;
}

/** Nodes of one region that can be chosen. */
export interface RegionIndex {
  readonly region: string;
  /** Those that stay, then those that are about to be replaced: the first tier in which one fits is taken. */
  readonly tiers: readonly [Tier, Tier];
}

interface MutableTier {
  byStanding: NodeView[][];
  top: number;
}

interface MutableRegion {
  region: string;
  tiers: readonly [MutableTier, MutableTier];
  size: number;
}

/** Streams that the rooms placed on a node reserve. */
interface Reservations {
  byRoom: Map<string, number>;
  sum: number;
}

interface Entry {
  /** As reported, with what its rooms reserve in its load. */
  view: NodeView;
  reported: NodeView;
  /** Where it stands in its region; undefined while it cannot be chosen. */
  position: { region: MutableRegion; tier: MutableTier; group: number; index: number } | undefined;
}

/**
 * The fleet as placement looks at it: nodes grouped by region and standing, kept so by small steps, so that a decision
 * looks at a handful of nodes however large the fleet is. Deterministic, without I/O.
 *
 * An assignment counts at once: a node's load is what it reports or what the rooms placed on it reserve, whichever is
 * more, so a node that was just given rooms does not look idle until its next heartbeat. Reservations may be made before
 * the node is heard of.
 */
export class FleetIndex {
  /** How rooms are shared out among its nodes. */
  readonly strategy: Strategy;
  readonly #nodes = new Map<string, Entry>();
  readonly #regions = new Map<string, MutableRegion>();
  readonly #reservations = new Map<string, Reservations>();

  constructor(strategy: Strategy = 'Spread') {
    this.strategy = strategy;
  }

  /** Number of nodes, chosen from or not. */
  get size(): number {
    return this.#nodes.size;
  }

  /** Every node, with reservations in its load. */
  *nodes(): Iterable<NodeView> {
    for (const { view } of this.#nodes.values()) yield view;
  }

  get(name: string): NodeView | undefined {
    return this.#nodes.get(name)?.view;
  }

  /** Regions that have a node to choose. */
  *regions(): Iterable<RegionIndex> {
    for (const region of this.#regions.values()) if (region.size > 0) yield region;
  }

  region(name: string): RegionIndex | undefined {
    const region = this.#regions.get(name);
    return region && region.size > 0 ? region : undefined;
  }

  /** Takes a node's newest report. */
  update(node: NodeView): void {
    const entry = this.#nodes.get(node.name) ?? this.#known(node);
    entry.reported = node;
    this.#place(entry);
  }

  remove(name: string): void {
    const entry = this.#nodes.get(name);
    if (!entry) return;
    this.#unplace(entry);
    this.#nodes.delete(name);
  }

  /** Counts a room's streams on a node from now on. Reserving again for the same room replaces the figure. */
  reserve(name: string, uid: string, streams: number): void {
    const reserved = this.#reservations.get(name) ?? { byRoom: new Map<string, number>(), sum: 0 };
    this.#reservations.set(name, reserved);
    const before = reserved.byRoom.get(uid) ?? 0;
    if (before === streams) return;
    reserved.byRoom.set(uid, streams);
    this.#changed(name, reserved, streams - before);
  }

  /** Takes a reservation back. */
  release(name: string, uid: string): void {
    const reserved = this.#reservations.get(name);
    const before = reserved?.byRoom.get(uid);
    if (!reserved || before === undefined) return;
    reserved.byRoom.delete(uid);
    this.#changed(name, reserved, -before);
    if (reserved.byRoom.size === 0) this.#reservations.delete(name);
  }

  #changed(name: string, reserved: Reservations, by: number): void {
    reserved.sum += by;
    const entry = this.#nodes.get(name);
    if (entry) this.#place(entry);
  }

  #known(node: NodeView): Entry {
    const entry: Entry = { view: node, reported: node, position: undefined };
    this.#nodes.set(node.name, entry);
    return entry;
  }

  #place(entry: Entry): void {
    const { reported } = entry;
    const { load } = reported;
    const streams = Math.max(load.streams, this.#reservations.get(reported.name)?.sum ?? 0);
    entry.view = streams === load.streams ? reported : { ...reported, load: { ...load, streams } };
    const { view } = entry;
    const choosable = view.ready && !view.unschedulable && !view.draining;
    const group = Math.min(groups - 1, Math.floor(standing(view, this.strategy) / standingStep));
    const { position } = entry;
    const region = this.#regionOf(view.region);
    const tier = region.tiers[view.outgoing ? 1 : 0];
    if (position && choosable && position.group === group && position.tier === tier) {
      tier.byStanding[group]![position.index] = view;
      return;
    }
    this.#unplace(entry);
    if (!choosable) return;
    const nodes = tier.byStanding[group]!;
    entry.position = { region, tier, group, index: nodes.length };
    nodes.push(view);
    region.size += 1;
    tier.top = Math.max(tier.top, group);
  }

  #unplace(entry: Entry): void {
    const { position } = entry;
    if (!position) return;
    entry.position = undefined;
    const { region, tier, group, index } = position;
    const nodes = tier.byStanding[group]!;
    const last = nodes.pop()!;
    if (index < nodes.length) {
      nodes[index] = last;
      const moved = this.#nodes.get(last.name)?.position;
      if (moved) moved.index = index;
    }
    region.size -= 1;
    while (tier.top >= 0 && tier.byStanding[tier.top]!.length === 0) tier.top -= 1;
  }

  #regionOf(name: string): MutableRegion {
    let region = this.#regions.get(name);
    if (!region) {
      const tier = () => ({ byStanding: Array.from({ length: groups }, () => []), top: -1 });
      region = { region: name, tiers: [tier(), tier()], size: 0 };
      this.#regions.set(name, region);
    }
    return region;
  }
}
