import type { NodeView, Strategy } from '../model.ts';

/** Weights of a node's score; each part is in [0, 1], so the score is too. */
export const weights = { proximity: 0.4, load: 0.3, reliability: 0.2, cost: 0.1 } as const;

/** A move must gain more than this share of the score that the room has where it is. */
export const hysteresis = 0.2;

/** Share of a node up to which rooms are packed onto it; the rest is kept for those who join the rooms that it has. */
export const packedShare = 0.8;

/** A node that carries anything stands clearly above an idle one, so that nodes are begun one after the other. */
const begunWorth = 0.05;

/** Cost at which the cost part is 0; twice the ordinary 100. */
const worstCost = 200;

/** How much less each further wanted region is worth than the one before. */
const preferenceStep = 0.25;

/**
 * How near a region is to what a room wants: 1 for the first wanted region, 0.25 less for each further one (at least
 * 0.25), 0 for a region that is not wanted. A room that wants no region in particular is as near to all.
 */
export function proximity(region: string, wanted: readonly string[]): number {
  if (wanted.length === 0) return 1;
  const rank = wanted.indexOf(region);
  return rank < 0 ? 0 : Math.max(preferenceStep, 1 - preferenceStep * rank);
}

/**
 * Share of the node that is used, by the scarcest of streams, bandwidth and CPU: 0 idle, 1 full, more when it carries
 * more than it can. Streams are those that it will carry, so a node that was just given rooms does not look idle until
 * its next heartbeat.
 */
export function usedShare({ capacity, load }: Pick<NodeView, 'capacity' | 'load'>): number {
  return Math.max(share(load.streams, capacity.streams), share(load.mbps, capacity.mbps), load.cpu);
}

/** Share of the node that is free: 1 idle, 0 full. */
export function freeShare(node: NodeView): number {
  return clamp(1 - usedShare(node));
}

/**
 * What a node's load is worth. Spread: its free share. Pack: nothing when it is idle; from {@link begunWorth} it grows up
 * to 1 at {@link packedShare}, and falls to 0 at full.
 */
export function loadWorth(node: NodeView, strategy: Strategy): number {
  if (strategy === 'Spread') return freeShare(node);
  const used = usedShare(node);
  if (used === 0) return 0;
  if (used > packedShare) return clamp((1 - used) / (1 - packedShare));
  return begunWorth + ((1 - begunWorth) * used) / packedShare;
}

/** Success rate of joins times what its links deliver: a node that fails fast never looks attractive. */
export function reliability({ reliability }: NodeView): number {
  return clamp(reliability.joinSuccess * (1 - reliability.linkLoss));
}

/** 1 for free, 0.5 for the ordinary cost of 100, 0 from 200 up. */
export function cheapness({ cost }: NodeView): number {
  return clamp(1 - cost / worstCost);
}

/** The part of the score that is the same for every room, in [0, 0.6]. */
export function standing(node: NodeView, strategy: Strategy = 'Spread'): number {
  const { load, reliability: reliable, cost } = weights;
  return load * loadWorth(node, strategy) + reliable * reliability(node) + cost * cheapness(node);
}

/** Score of a node for a room, in [0, 1]: 0.4 proximity + 0.3 load + 0.2 reliability + 0.1 cost. */
export function score(node: NodeView, wantedRegions: readonly string[], strategy: Strategy = 'Spread'): number {
  return weights.proximity * proximity(node.region, wantedRegions) + standing(node, strategy);
}

function share(used: number, capacity: number): number {
  if (capacity <= 0) return used > 0 ? 1 : 0;
  return used / capacity;
}

function clamp(value: number): number {
  return Math.min(1, Math.max(0, value));
}
