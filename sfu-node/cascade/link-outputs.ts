import type { Producer } from 'mediasoup/types';
import type { TrackRequest, TrackSupply as SupplyMessage } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import type { LayerDemand } from '../media/demand.ts';
import type { PublishedTrack, TrackHold } from '../media/track.ts';
import { TrackSender } from '../media/track-sender.ts';
import type { Link } from './link.ts';

/** How long a request waits for a track that is itself on its way here, milliseconds; the other end asks again. */
const supplyMs = 1500;
/** Fewer packets than this say nothing about loss. One track of audio has 50 a second. */
const tellingPackets = 30;
/** How long a stream goes on after another took its place, milliseconds: the other end switches meanwhile. */
export const retireMs = 3000;
/** How often the other end is told of another stream until it asks for it, milliseconds. */
const tellMs = 1000;

export interface LinkOutputsOptions {
  readonly link: Link;
  readonly clock: Clock;
  readonly log: Logger;
  /** A new id for a stream. */
  readonly newId: (prefix: string) => string;
  /** A track goes as another stream since: the other end is to ask again. */
  readonly onStream: (trackSid: string) => void;
}

/** One track that goes over a link. */
interface Output {
  readonly track: PublishedTrack;
  demand: LayerDemand;
  hold: TrackHold | undefined;
  /** What is fed to it, or is about to be. */
  producer: Producer | undefined;
  sender: TrackSender | undefined;
  stream: string;
  /** The stream that the other end was answered with last. */
  answered: string;
  readonly waiting: Set<() => void>;
  failure: unknown;
}

/** The tracks that this node sends over one link: those that the other end asks for, in the layers that it asks for. */
export class LinkOutputs {
  readonly #options: LinkOutputsOptions;
  readonly #outputs = new Map<string, Output>();
  /** Newest version of each track's requests, so that a late one is known as such after the track was let go. */
  readonly #versions = new Map<string, number>();
  /** What each sender had sent when loss was last asked for. */
  #counted = new Map<TrackSender, { sent: number; lost: number }>();
  #closed = false;

  constructor(options: LinkOutputsOptions) {
    this.#options = options;
  }

