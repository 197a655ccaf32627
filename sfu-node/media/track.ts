import { TrackInfo, TrackType, type AddTrackRequest, type ParticipantInfo, VideoQuality } from '@livekit/protocol';
import type { Producer } from 'mediasoup/types';
import { sameDemand, unite, type LayerDemand } from './demand.ts';
import type { Site } from './site.ts';
import { receiveTrack, TrackSender } from './track-sender.ts';

/** Where a track comes into this node: from its publisher's own connection, or over a cascade link. */
export interface TrackOrigin {
  readonly site: Site;
  /** The track on that site; undefined while it is not here. */
  readonly producer: Producer | undefined;
  /** Takes what this node wants of the track now; undefined when nobody wants it. */
  setDemand(demand: LayerDemand | undefined): void;
}

/** Somebody's hold on a track: it is kept on a site for as long as that lasts. */
export interface TrackHold {
  /** Replaces what the holder wants of it. */
  update(demand: LayerDemand): void;
  release(): void;
}

interface Holder {
  readonly site: Site;
  demand: LayerDemand;
  readonly onProducer: (producer: Producer) => void;
  told: Producer | undefined;
}

/** A track on a site other than the one where it comes in. */
interface Branch {
  /** The producer that it is fed from. */
  readonly root: Producer;
  readonly sender: TrackSender;
  readonly producer: Producer;
}

/**
 * A track of the room, published on this node or on another, and how this node has it: on the site where it comes in, and
 * on every other site (worker) where somebody holds it. Each site gets it once however many hold it there.
 */
export class PublishedTrack {
  readonly sid: string;
  readonly publisherSid: string;
  readonly publisherIdentity: string;
  readonly kind: 'audio' | 'video';
  info: TrackInfo;
  readonly #origin: TrackOrigin;
  readonly #onFailure: (error: unknown) => void;
  readonly #holders = new Set<Holder>();
  readonly #branches = new Map<Site, Branch>();
  /** Sites to which the track is being brought. */
  readonly #growing = new Set<Site>();
  #demand: LayerDemand | undefined;
  #closed = false;

  /** @param onFailure told when the track cannot be brought to a site */
  constructor(
    publisher: Pick<ParticipantInfo, 'sid' | 'identity'>,
    info: TrackInfo,
    origin: TrackOrigin,
    onFailure: (error: unknown) => void,
  ) {
    this.sid = info.sid;
    this.publisherSid = publisher.sid;
    this.publisherIdentity = publisher.identity;
    this.kind = info.type === TrackType.AUDIO ? 'audio' : 'video';
    this.info = info;
    this.#origin = origin;
    this.#onFailure = onFailure;
  }

  /** Spatial layers that it has; 1 for audio and for video in one layer. */
  get layers(): number {
    return this.kind === 'audio' ? 1 : Math.max(1, this.info.layers.length);
  }

