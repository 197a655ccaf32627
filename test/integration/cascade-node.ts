import { randomUUID } from 'node:crypto';
import { TrackInfo, TrackType } from '@livekit/protocol';
import type { Producer } from 'mediasoup/types';
import { Registry } from 'prom-client';
import { Role, type Assignment, type LinkState, type LinkStatus } from '#proto/weir/control/v1/control.ts';
import { systemClock as clock } from '#platform/clock.ts';
import { createLogger } from '#platform/log.ts';
import { Cascade } from '#sfu-node/cascade/cascade.ts';
import { RoomLinks } from '#sfu-node/cascade/room-links.ts';
import { NatsLink } from '#sfu-node/coordination/nats-link.ts';
import { codecsOf } from '#sfu-node/media/codecs.ts';
import type { LayerDemand } from '#sfu-node/media/demand.ts';
import { Site } from '#sfu-node/media/site.ts';
import { PublishedTrack, type TrackHold } from '#sfu-node/media/track.ts';
import { WorkerPool } from '#sfu-node/media/worker-pool.ts';
import { createNodeMetrics, type NodeMetrics } from '#sfu-node/metrics.ts';
import type { LocalNats } from '#tools/local/nats.ts';

const log = createLogger({ name: 'test', level: process.env['TEST_LOG'] ?? 'silent' });

/** What an operator would declare, by hand. `routes` is by source: the neighbour that its streams come from. */
export interface RoomPlan {
  uid: string;
  epoch?: number;
  links: string[];
  routes?: Record<string, string>;
}

export function assignmentOf(plan: RoomPlan): Assignment {
  const { uid, epoch = 1, links, routes = Object.fromEntries(links.map((name) => [name, name])) } = plan;
  return {
    room: { uid, namespace: 'default', name: uid, roomName: uid },
    ...{ epoch, generation: 1, role: Role.EDGE, links, settings: undefined },
    placement: links.map((node) => ({ node, region: `region-of-${node}`, role: Role.EDGE })),
    routes: Object.entries(routes).map(([source, via]) => ({ source, via })),
  };
}

/** A node of which only the cascade and its media workers are there. */
export class CascadeNode {
  readonly name: string;
  readonly cascade: Cascade;
  readonly metrics: NodeMetrics;
  readonly nats: NatsLink;
  readonly workers: WorkerPool;
  readonly #rooms = new Set<CascadeRoom>();

  static async start(name: string, server: LocalNats): Promise<CascadeNode> {
    const metrics = createNodeMetrics(new Registry());
    const nats = NatsLink.create({ url: server.url, ...server.users['sfu-node'], name, clock, log });
    const workers = await WorkerPool.create({
      count: 2,
      addresses: [{ ip: '127.0.0.1' }],
      portBase: 0,
      clock,
      log,
      metrics,
    });
    return new CascadeNode(name, nats, workers, metrics);
  }

  private constructor(name: string, nats: NatsLink, workers: WorkerPool, metrics: NodeMetrics) {
    this.name = name;
    this.nats = nats;
    this.workers = workers;
    this.metrics = metrics;
    this.cascade = Cascade.create({ node: name, instance: randomUUID(), nats, metrics, log });
  }

  /** Begins to serve a room; links are opened from here on. */
  async serve(plan: RoomPlan): Promise<CascadeRoom> {
    const room = new CascadeRoom(
      this,
      await Site.create(this.workers, codecsOf({ codecs: [], audioOnly: false })),
      plan,
    );
    this.#rooms.add(room);
    return room;
  }

  async refusals(code: string): Promise<number> {
    const { values } = await this.metrics.cascadeRefusals.get();
    return values.find(({ labels }) => labels.code === code)?.value ?? 0;
  }

  async failedOffers(code: string): Promise<number> {
    const { values } = await this.metrics.linkOffersFailed.get();
    return values.find(({ labels }) => labels.code === code)?.value ?? 0;
  }

