import type { PlacedNode } from '#core/model.ts';
import { isMet, type Demand } from '#core/placement/mod.ts';

/** A demand is acted on for this long, milliseconds: about as long as the node that passed it on waits for the answer. */
export const demandMs = 5000;
/** More demands than this at once are not kept for one room; the next ones come as soon as these are met. */
const maxDemands = 16;

/** What is remembered of a room from one look to the next. A new leader begins anew: what is counted here then takes longer, and nothing is lost. */
export interface RoomMemory {
  /** Since when nobody is in the room, milliseconds since the epoch; undefined while somebody is, or it is not known. */
  readonly emptySince: number | undefined;
  /** Somebody was in the room before. */
  readonly wasUsed: boolean;
  /** What clients that wait for their join asked for. */
  readonly demands: readonly Demand[];
  /** Since when nobody is on a placed node, milliseconds since the epoch. */
  readonly idleSince: ReadonlyMap<string, number>;
  /** Since when a declared link does not work, by pairKey, milliseconds since the epoch. */
  readonly brokenSince: ReadonlyMap<string, number>;
  /** When links of the topology last left nodes apart, milliseconds since the epoch. */
  readonly tornAt: number | undefined;
  /** When streams were last sent another way, milliseconds since the epoch. */
  readonly reroutedAt: number | undefined;
}

/** What is seen of a room at one look. */
export interface Sight {
  readonly now: number;
  /** Nodes that serve participants. */
  readonly nodes: readonly PlacedNode[];
  /** Participants in the room, when all its nodes tell. */
  readonly participants: number | undefined;
  /** Placed nodes on which nobody is. */
  readonly idle: readonly string[];
  /** Links that are declared and do not work, by pairKey. */
  readonly broken: readonly string[];
  /** The links of the topology leave nodes apart. */
  readonly torn: boolean;
}

export const nothingRemembered: RoomMemory = {
  emptySince: undefined,
  wasUsed: false,
  demands: [],
  idleSince: new Map(),
  brokenSince: new Map(),
  tornAt: undefined,
  reroutedAt: undefined,
};

/** What is remembered after a look. */
export function remember(before: RoomMemory, { now, participants, idle, broken, torn }: Sight): RoomMemory {
  const since = (known: ReadonlyMap<string, number>, keys: readonly string[]) =>
    new Map(keys.map((key) => [key, known.get(key) ?? now]));
  return {
    ...before,
    emptySince: participants === 0 ? (before.emptySince ?? now) : undefined,
    wasUsed: before.wasUsed || (participants ?? 0) > 0,
    idleSince: since(before.idleSince, idle),
    brokenSince: since(before.brokenSince, broken),
    tornAt: torn ? now : before.tornAt,
  };
}

interface Kept {
  memory: RoomMemory;
  demands: { demand: Demand; until: number }[];
}

/** The memory of all rooms, by uid. */
export class RoomMemories {
  readonly #rooms = new Map<string, Kept>();

  /** Takes a look at a room, and answers with all that is remembered of it then. */
  look(uid: string, sight: Sight): RoomMemory {
    const kept = this.#of(uid);
    kept.demands = kept.demands.filter(({ demand, until }) => until > sight.now && !isMet(demand, sight.nodes));
    kept.memory = { ...remember(kept.memory, sight), demands: kept.demands.map(({ demand }) => demand) };
    return kept.memory;
  }

  /** A client asks for a node; true when nobody asked for the same before. */
  demand(uid: string, demand: Demand, now: number): boolean {
    const kept = this.#of(uid);
    const key = keyOf(demand);
    const alive = kept.demands.filter(({ until }) => until > now);
    const others = alive.filter((each) => keyOf(each.demand) !== key);
    if (others.length >= maxDemands) return false;
    kept.demands = [...others, { demand, until: now + demandMs }];
    return others.length === alive.length;
  }

  /** The room's streams were sent another way. */
  rerouted(uid: string, now: number): void {
    const kept = this.#of(uid);
    kept.memory = { ...kept.memory, reroutedAt: now };
  }

  forget(uid: string): void {
    this.#rooms.delete(uid);
  }

  #of(uid: string): Kept {
    const known = this.#rooms.get(uid) ?? { memory: nothingRemembered, demands: [] };
    this.#rooms.set(uid, known);
    return known;
  }
}

function keyOf({ region, full }: Demand): string {
  return [region, ...[...full].sort()].join(' ');
}
