import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

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
  return {
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
    drainSeconds: new Gauge({
      name: 'sfu_drain_duration_seconds',
      help: 'How long the rooms took to leave when this node was told to end.',
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