  /** Tracks with their senders, for whoever decides what a narrow link leaves out. */
  *senders(): Iterable<{ readonly track: PublishedTrack; readonly sender: TrackSender }> {
    for (const { track, sender } of this.#outputs.values()) if (sender) yield { track, sender };
  }

  /**
   * What the receivers' reports tell of the way there, about once a second: the share (0..1) of the packets since the last
   * call that were lost, undefined when too few were sent to tell; and the least round trip time of all tracks,
   * milliseconds. Both are between media workers, so that a busy process at either end is not taken for a slow link.
   */
  async measure(): Promise<{ loss: number | undefined; rttMs: number | undefined }> {
    const senders = [...this.senders()].map(({ sender }) => sender);
    const counters = await Promise.all(senders.map((sender) => sender.counters()));
    let sent = 0;
    let lost = 0;
    const seen = new Map<TrackSender, { sent: number; lost: number }>();
    for (const [index, now] of counters.entries()) {
      const sender = senders[index]!;
      seen.set(sender, now);
      const before = this.#counted.get(sender);
      if (!before) continue;
      sent += now.sent - before.sent;
      lost += Math.max(0, now.lost - before.lost);
    }
    this.#counted = seen;
    const rtts = counters.flatMap(({ rttMs }) => rttMs ?? []);
    return {
      loss: sent < tellingPackets ? undefined : Math.min(1, lost / sent),
      rttMs: rtts.length > 0 ? Math.min(...rtts) : undefined,
    };
  }

  /**
   * Does what the other end asks of one track; answers with how it comes, or nothing when it was let go.
   * @throws WeirError StaleRequest, TrackPending
   */
  async handle(request: TrackRequest, track: PublishedTrack | undefined): Promise<SupplyMessage | undefined> {
    const { trackSid, version, demand } = request;
    if (version < (this.#versions.get(trackSid) ?? 0)) {
      throw new WeirError('StaleRequest', `A newer request for track ${trackSid} was seen; this one is ignored.`);
    }
    this.#versions.set(trackSid, version);
    if (!demand || !track) {
      this.#drop(trackSid);
      if (!track) this.#versions.delete(trackSid);
      if (demand) throw new WeirError('TrackPending', `Track ${trackSid} is not known here yet; ask again.`);
      return undefined;
    }
    const output = this.#outputs.get(trackSid) ?? this.#add(track, demand);
    output.demand = demand;
    output.hold?.update(demand);
    output.sender?.setDemand(demand);
    await this.#supplied(output);
    const { sender } = output;
    if (!sender || this.#outputs.get(trackSid) !== output) {
      throw new WeirError('TrackPending', `Track ${trackSid} is on its way here; ask again.`, {
        cause: output.failure,
      });
    }
    output.answered = output.stream;
    const { kind, rtpParameters } = sender.supply;
    return { kind, rtpParametersJson: JSON.stringify(rtpParameters), stream: output.stream };
  }

  /** The track has ended. */
  drop(trackSid: string): void {
    this.#drop(trackSid);
    this.#versions.delete(trackSid);
  }

  close(): void {
    this.#closed = true;
    for (const sid of [...this.#outputs.keys()]) this.#drop(sid);
  }

  #add(track: PublishedTrack, demand: LayerDemand): Output {
    const output: Output = {
      ...{ track, demand, hold: undefined, producer: undefined, sender: undefined },
      ...{ stream: '', answered: '', waiting: new Set(), failure: undefined },
    };
    this.#outputs.set(track.sid, output);
    output.hold = track.hold(this.#options.link.site, demand, (producer) => {
      output.producer = producer;
      this.#feed(output, producer).catch((error: unknown) => this.#failed(output, producer, error));
    });
    return output;
  }

  async #feed(output: Output, producer: Producer): Promise<void> {
    const { link, clock, log, newId } = this.#options;
    const { sid } = output.track;
    const onFailure = (error: unknown) => log.warn({ err: error, track: sid }, 'Layers of a track could not be set');
    const sender = await TrackSender.create(link.transport, link.site.router, producer, onFailure);
    const wanted = this.#outputs.get(sid) === output && output.producer === producer;
    if (this.#closed || !wanted) return sender.close();
    const before = output.sender;
    output.sender = sender;
    output.stream = newId('ST_');
    sender.setDemand(output.demand);
    if (before) {
      this.#tell(output);
      clock.after(retireMs, () => before.close());
    }
    for (const done of output.waiting) done();
  }

  /** Tells the other end of another stream until it has asked: what is said while NATS is away is not heard. */
  #tell(output: Output): void {
    const { sid } = output.track;
    if (this.#outputs.get(sid) !== output || output.answered === output.stream) return;
    this.#options.onStream(sid);
    this.#options.clock.after(tellMs, () => this.#tell(output));
  }

  /** One that was never sent begins anew with the next request; one that is sent goes on as it was. */
  #failed(output: Output, producer: Producer, error: unknown): void {
    const { sid } = output.track;
    if (this.#closed || this.#outputs.get(sid) !== output || output.producer !== producer) return;
    output.failure = error;
    if (!output.sender) this.#drop(sid);
    if (!producer.closed)
      this.#options.log.warn({ err: error, track: sid }, 'Track could not be put on a cascade link');
  }

  #supplied(output: Output): Promise<void> {
    if (output.sender) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        cancel();
        output.waiting.delete(done);
        resolve();
      };
      const cancel = this.#options.clock.after(supplyMs, done);
      output.waiting.add(done);
    });
  }

  #drop(sid: string): void {
    const output = this.#outputs.get(sid);
    if (!output) return;
    this.#outputs.delete(sid);
    output.sender?.close();
    output.hold?.release();
    for (const done of output.waiting) done();
  }
}
