import type { Room } from '#crds/room.ts';
import type { PlacedNode } from '#core/model.ts';
import { detoursOf, type Network } from '#core/network/mod.ts';
import { pairKey, type Topology } from '#core/topology/mod.ts';

export type RoomStatus = NonNullable<Room['status']>;
export type Condition = NonNullable<RoomStatus['conditions']>[number];
export type ConditionType = 'Ready' | 'Scheduled' | 'Migrating' | 'Degraded';

/** A condition as it shall be, before its time is known. */
export interface Wanted {
  status: 'True' | 'False' | 'Unknown';
  /** CamelCase, for programs. */
  reason: string;
  /** For people: what is so, and what to do. */
  message: string;
}

const order: readonly ConditionType[] = ['Ready', 'Scheduled', 'Migrating', 'Degraded'];
const notYet: Wanted = { status: 'Unknown', reason: 'Pending', message: 'Not looked at yet.' };

/**
 * The next status of a room: `before` with fields replaced and conditions set. A condition keeps its
 * lastTransitionTime while its status stays the same. Every condition is there from the first write on.
 */
export function nextStatus(
  before: RoomStatus | undefined,
  change: Partial<RoomStatus> & { wanted: Partial<Record<ConditionType, Wanted>>; generation: number; now: number },
): RoomStatus {
  const { wanted, generation, now, ...fields } = change;
  const at = new Date(now).toISOString().replace(/\.\d+Z$/, 'Z');
  const conditions = order.map((type): Condition => {
    const old = before?.conditions?.find((condition) => condition.type === type);
    const { status, reason, message } = wanted[type] ?? old ?? notYet;
    const lastTransitionTime = old && old.status === status ? old.lastTransitionTime : at;
    return {
      type,
      status,
      observedGeneration: wanted[type] ? generation : (old?.observedGeneration ?? generation),
      lastTransitionTime,
      reason,
      message,
    };
  });
  return { ...before, ...fields, observedGeneration: generation, conditions };
}

/** Fields of the status that show a placement. */
export function placementFields(epoch: number, nodes: readonly PlacedNode[]): Partial<RoomStatus> {
  const regions = [...new Set(nodes.map(({ region }) => region))];
  return {
    epoch,
    placement: nodes.map(({ node, region, role }) => ({ node, region, role })),
    primaryNode: nodes[0]?.node ?? '',
    nodes: nodes.map(({ node }) => node).join(','),
    regions: regions.join(','),
  };
}

/** Fields of the status that show links and ways of streams; links that stay keep what is known of them. */
export function networkFields(
  before: RoomStatus | undefined,
  { links, trees }: Network,
  { kind, reason, message }: Topology,
): Partial<RoomStatus> {
  const known = new Map(before?.links?.map((link) => [pairKey(link), link]));
  return {
    topology: { kind, reason, message },
    links: links.map(({ from, to }) => known.get(pairKey({ from, to })) ?? { from, to, state: 'Opening' }),
    detours: detoursOf(links, trees),
  };
}

/** Whether two statuses say the same. Order of keys does not matter. */
export function sameStatus(a: RoomStatus | undefined, b: RoomStatus | undefined): boolean {
  return same(a, b);
}

/** Whether two pieces of JSON say the same. Order of keys does not matter; an absent key is like an undefined one. */
export function same(a: unknown, b: unknown): boolean {
  return canonical(a) === canonical(b);
}

export function conditionOf(status: RoomStatus | undefined, type: ConditionType): Condition | undefined {
  return status?.conditions?.find((condition) => condition.type === type);
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([x], [y]) => (x < y ? -1 : 1)))
      : part,
  );
}
