import type { WebRtcTransport } from 'mediasoup/types';
import type { Clock } from '#platform/clock.ts';

const intervalMs = 5000;

/** How much is sent to clients, measured every few seconds from the transports' own counters. */
export class OutgoingRate {
  readonly #clock: Clock;
  readonly #transports: () => WebRtcTransport[];
  #mbps = 0;
  #cancel: () => void = () => undefined;
  #closed = false;

  constructor(clock: Clock, transports: () => WebRtcTransport[]) {
    this.#clock = clock;
    this.#transports = transports;
    this.#again();
  }

  /** Megabits a second. */
  get mbps(): number {
    return this.#mbps;
  }

  close(): void {
    this.#closed = true;
    this.#cancel();
  }

  #again(): void {
    if (this.#closed) return;
    this.#cancel = this.#clock.after(intervalMs, () => void this.#measure().then(() => this.#again()));
  }

  async #measure(): Promise<void> {
    const stats = await Promise.allSettled(this.#transports().map((transport) => transport.getStats()));
    const bitrates = stats.map((result) => (result.status === 'fulfilled' ? (result.value[0]?.sendBitrate ?? 0) : 0));
    this.#mbps = bitrates.reduce((sum, bitrate) => sum + bitrate, 0) / 1e6;
  }
}
