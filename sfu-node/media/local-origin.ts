import type { Producer } from 'mediasoup/types';
import type { Clock } from '#platform/clock.ts';
import { highestLayer, type LayerDemand } from './demand.ts';
import type { Site } from './site.ts';
import type { TrackOrigin } from './track.ts';

/** A publisher is told to send less only when that is so for this long, milliseconds: turning a layer on costs a key frame. */
const lowerAfterMs = 2000;

/** A track that comes in from its publisher's own connection. The publisher is told what anybody in the fleet wants (dynacast). */
export class LocalOrigin implements TrackOrigin {
  readonly site: Site;
  readonly producer: Producer;
  readonly #clock: Clock;
  readonly #tell: (highest: number) => void;
  /** Highest layer that the publisher was told to send; -1 for none, undefined while it sends what it likes. */
  #told: number | undefined;
  #cancel: () => void = () => undefined;

  /** @param tell gets the highest layer (0 is the lowest) that anybody wants; -1 when nobody wants any */
  constructor(site: Site, producer: Producer, clock: Clock, tell: (highest: number) => void) {
    this.site = site;
    this.producer = producer;
    this.#clock = clock;
    this.#tell = tell;
    this.setDemand(undefined);
  }

  setDemand(demand: LayerDemand | undefined): void {
    this.#cancel();
    if (this.producer.closed || this.producer.kind !== 'video') return;
    const highest = demand && !demand.paused ? highestLayer(demand.layers) : -1;
    if (highest === this.#told) return;
    const tell = () => {
      if (this.producer.closed) return;
      this.#told = highest;
      this.#tell(highest);
    };
    const more = this.#told !== undefined && highest > this.#told;
    if (more) tell();
    else this.#cancel = this.#clock.after(lowerAfterMs, tell);
  }
}
