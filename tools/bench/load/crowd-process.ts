/** A process of simulated clients, started and told what to do by {@link Crowd}. */
import { setPriority } from 'node:os';
import { messageOf } from '#platform/errors.ts';
import { inParallel } from '../rooms.ts';
import type { Arrivals, ClientSpec, CrowdAnswer, CrowdCommand, Measured } from './crowd-messages.ts';
import { isWithin, LatencyCounts, type TimeWindow } from './reception.ts';
import { SimulatedClient } from './simulated-client.ts';
import { monotonicNow } from './stamp.ts';

/** Of `nice`: below the fleet's, above what is only done when nothing else is to do. */
const CLIENTS_PRIORITY = 5;

/** What is counted of the packets of one window. */
interface Counting {
  window: TimeWindow;
  sent: Measured['sent'];
  latency: LatencyCounts;
}

/** One simulated client and what is noted of it. */
interface Member {
  client: SimulatedClient | undefined;
  expects: number;
  joinedAt: number;
  /** When the first packet of each track came, in their order. */
  firstPackets: number[];
  /** Packets of the window that came, and those of the lowest layer that it sent. */
  received: number;
  sent: number;
}

const members: Member[] = [];
let counting: Counting | undefined;
let idle = performance.eventLoopUtilization();

async function join({ url, token, publishes, expects }: ClientSpec): Promise<void> {
  const member: Member = {
    client: undefined,
    expects,
    joinedAt: monotonicNow(),
    firstPackets: [],
    received: 0,
    sent: 0,
  };
  members.push(member);
  member.client = await SimulatedClient.join({
    ...{ url, token, publishes },
    // Where the fleet of a benchmark is.
    bindAddress: '127.0.0.1',
    onFirstPacket: () => member.firstPackets.push(monotonicNow()),
    onSent: (layer, octets, sentAt) => {
      if (!counting || !isWithin(counting.window, sentAt)) return;
      const { sent } = counting;
      if (layer === 0) member.sent += 1;
      sent.packets[layer] = (sent.packets[layer] ?? 0) + 1;
      sent.octets[layer] = (sent.octets[layer] ?? 0) + octets;
    },
    onReceived: ({ sentAt }) => {
      if (!counting || !isWithin(counting.window, sentAt)) return;
      member.received += 1;
      counting.latency.take((monotonicNow() - sentAt) / 1e6);
    },
  });
}

function arrivals(): Arrivals {
  return {
    open: members.filter(({ client }) => client?.open).length,
    received: members.flatMap(({ expects, joinedAt, firstPackets }) => {
      const at = firstPackets[expects - 1];
      return at === undefined ? [] : [{ at, afterMs: (at - joinedAt) / 1e6 }];
    }),
  };
}

function begin(window: TimeWindow): void {
  for (const member of members) Object.assign(member, { received: 0, sent: 0 });
  counting = { window, sent: { packets: [], octets: [] }, latency: new LatencyCounts() };
  idle = performance.eventLoopUtilization();
}

function measured(): Measured {
  if (!counting) throw new Error('nothing is being measured');
  const { sent, latency } = counting;
  const tracks = members.flatMap(({ client }) => [...(client?.tracks.values() ?? [])]);
  return {
    sent,
    clients: members.map(({ received, sent: own }) => ({ received, sent: own })),
    latency: latency.counts,
    gaps: tracks.reduce((sum, { lost }) => sum + lost, 0),
    busy: performance.eventLoopUtilization(idle).utilization,
  };
}

async function carryOut(command: CrowdCommand): Promise<CrowdAnswer> {
  switch (command.case) {
    case 'join':
      await inParallel(command.clients.length, command.atOnce, async (index) => {
        const spec = command.clients[index];
        if (spec) await join(spec);
      });
      return { case: 'joined' };
    case 'arrivals':
      return { case: 'arrivals', arrivals: arrivals() };
    case 'measure':
      begin(command.window);
      return { case: 'measuring' };
    case 'measured':
      return { case: 'measured', measured: measured() };
  }
}

// Where clients and fleet share a machine that is too small for both, it is the clients who are slow.
setPriority(CLIENTS_PRIORITY);
// Nobody is there any more to say what to do. The server sees the connections close.
process.once('disconnect', () => {
  for (const { client } of members) client?.close();
  process.exit();
});
process.on('message', ({ id, command }: { id: number; command: CrowdCommand }) => {
  const answer = carryOut(command).catch((error: unknown): CrowdAnswer => ({
    case: 'failed',
    message: messageOf(error),
  }));
  void answer.then((said) => process.send?.({ id, answer: said }));
});
