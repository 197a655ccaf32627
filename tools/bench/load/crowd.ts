import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { cpuSeconds } from '../processes.ts';
import type { Arrivals, ClientSpec, CrowdAnswer, CrowdCommand, Measured } from './crowd-messages.ts';
import { LatencyCounts, type TimeWindow } from './reception.ts';

/** What all processes of a crowd counted together. */
export interface CrowdMeasured extends Omit<Measured, 'latency' | 'busy'> {
  latency: LatencyCounts;
  /** Share of the window that the busiest process's own thread was busy, 0..1. */
  busy: number;
}

/** One process of simulated clients. */
class Member {
  readonly process: ChildProcess;
  readonly #waiting = new Map<number, (answer: CrowdAnswer) => void>();
  #next = 0;

  constructor() {
    this.process = fork(join(import.meta.dirname, 'crowd-process.ts'), { serialization: 'advanced' });
    this.process.on('message', ({ id, answer }: { id: number; answer: CrowdAnswer }) => {
      this.#waiting.get(id)?.(answer);
      this.#waiting.delete(id);
    });
    this.process.once('exit', (code) => {
      const message = `a process of simulated clients ended (${code ?? 'by a signal'})`;
      for (const done of this.#waiting.values()) done({ case: 'failed', message });
      this.#waiting.clear();
    });
  }

  /** @throws Error with the process's own words */
  async ask<C extends CrowdAnswer['case']>(
    command: CrowdCommand,
    wanted: C,
  ): Promise<Extract<CrowdAnswer, { case: C }>> {
    const answer = await new Promise<CrowdAnswer>((resolve) => {
      this.#next += 1;
      this.#waiting.set(this.#next, resolve);
      this.process.send({ id: this.#next, command });
    });
    if (answer.case === 'failed') throw new Error(answer.message);
    if (answer.case !== wanted) throw new Error(`a process of simulated clients answered ${answer.case}`);
    return answer as Extract<CrowdAnswer, { case: C }>;
  }

  async close(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const exited = once(this.process, 'exit');
    this.process.disconnect();
    await exited;
  }
}

/** Simulated clients, in a few processes of their own. */
export class Crowd {
  readonly #members: readonly Member[];

  /** @param processes among which clients are divided */
  constructor(processes: number) {
    this.#members = Array.from({ length: processes }, () => new Member());
  }

  /**
   * Joins clients; resolves when all joins are answered.
   *
   * @param atOnce joins that are under way at a time, in all
   */
  async join(clients: readonly ClientSpec[], atOnce: number): Promise<void> {
    const count = this.#members.length;
    await this.#all((member, index) => {
      const own = clients.filter((_, client) => client % count === index);
      return member.ask({ case: 'join', clients: own, atOnce: Math.ceil(atOnce / count) }, 'joined');
    });
  }

  /** How far the clients are. */
  async arrivals(): Promise<Arrivals> {
    const answers = await this.#all((member) => member.ask({ case: 'arrivals' }, 'arrivals'));
    return {
      open: answers.reduce((sum, { arrivals }) => sum + arrivals.open, 0),
      received: answers.flatMap(({ arrivals }) => arrivals.received),
    };
  }

  /** Begins to count the packets that are sent within a window. */
  async measure(window: TimeWindow): Promise<void> {
    await this.#all((member) => member.ask({ case: 'measure', window }, 'measuring'));
  }

  /** What was counted since {@link measure}. */
  async measured(): Promise<CrowdMeasured> {
    const answers = await this.#all((member) => member.ask({ case: 'measured' }, 'measured'));
    const all = answers.map(({ measured }) => measured);
    const latency = new LatencyCounts();
    for (const one of all) latency.add(new LatencyCounts(one.latency));
    const layers = Math.max(...all.map(({ sent }) => sent.packets.length));
    const sum = (of: (one: Measured) => number) => all.reduce((total, one) => total + of(one), 0);
    const byLayer = (of: (one: Measured) => number[]) =>
      Array.from({ length: layers }, (_, layer) => sum((one) => of(one)[layer] ?? 0));
    return {
      sent: { packets: byLayer(({ sent }) => sent.packets), octets: byLayer(({ sent }) => sent.octets) },
      clients: all.flatMap(({ clients }) => clients),
      latency,
      gaps: sum(({ gaps }) => gaps),
      busy: Math.max(...all.map(({ busy }) => busy)),
    };
  }

  /** Processor time that the clients have used so far, seconds. */
  get cpuSeconds(): number {
    return this.#members.reduce((sum, { process }) => sum + cpuSeconds(process.pid ?? 0), 0);
  }

  /** Ends all clients and their processes. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#members.map((member) => member.close()));
  }

  #all<T>(work: (member: Member, index: number) => Promise<T>): Promise<T[]> {
    return Promise.all(this.#members.map(work));
  }
}
