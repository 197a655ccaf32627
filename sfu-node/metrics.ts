import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { NodeLinks, RegionFigures } from './cascade/link-metrics.ts';

interface RoomFigures {
  rooms: number;
  participants: number;
  streams: number;
}

/** Metrics of one sfu-node. Labels are bounded: never a room, participant or track. */
export function createNodeMetrics(registry: Registry) {
  const registers = [registry];
  const seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
  let rooms: (() => RoomFigures) | undefined;
  const gauge = (name: string, help: string, read: (figures: RoomFigures) => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        if (rooms) this.set(read(rooms()));
      },
    });
  gauge('sfu_rooms', 'Rooms assigned to this node.', (figures) => figures.rooms);
  gauge('sfu_participants', 'Participants connected to this node.', (figures) => figures.participants);
  gauge('sfu_streams', 'Published plus subscribed tracks on this node.', (figures) => figures.streams);
  const trackLinks = createLinkGauges(registry);
  let capacity: (() => number) | undefined;
  new Gauge({
    name: 'sfu_capacity_streams',
    help: 'Streams that this node says it can carry; fewer than configured while it is strained.',
    registers,
    collect() {
      if (capacity) this.set(capacity());
    },
  });
  return {
    trackLinks,
    /** Says where the capacity in streams is read when it is scraped. */
    trackCapacity(read: () => number): void {
      capacity = read;
    },
    /** Says where the figures of rooms are read when they are scraped. */
    trackRooms(read: () => RoomFigures): void {
      rooms = read;
    },
    workers: new Gauge({ name: 'sfu_workers', help: 'Media workers alive.', registers }),
    workerDeaths: new Counter({ name: 'sfu_worker_deaths_total', help: 'Media workers that died.', registers }),
    joins: new Counter({
      name: 'sfu_joins_total',
      help: 'Joins by result: ok, or the code of the error.',
      labelNames: ['result'],
      registers,
    }),
    joinSeconds: new Histogram({
      name: 'sfu_join_duration_seconds',
      help: 'From the upgrade request to the join response.',
      buckets: seconds,
      registers,
    }),
    violations: new Counter({
      name: 'sfu_protocol_violations_total',
      help: 'Clients closed for what they sent, by code.',
      labelNames: ['code'],
      registers,
    }),
    dataPackets: new Counter({
      name: 'sfu_data_packets_total',
      help: 'Data packets received from clients, by kind.',
      labelNames: ['kind'],
      registers,
    }),
    relayedSessions: new Gauge({
      name: 'sfu_relayed_sessions',
      help: 'Clients whose WebSocket is on one node and media on another, by this side of it.',
      labelNames: ['side'],
      registers,
    }),
    linkOffersFailed: new Counter({
      name: 'sfu_link_offers_failed_total',
      help: 'Offers of a cascade link that came to nothing, by code.',
      labelNames: ['code'],
      registers,
    }),
    cascadeRefusals: new Counter({
      name: 'sfu_cascade_refusals_total',
      help: 'Requests of other nodes for links and tracks that were refused, by code.',
      labelNames: ['code'],
      registers,
    }),
    feedMessagesDropped: new Counter({
      name: 'sfu_feed_messages_dropped_total',
      help: 'Messages of the feeds between the nodes of a room that were dropped, by reason.',
      labelNames: ['reason'],
      registers,
    }),
    feedGaps: new Counter({
      name: 'sfu_feed_gaps_total',
      help: 'Times that entries of a feed of another node were missing and had to be asked for.',
      registers,
    }),
    feedDataLost: new Counter({
      name: 'sfu_feed_data_lost_total',
      help: 'Reliable data packets of other nodes that were kept no more when they were asked for.',
      registers,
    }),
    staleAssignments: new Counter({
      name: 'sfu_stale_assignments_total',
      help: 'Assignments refused for an old epoch.',
      registers,
    }),
  };
}

export type NodeMetrics = ReturnType<typeof createNodeMetrics>;

/**
 * Gauges of cascade links. They are by region of the peer: rooms, and nodes that come and go, are none of a scrape's business.
 * @returns what says where the figures are read when they are scraped
 */
function createLinkGauges(registry: Registry): (read: () => NodeLinks) => void {
  let links: (() => NodeLinks) | undefined;
  const gauge = (name: string, help: string, labelNames: string[], set: (gauge: Gauge, figures: NodeLinks) => void) =>
    new Gauge({
      ...{ name, help, labelNames, registers: [registry] },
      collect() {
        this.reset();
        if (links) set(this, links());
      },
    });
  const byRegion = (name: string, help: string, read: (figures: RegionFigures) => number) =>
    gauge(name, help, ['peer_region'], (own, { regions }) => {
      for (const [region, figures] of regions) own.set({ peer_region: region }, read(figures));
    });
  gauge('sfu_links', 'Cascade links of rooms on this node, by state.', ['state'], (own, { states }) => {
    for (const [state, count] of Object.entries(states)) own.set({ state }, count);
  });
  byRegion('sfu_link_rtt_seconds', 'Longest round trip time of a cascade link.', ({ rtt }) => rtt);
  byRegion('sfu_link_loss_ratio', 'Highest share of probes lost on the way here over a link.', ({ loss }) => loss);
  byRegion('sfu_link_jitter_seconds', 'Highest jitter of a cascade link.', ({ jitter }) => jitter);
  byRegion('sfu_link_age_seconds', 'Since the youngest cascade link came up.', ({ age }) => age);
  byRegion(
    'sfu_link_layers_left_out',
    'Video layers left out of congested cascade links.',
    ({ layersLeftOut }) => layersLeftOut,
  );
  const rateLabels = ['peer_region', 'direction'];
  gauge('sfu_link_bits_per_second', 'Bits a second over all cascade links.', rateLabels, (own, { regions }) => {
    for (const [region, { sent, received }] of regions) {
      own.set({ peer_region: region, direction: 'sent' }, sent);
      own.set({ peer_region: region, direction: 'received' }, received);
    }
  });
  gauge(
    'sfu_link_tracks',
    'Tracks that cross cascade links to this node and from it.',
    ['direction'],
    (own, figures) => {
      own.set({ direction: 'in' }, figures.tracks.in);
      own.set({ direction: 'out' }, figures.tracks.out);
    },
  );
  return (read) => {
    links = read;
  };
}