  /**
   * Keeps the track on a site. `onProducer` is told of its producer there, at once or when it is there, and again when
   * another takes its place.
   */
  hold(site: Site, demand: LayerDemand, onProducer: (producer: Producer) => void): TrackHold {
    const holder: Holder = { site, demand, onProducer, told: undefined };
    this.#holders.add(holder);
    this.refresh();
    return {
      update: (next) => {
        if (sameDemand(holder.demand, next)) return;
        holder.demand = next;
        this.refresh();
      },
      release: () => {
        if (this.#holders.delete(holder)) this.refresh();
      },
    };
  }

  /** Brings sites, holders and what is asked of the origin up to date; the origin calls it when its producer changed. */
  refresh(): void {
    if (this.#closed) return;
    const demand = unite([...this.#holders].map((holder) => holder.demand));
    if (!sameDemand(demand, this.#demand)) {
      this.#demand = demand;
      this.#origin.setDemand(demand);
    }
    const sites = Map.groupBy(this.#holders, ({ site }) => site);
    for (const [site, branch] of this.#branches) if (!sites.has(site)) this.#cut(site, branch);
    for (const [site, holders] of sites) {
      const producer = site === this.#origin.site ? this.#origin.producer : this.#onBranch(site, holders);
      if (!producer || producer.closed) continue;
      for (const holder of holders) {
        if (holder.told === producer) continue;
        holder.told = producer;
        holder.onProducer(producer);
      }
    }
  }

  /** The track has ended; holders are to let go themselves. */
  close(): void {
    this.#closed = true;
    this.#origin.setDemand(undefined);
    for (const [site, branch] of this.#branches) this.#cut(site, branch);
  }

  #onBranch(site: Site, holders: readonly Holder[]): Producer | undefined {
    const branch = this.#branches.get(site);
    branch?.sender.setDemand(unite(holders.map(({ demand }) => demand)));
    const root = this.#origin.producer;
    if (root && !root.closed && branch?.root !== root && !this.#growing.has(site)) {
      this.#growing.add(site);
      this.#grow(site, root).then(
        () => {
          this.#growing.delete(site);
          // Its holders are told, and another root may have come meanwhile.
          this.refresh();
        },
        (error: unknown) => {
          this.#growing.delete(site);
          this.#onFailure(error);
        },
      );
    }
    return branch?.producer;
  }

  async #grow(site: Site, root: Producer): Promise<void> {
    const { near, far } = await this.#origin.site.spanTo(site);
    const sender = await TrackSender.create(near, this.#origin.site.router, root, this.#onFailure);
    const producer = await receiveTrack(far, sender.supply).catch((error: unknown) => {
      sender.close();
      throw error;
    });
    const branch: Branch = { root, sender, producer };
    const wanted = [...this.#holders].some((holder) => holder.site === site);
    if (this.#closed || !wanted) return endBranch(branch);
    const old = this.#branches.get(site);
    this.#branches.set(site, branch);
    if (!old) return;
    // Holders change over while the old root is still there; its branch goes with it.
    if (old.root.closed) endBranch(old);
    else old.root.observer.once('close', () => endBranch(old));
  }

  #cut(site: Site, branch: Branch): void {
    this.#branches.delete(site);
    endBranch(branch);
  }
}

/** A track that a participant of this node publishes. */
export class LocalTrack extends PublishedTrack {
  readonly producer: Producer;
  /** Somebody subscribed to it once; its publisher was told. */
  heard = false;

  constructor(
    publisher: Pick<ParticipantInfo, 'sid' | 'identity'>,
    info: TrackInfo,
    origin: TrackOrigin & { producer: Producer },
    onFailure: (error: unknown) => void,
  ) {
    super(publisher, info, origin, onFailure);
    this.producer = origin.producer;
  }
}

/** The sending side first: what is still on its way then ends at a producer that is there. */
function endBranch({ sender, producer }: Branch): void {
  sender.close();
  producer.close();
}

/** The stream id by which LiveKit clients find a track's owner. */
export function streamIdOf(track: PublishedTrack): string {
  return `${track.publisherSid}|${track.sid}`;
}

/** TrackInfo of a track that was announced and not yet sent. */
export function announcedTrackInfo(sid: string, request: AddTrackRequest): TrackInfo {
  return new TrackInfo({
    sid,
    type: request.type,
    name: request.name,
    muted: request.muted,
    width: request.width,
    height: request.height,
    simulcast: request.layers.length > 1,
    disableDtx: request.disableDtx,
    source: request.source,
    layers: request.layers,
    stereo: request.stereo,
    disableRed: request.disableRed,
    encryption: request.encryption,
    stream: request.stream,
    backupCodecPolicy: request.backupCodecPolicy,
    audioFeatures: request.audioFeatures,
  });
}

/** What a track of a kind is called in LiveKit messages. */
export function trackTypeOf(kind: 'audio' | 'video'): TrackType {
  return kind === 'audio' ? TrackType.AUDIO : TrackType.VIDEO;
}

/**
 * Lowest quality whose layer is at least as large as what the subscriber shows; HIGH when none is.
 * @param width pixels shown, 0 when unknown
 * @param height pixels shown, 0 when unknown
 */
export function qualityFor(info: TrackInfo, width: number, height: number): VideoQuality {
  if (width === 0 || height === 0) return VideoQuality.HIGH;
  const layers = info.layers
    .filter(({ quality }) => quality !== VideoQuality.OFF)
    .sort((a, b) => a.width * a.height - b.width * b.height);
  const enough = layers.find((layer) => layer.width >= width || layer.height >= height);
  return enough?.quality ?? VideoQuality.HIGH;
}
