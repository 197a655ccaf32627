import type { Assignment, LinkStatus } from '#proto/weir/control/v1/control.ts';
import { LinkState } from '#proto/weir/control/v1/control.ts';
import type { LinkEnd, LinkOffer, TrackRequest, TrackSupply } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { codeOf, messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import type { LayerDemand } from '../media/demand.ts';
import type { Site } from '../media/site.ts';
import type { PublishedTrack } from '../media/track.ts';
import type { NodeMetrics } from '../metrics.ts';
import type { Cascade } from './cascade.ts';
import { Link, type LinkListen } from './link.ts';
import { LinkGovernor } from './link-governor.ts';
import type { LinkSample, LinkTracks } from './link-metrics.ts';
import { LinkOutputs, retireMs } from './link-outputs.ts';
import { RemoteOrigin, type Upstream } from './remote-origin.ts';

/** A half that was opened for an offer and over which nothing came is torn down after so long, milliseconds. */
const halfOpenMs = 5000;
/** Pauses between offers to a peer that does not take them, milliseconds: doubled from the first to the last. */
const retry = { firstMs: 250, lastMs: 8000 } as const;
/** The same for a peer that is about to learn of the room: short ones at first, as that takes a moment at most times. */
const notYet = { shortPauses: 8, lastMs: 2000 } as const;
/** How often each link is looked at for congestion, milliseconds. */
const governMs = 1000;
/** Figures of links are told every so many looks. */
const figuresEvery = 5;
/** A link over which nothing comes any more is offered anew after so long, milliseconds. */
const reofferMs = 1000;

export interface RoomLinksOptions {
  readonly cascade: Cascade;
  /** Name of this node. */
  readonly node: string;
  readonly site: Site;
  readonly listen: LinkListen;
  readonly assignment: Assignment;
  /** A track of the room by its sid. */
  readonly track: (sid: string) => PublishedTrack | undefined;
  /** Node on which a track is published; undefined for a track that is not known. */
  readonly nodeOf: (sid: string) => string | undefined;
  /** Whether a participant speaks now: it keeps its layers longest on a narrow link. */
  readonly isSpeaking: (participantSid: string) => boolean;
  readonly newId: (prefix: string) => string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: NodeMetrics;
  /** State of a link changed. */
  readonly onStatus: () => void;
}

/** What this node keeps with one neighbour. */
interface Neighbour {
  readonly name: string;
  /** The link that is used: the newest one over which packets came. */
  current: Link | undefined;
  /** A link that is being opened, in place of `current` if there is one. */
  opening: Link | undefined;
  /** Why the last offer was not taken. */
  error: WeirError | undefined;
  failures: number;
  cancelRetry: () => void;
}

/**
 * The cascade links of one room on this node: one with each neighbour that its assignment names. Of a pair the node whose
 * name sorts first offers, under the room's epoch; both halves come and go together. A link that went silent is offered
 * anew, and used until the new one carries packets.
 */
export class RoomLinks implements Upstream {
  readonly #options: RoomLinksOptions;
  readonly #neighbours = new Map<string, Neighbour>();
  /** Every link that is open, with what this node sends over it. */
  readonly #outputs = new Map<Link, LinkOutputs>();
  readonly #governors = new Map<Link, LinkGovernor>();
  #cancelGovern: () => void = () => undefined;
  #rounds = 0;
  readonly #origins = new Map<string, RemoteOrigin>();
  #assignment: Assignment;
  #closed = false;

  constructor(options: RoomLinksOptions) {
    this.#options = options;
    this.#assignment = options.assignment;
    options.cascade.add(this.uid, this);
  }

  get uid(): string {
    return this.#assignment.room?.uid ?? '';
  }

  get site(): Site {
    return this.#options.site;
  }

  /** Status of the link to each neighbour, by name. */
  get statuses(): LinkStatus[] {
    return [...this.#neighbours.values()].map((neighbour) =>
      statusOf(neighbour, neighbour.current && this.#governors.get(neighbour.current)?.degradation),
    );
  }

  /** Links that are open. */
  get links(): Link[] {
    return [...this.#outputs.keys()];
  }

  /** The link to each neighbour, for metrics. */
  get samples(): LinkSample[] {
    const regions = new Map(this.#assignment.placement.map(({ node, region }) => [node, region]));
    return [...this.#neighbours.values()].map(({ name, current }) => {
      const governor = current && this.#governors.get(current);
      return {
        region: regions.get(name) ?? '',
        state: stateOf(current, governor?.degradation),
        figures: current?.figures,
        ageMs: current?.ageMs ?? 0,
        layersLeftOut: governor?.steps ?? 0,
      };
    });
  }

  /** How many tracks come over links, and how many go. */
  get tracks(): LinkTracks {
    const incoming = [...this.#origins.values()].filter(({ producer }) => producer && !producer.closed);
    const outgoing = [...this.#outputs.values()].flatMap((outputs) => [...outputs.senders()]);
    return { in: incoming.length, out: outgoing.length };
  }

  /** Takes the neighbours and routes of a newer assignment. */
  update(assignment: Assignment): void {
    this.#assignment = assignment;
    const wanted = new Set(assignment.links);
    for (const neighbour of this.#neighbours.values()) if (!wanted.has(neighbour.name)) this.#leave(neighbour);
    for (const name of wanted) {
      const known = this.#neighbours.get(name);
      const neighbour = known ?? {
        ...{ name, current: undefined, opening: undefined, error: undefined, failures: 0 },
        cancelRetry: () => undefined,
      };
      this.#neighbours.set(name, neighbour);
      // Refused at the epoch before, perhaps: the peer may be there by now.
      if (!neighbour.current?.up) this.#offerSoon(neighbour, 0);
    }
    this.#pokeAll();
  }

  /** How a track of another node comes in here. */
  origin(trackSid: string, source: string, onProducer: () => void): RemoteOrigin {
    const { clock, log } = this.#options;
    const origin = new RemoteOrigin({ trackSid, source, upstream: this, clock, log, onProducer });
    this.#origins.set(trackSid, origin);
    return origin;
  }

  /** A track has ended. */
  forget(trackSid: string): void {
    this.#origins.get(trackSid)?.close();
    this.#origins.delete(trackSid);
    for (const outputs of this.#outputs.values()) outputs.drop(trackSid);
  }

  linkTowards(source: string): Link | undefined {
    const via = this.#viaOf(source);
    const current = via === undefined ? undefined : this.#neighbours.get(via)?.current;
    return current && !current.closed ? current : undefined;
  }

  linkIsGone(link: Link): void {
    this.#lost(link);
  }

  request(
    link: Link,
    trackSid: string,
    version: number,
    demand: LayerDemand | undefined,
  ): Promise<TrackSupply | undefined> {
    const { epoch } = this.#assignment;
    return this.#options.cascade.requestTrack(link.peer, {
      ...{ roomUid: this.uid, epoch, link: link.id, trackSid, version },
      demand: demand && { paused: demand.paused, layers: demand.layers },
    });
  }

  /**
   * Opens this node's half of a link that a peer offers.
   * @throws WeirError StaleEpoch, EpochNotSeen, NotALink, CascadePortsInUse, InvalidLinkEnd
   */
  async accept(offer: LinkOffer): Promise<LinkEnd> {
    this.#fence(offer.epoch);
    const neighbour = this.#neighbours.get(offer.from);
    if (!neighbour || offer.from >= this.#options.node || !offer.end) {
      throw new WeirError(
        'NotALink',
        `Room ${this.#roomName} at epoch ${this.#assignment.epoch} has no link that node ${offer.from} opens to node ${this.#options.node}.`,
      );
    }
    const link = await this.#create(neighbour, offer.link);
    try {
      await link.connect(offer.end);
    } catch (error) {
      this.#end(link);
      throw error;
    }
    if (this.#closed || this.#neighbours.get(offer.from) !== neighbour) {
      this.#end(link);
      throw new WeirError('NotALink', `Room ${this.#roomName} has no link with node ${offer.from} any more.`);
    }
    if (neighbour.opening) this.#end(neighbour.opening);
    neighbour.opening = link;
    // Nothing comes over it: the peer did not get our answer, or its packets do not get here.
    this.#options.clock.after(halfOpenMs, () => {
      if (neighbour.opening !== link) return;
      neighbour.opening = undefined;
      this.#end(link);
    });
    return link.end;
  }

  /**
   * Serves a request for a track from the other end of a link.
   * @throws WeirError StaleEpoch, EpochNotSeen, UnknownLink, WrongWay, TrackPending, StaleRequest
   */
  async supply(request: TrackRequest): Promise<TrackSupply | undefined> {
    const link = this.links.find(({ id }) => id === request.link);
    const outputs = link && this.#outputs.get(link);
    if (!link || !outputs) {
      throw new WeirError('UnknownLink', `Node ${this.#options.node} has no such link of room ${this.#roomName} now.`);
    }
    const { trackSid, demand } = request;
    if (demand) {
      this.#fence(request.epoch);
      const source = this.#options.nodeOf(trackSid);
      if (source !== undefined && this.#viaOf(source) === link.peer) {
        throw new WeirError(
          'WrongWay',
          `Track ${trackSid} comes to node ${this.#options.node} from node ${link.peer}.`,
        );
      }
    }
    return outputs.handle(request, this.#options.track(trackSid));
  }

  /** The other end closed a link. */
  closedByPeer(id: string): void {
    const link = this.links.find((candidate) => candidate.id === id);
    if (link) this.#lost(link);
  }

  /** The other end sends a track as another stream since. */
  streamChanged(trackSid: string): void {
    this.#origins.get(trackSid)?.streamChanged();
  }

  /** NATS is back: what waited for it goes on at once. */
  resume(): void {
    for (const neighbour of this.#neighbours.values()) if (!neighbour.current?.up) this.#offerSoon(neighbour, 0);
    this.#pokeAll();
  }

  close(): void {
    this.#closed = true;
    this.#cancelGovern();
    this.#options.cascade.remove(this.uid, this);
    for (const origin of this.#origins.values()) origin.close();
    for (const neighbour of this.#neighbours.values()) neighbour.cancelRetry();
    this.#neighbours.clear();
    for (const link of this.links) this.#end(link);
  }

  get #roomName(): string {
    return this.#assignment.room?.roomName ?? '';
  }

  #viaOf(source: string): string | undefined {
    return this.#assignment.routes.find((route) => route.source === source)?.via;
  }

  #fence(epoch: number): void {
    const own = this.#assignment.epoch;
    if (epoch < own) {
      throw new WeirError('StaleEpoch', `Room ${this.#roomName} is at epoch ${own} here; epoch ${epoch} is refused.`);
    }
    if (epoch > own) {
      throw new WeirError(
        'EpochNotSeen',
        `Room ${this.#roomName} is at epoch ${own} here, not at ${epoch} yet; ask again.`,
      );
    }
  }

  async #create(neighbour: Neighbour, id: string): Promise<Link> {
    const { site, listen, clock, newId, log } = this.#options;
    const link: Link = await Link.create({
      ...{ id, peer: neighbour.name, site, listen, clock },
      onUp: () => this.#cameUp(neighbour, link),
      onChange: () => this.#changed(neighbour, link),
    });
    const onStream = (trackSid: string) => {
      this.#options.cascade.tellStream(link.peer, { roomUid: this.uid, link: link.id, trackSid });
    };
    this.#outputs.set(link, new LinkOutputs({ link, clock, log, newId, onStream }));
    // Rooms of one node, which are most, look at nothing.
    if (this.#governors.size === 0) this.#governSoon();
    this.#governors.set(link, new LinkGovernor(listen.capacityMbps, this.#options.isSpeaking));
    return link;
  }

  #offerSoon(neighbour: Neighbour, ms: number): void {
    if (this.#options.node >= neighbour.name) return;
    neighbour.cancelRetry();
    neighbour.cancelRetry = this.#options.clock.after(ms, () => void this.#offer(neighbour));
  }

  async #offer(neighbour: Neighbour): Promise<void> {
    const current = () => !this.#closed && this.#neighbours.get(neighbour.name) === neighbour;
    // A link that went silent may carry packets again by now.
    if (!current() || neighbour.opening || neighbour.current?.up) return;
    let link: Link | undefined;
    try {
      link = await this.#create(neighbour, this.#options.newId('LK_'));
      if (!current()) return this.#end(link);
      neighbour.opening = link;
      const { cascade, node } = this.#options;
      const answer = await cascade.offerLink(neighbour.name, {
        ...{ roomUid: this.uid, epoch: this.#assignment.epoch, from: node, instance: cascade.instance },
        ...{ link: link.id, end: link.end },
      });
      if (!current() || neighbour.opening !== link) return this.#end(link);
      await link.connect(answer);
      neighbour.error = undefined;
      this.#options.clock.after(halfOpenMs, () => {
        if (neighbour.opening !== link || !link) return;
        const words = `Node ${neighbour.name} took the link and nothing comes over it; its port may be closed to this node.`;
        this.#offerFailed(neighbour, link, new WeirError('LinkSilent', words));
      });
    } catch (error) {
      this.#offerFailed(neighbour, link, error);
    }
  }

  #offerFailed(neighbour: Neighbour, link: Link | undefined, error: unknown): void {
    if (link) {
      if (neighbour.opening === link) neighbour.opening = undefined;
      this.#end(link);
    }
    if (this.#closed || this.#neighbours.get(neighbour.name) !== neighbour) return;
    const { metrics, log, onStatus } = this.#options;
    const code = codeOf(error);
    // The peer is about to learn of the room: that takes a moment, and is nothing to tell of.
    const passing = code === 'EpochNotSeen' || code === 'RoomNotServed';
    neighbour.failures += 1;
    if (!passing || neighbour.failures > 3) {
      const news = neighbour.error?.code !== code;
      neighbour.error = error instanceof WeirError ? error : new WeirError(code, messageOf(error));
      metrics.linkOffersFailed.inc({ code });
      if (news) {
        log.warn(
          { peer: neighbour.name, code, reason: messageOf(error) },
          'Cascade link cannot be opened; trying again',
        );
        onStatus();
      }
    }
    this.#offerSoon(neighbour, pauseAfter(neighbour.failures, passing));
  }

  #cameUp(neighbour: Neighbour, link: Link): void {
    if (neighbour.opening !== link) return;
    const { log, clock, onStatus } = this.#options;
    const before = neighbour.current;
    neighbour.current = link;
    neighbour.opening = undefined;
    neighbour.failures = 0;
    neighbour.error = undefined;
    log.info({ peer: neighbour.name, link: link.id, instead: before?.id }, 'Cascade link is up');
    onStatus();
    this.#pokeAll();
    // Its tracks come over the new one by then.
    if (before) clock.after(retireMs, () => this.#end(before));
  }

  #changed(neighbour: Neighbour, link: Link): void {
    if (neighbour.current !== link) return;
    const { log, onStatus } = this.#options;
    if (link.up) log.info({ peer: neighbour.name, link: link.id }, 'Cascade link carries packets again');
    else {
      log.warn({ peer: neighbour.name, link: link.id }, 'Nothing comes over a cascade link');
      this.#offerSoon(neighbour, reofferMs);
    }
    onStatus();
    this.#pokeAll();
  }

  #lost(link: Link): void {
    const neighbour = this.#neighbours.get(link.peer);
    this.#end(link);
    if (!neighbour) return;
    if (neighbour.opening === link) neighbour.opening = undefined;
    if (neighbour.current !== link) return;
    neighbour.current = undefined;
    this.#options.onStatus();
    this.#offerSoon(neighbour, retry.firstMs);
  }

  /** The assignment does not name it any more: what comes over its link has time to come another way. */
  #leave(neighbour: Neighbour): void {
    this.#neighbours.delete(neighbour.name);
    neighbour.cancelRetry();
    const { current, opening } = neighbour;
    if (opening) this.#end(opening);
    if (current) this.#options.clock.after(retireMs, () => this.#end(current));
  }

  /** Both halves go together: the other end is told. */
  #end(link: Link): void {
    const outputs = this.#outputs.get(link);
    if (!outputs) return;
    this.#outputs.delete(link);
    this.#governors.delete(link);
    outputs.close();
    link.close();
    this.#options.cascade.tellClosed(link.peer, { roomUid: this.uid, link: link.id });
  }

  #governSoon(): void {
    this.#cancelGovern();
    this.#cancelGovern = this.#options.clock.after(governMs, () => this.#govern());
  }

  #govern(): void {
    const { log } = this.#options;
    for (const [link, governor] of this.#governors) {
      this.#relieve(link, governor).catch((error: unknown) => {
        // Closed while it was asked: there is nothing to relieve any more.
        if (!link.closed) log.warn({ err: error, peer: link.peer }, 'A cascade link could not be looked at');
      });
    }
    this.#rounds += 1;
    if (this.#governors.size === 0) return;
    if (this.#rounds % figuresEvery === 0) this.#options.onStatus();
    this.#governSoon();
  }

  /** Leaves out layers on a link that is congested. What its packets tell of loss is finer than what probes tell. */
  async #relieve(link: Link, governor: LinkGovernor): Promise<void> {
    const outputs = this.#outputs.get(link);
    if (!link.up || !outputs) return;
    const { clock, log, onStatus } = this.#options;
    const { lossOut, sentKbps } = link.figures;
    const { loss = lossOut, rttMs } = await outputs.measure();
    const before = governor.degradation;
    governor.govern({ loss, rttMs, sentKbps }, outputs.senders(), clock.now());
    const after = governor.degradation;
    if (before === after || !this.#outputs.has(link)) return;
    const fields = { peer: link.peer, reason: after, layersLeftOut: governor.steps };
    if (after === undefined) log.info(fields, 'Cascade link carries all that is wanted again');
    else if (before === undefined) log.warn(fields, 'Cascade link is congested; lower-priority video loses layers');
    onStatus();
  }

  #pokeAll(): void {
    for (const origin of this.#origins.values()) origin.poke();
  }
}

/** Pause before the next offer, milliseconds. */
function pauseAfter(failures: number, passing: boolean): number {
  if (!passing) return Math.min(retry.lastMs, retry.firstMs * 2 ** (failures - 1));
  return Math.min(notYet.lastMs, retry.firstMs * 2 ** Math.max(0, failures - notYet.shortPauses));
}

function statusOf({ name, current, error }: Neighbour, degradation: string | undefined): LinkStatus {
  const figures = current?.figures;
  return {
    peer: name,
    state: stateOf(current, degradation),
    rttMs: figures?.rttMs ?? 0,
    loss: figures?.lossIn ?? 0,
    jitterMs: figures?.jitterMs ?? 0,
    kbps: figures?.sentKbps ?? 0,
    ageSeconds: current ? current.ageMs / 1000 : 0,
    errorCode: error?.code ?? '',
    error: error?.message ?? '',
  };
}

function stateOf(link: Link | undefined, degradation: string | undefined): LinkState {
  const state = link?.state ?? LinkState.OPENING;
  return state === LinkState.UP && degradation !== undefined ? LinkState.DEGRADED : state;
}