  /** As a killed process goes: without a word to anybody. */
  async vanish(): Promise<void> {
    await this.nats.close();
    this.workers.close();
    for (const room of this.#rooms) room.close();
  }

  async close(): Promise<void> {
    for (const room of this.#rooms) room.close();
    await this.nats.close();
    this.workers.close();
  }
}

/** Somebody on a node who holds a track, and the producers that it was told of. */
export interface Holder {
  readonly hold: TrackHold;
  readonly told: Producer[];
  /** Of each producer it was told of: whether the one before was open at that moment. */
  readonly overlaps: boolean[];
}

/** A room on one node: its links, and its tracks. */
export class CascadeRoom {
  readonly site: Site;
  readonly links: RoomLinks;
  /** What was asked of the tracks that are published here, the newest last. */
  readonly asked = new Map<string, (LayerDemand | undefined)[]>();
  readonly #tracks = new Map<string, PublishedTrack>();
  readonly #sources = new Map<string, string>();
  readonly #states = new Map<string, Set<LinkState>>();

  constructor({ name: node, cascade, metrics }: CascadeNode, site: Site, plan: RoomPlan) {
    this.site = site;
    this.links = new RoomLinks({
      ...{ cascade, node, site, clock, log, metrics, assignment: assignmentOf(plan) },
      listen: { ip: '127.0.0.1', capacityMbps: 1000 },
      track: (sid) => this.#tracks.get(sid),
      nodeOf: (sid) => this.#sources.get(sid),
      isSpeaking: () => false,
      newId: (prefix) => prefix + randomUUID(),
      onStatus: () => this.#note(),
    });
    this.links.update(assignmentOf(plan));
  }

  status(peer: string): LinkStatus | undefined {
    return this.links.statuses.find((status) => status.peer === peer);
  }

  /** Every state that the link to a peer was ever told to be in. */
  statesOf(peer: string): LinkState[] {
    return [...(this.#states.get(peer) ?? [])];
  }

  /** Transports of the room's router, whatever they are for. */
  async transports(): Promise<number> {
    return (await this.site.router.dump()).transportIds.length;
  }

  /** How often a producer of this router is sent on. */
  async consumers({ id }: Producer): Promise<number> {
    const { mapProducerIdConsumerIds: all } = await this.site.router.dump();
    return all.find(({ key }) => key === id)?.values.length ?? 0;
  }

  /** A track that is published here. */
  publish(sid: string, producer: Producer): PublishedTrack {
    const demands: (LayerDemand | undefined)[] = [];
    this.asked.set(sid, demands);
    const setDemand = (demand: LayerDemand | undefined) => void demands.push(demand);
    const track = newTrack(sid, producer.kind, { site: this.site, producer, setDemand });
    this.#tracks.set(sid, track);
    return track;
  }

  /** A track that is published on another node, as a room's feed tells of it. */
  learn(sid: string, kind: 'audio' | 'video', source: string): PublishedTrack {
    const track: PublishedTrack = newTrack(
      sid,
      kind,
      this.links.origin(sid, source, () => track.refresh()),
    );
    this.#sources.set(sid, source);
    this.#tracks.set(sid, track);
    return track;
  }

  hold(sid: string, demand: LayerDemand, site = this.site): Holder {
    const track = this.#tracks.get(sid);
    if (!track) throw new Error(`nobody knows of track ${sid} here`);
    const told: Producer[] = [];
    const overlaps: boolean[] = [];
    const hold = track.hold(site, demand, (producer) => {
      const before = told.at(-1);
      if (before) overlaps.push(!before.closed);
      told.push(producer);
    });
    return { hold, told, overlaps };
  }

  /** A track has ended. */
  end(sid: string): void {
    this.#tracks.get(sid)?.close();
    this.#tracks.delete(sid);
    this.#sources.delete(sid);
    this.links.forget(sid);
  }

  close(): void {
    this.links.close();
    this.site.close();
  }

  #note(): void {
    for (const { peer, state } of this.links.statuses) {
      this.#states.set(peer, (this.#states.get(peer) ?? new Set()).add(state));
    }
  }
}

function newTrack(sid: string, kind: 'audio' | 'video', origin: ConstructorParameters<typeof PublishedTrack>[2]) {
  const info = new TrackInfo({ sid, type: kind === 'audio' ? TrackType.AUDIO : TrackType.VIDEO });
  return new PublishedTrack({ sid: 'PA_1', identity: 'ada' }, info, origin, (error) =>
    log.error({ err: error, track: sid }, 'a track could not be brought to another worker'),
  );
}
