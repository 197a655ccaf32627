import { readFileSync } from 'node:fs';

/** Datagrams since the start of the network namespace. */
export interface DatagramCounts {
  /** Given to whom they were for. */
  readonly received: number;
  /** Dropped, as the receiving socket's buffer was full. */
  readonly dropped: number;
}

const files = ['/proc/net/snmp', '/proc/net/snmp6'] as const;

/** Counts of UDP over IPv4 and IPv6 in the words of /proc/net/snmp and /proc/net/snmp6. What is missing counts as 0. */
export function parseDatagrams(snmp: string, snmp6: string): DatagramCounts {
  const [names = [], values = []] = snmp
    .split('\n')
    .filter((line) => line.startsWith('Udp:'))
    .map((line) => line.split(/\s+/));
  const v4 = (name: string) => Number(values[names.indexOf(name)] ?? 0);
  const v6 = (name: string) => Number(new RegExp(`^Udp6${name}\\s+(\\d+)`, 'm').exec(snmp6)?.[1] ?? 0);
  return {
    received: v4('InDatagrams') + v6('InDatagrams'),
    dropped: v4('RcvbufErrors') + v6('RcvbufErrors'),
  };
}

/** Share (0..1) of datagrams that were dropped between two counts. */
export function droppedShare(before: DatagramCounts, after: DatagramCounts): number {
  const dropped = Math.max(0, after.dropped - before.dropped);
  const all = Math.max(0, after.received - before.received) + dropped;
  return all === 0 ? 0 : dropped / all;
}

/** The counts of this process's network namespace (the pod's, or the machine's); zeros where the system has none. */
export function readDatagrams(): DatagramCounts {
  const [snmp = '', snmp6 = ''] = files.map((file) => {
    try {
      return readFileSync(file, 'utf8');
    } catch {
      return '';
    }
  });
  return parseDatagrams(snmp, snmp6);
}
