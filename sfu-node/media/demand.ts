import { VideoQuality } from '@livekit/protocol';

/**
 * What somebody wants of a track: the spatial layers that are shown, as bits (1 is the lowest layer; audio has that
 * one alone), or nothing for now. Demand is gathered on its way to the publisher: subscribers of a node, then nodes.
 */
export interface LayerDemand {
  /** Subscribed, but muted or hidden: nothing is sent. */
  readonly paused: boolean;
  readonly layers: number;
}

/** What a subscriber's client says of a track. */
export interface TrackSetting {
  /** Nothing is sent while true. */
  readonly disabled: boolean;
  /** Highest quality that is shown. */
  readonly quality: VideoQuality;
}

/** Spatial layer (0 is the lowest) that a wanted quality means, of a track that has `layers` of them. */
export function spatialLayerOf(quality: VideoQuality, layers: number): number {
  const wanted = quality === VideoQuality.LOW ? 0 : quality === VideoQuality.MEDIUM ? 1 : 2;
  return Math.min(wanted, Math.max(0, layers - 1));
}

/**
 * Layers that one subscriber needs on its node: the one that it shows, and the lowest, so that there is something to fall
 * back to at once when its line gets worse. While it does get less than it shows, the ones between as well.
 * @param current layer that its line carries now, undefined while it is not known
 */
export function demandOf(setting: TrackSetting | undefined, layers: number, current?: number): LayerDemand {
  const shown = spatialLayerOf(setting?.quality ?? VideoQuality.HIGH, layers);
  const squeezed = current !== undefined && current < shown;
  const bits = squeezed ? (1 << (shown + 1)) - 1 : (1 << shown) | 1;
  return { paused: setting?.disabled ?? false, layers: bits };
}

/** All that several want, or undefined when there is nobody. */
export function unite(demands: Iterable<LayerDemand>): LayerDemand | undefined {
  let any = false;
  let layers = 0;
  for (const demand of demands) {
    any = true;
    if (!demand.paused) layers |= demand.layers;
  }
  return any ? { paused: layers === 0, layers } : undefined;
}

export function sameDemand(a: LayerDemand | undefined, b: LayerDemand | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && a.paused === b.paused && a.layers === b.layers);
}

/** The highest layer (0 is the lowest) of a set of bits; -1 for none. */
export function highestLayer(layers: number): number {
  return 31 - Math.clz32(layers);
}

/**
 * Layers to send so that each wanted one, or what comes nearest to it, is there: of a wanted layer that the sender has
 * not, or may not send, the next lower one that it has; failing that the lowest one that it has.
 * @param has layers that the sender has now, as bits
 * @param cap highest layer that may be sent
 */
export function layersToSend(wanted: LayerDemand | undefined, has: number, cap: number): number {
  if (!wanted || wanted.paused) return 0;
  // Not by a shift: a cap of 31, which is none, would shift by 32, and that is by nothing.
  const usable = has & (2 ** (cap + 1) - 1);
  if (usable === 0) return has & -has;
  let send = 0;
  for (let rest = wanted.layers; rest !== 0; rest &= rest - 1) {
    const layer = rest & -rest;
    const below = usable & (layer | (layer - 1));
    send |= below === 0 ? usable & -usable : 1 << highestLayer(below);
  }
  return send;
}
