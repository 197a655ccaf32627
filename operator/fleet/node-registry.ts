import type { AssignmentStatus, NodeEvent, RoomRef } from '#proto/weir/control/v1/control.ts';
import type { Heartbeat } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import type { Logger } from '#platform/log.ts';

/** A node without a heartbeat for this long is lost. */
export const lostAfterMs = 1000;
/** At a node that is silent for so long it is looked whether it is there. */
const lookAfterMs = 500;
/**
 * So long a node that is there is borne without heartbeats: time to get to another server of NATS when its own is gone, or to
 * get on when its machine has too much to do. Its media goes on.
 */
const bearMs = 6000;
/** Until so long after the first listening, a node that was not heard of is not lost but unknown. */
const settleMs = 2000;
/** How long verdicts are held when all nodes fall silent at once: longer than NATS clients need to notice. */
const silenceMs = 12_000;
const checkIntervalMs = 100;
/** A check that comes so late says that this process stood still, not that nodes fell silent. */
const stallMs = 300;

/** What is known of one node. */
export interface NodeRecord {
  /** Its newest heartbeat. */
  readonly heartbeat: Heartbeat;
  /** Heartbeats arrive. */
  readonly alive: boolean;
  /** When the newest heartbeat arrived, milliseconds since the epoch. */
  readonly lastSeen: number;
  /** What it serves, by room uid, as it said over gRPC; undefined until it did. Only the leader asks. */
  readonly served: ReadonlyMap<string, AssignmentStatus> | undefined;
}

/**
 * registered: heard of for the first time, or a new process under its name (`instance`); back: heard of again; lost:
 * no heartbeat for {@link lostAfterMs}, or one that says that it leaves; report: a heartbeat like the last one, with new
 * figures; forgotten: taken out.
 */
export type NodeChange = 'registered' | 'instance' | 'back' | 'lost' | 'report' | 'forgotten';

type MutableRecord = { -readonly [K in keyof NodeRecord]: NodeRecord[K] } & {
  served: Map<string, AssignmentStatus> | undefined;
  /** When it was last found there, milliseconds since the epoch. */
  foundAt?: number;
  /** It is being looked for. */
  isSought?: boolean;
};

/** A node whose heartbeats do not come, and that is there all the same. */
function isBorne({ lastSeen, foundAt }: MutableRecord, now: number): boolean {
  return foundAt !== undefined && now - foundAt <= lostAfterMs && now - lastSeen <= bearMs;
}

/**
 * The nodes as their heartbeats tell. Kept on every replica, so that a new leader knows the fleet at once. While this
 * process itself cannot hear (NATS away) no verdict is passed.
 */
export class NodeRegistry {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #nodes = new Map<string, MutableRecord>();
  readonly #isThere: (heartbeat: Heartbeat) => Promise<boolean>;
  readonly #listeners = new Set<(name: string, change: NodeChange) => void>();
  readonly #servedListeners = new Set<(room: RoomRef) => void>();
  /** Names of the nodes that serve a room, by namespace/name. */
  readonly #servers = new Map<string, Set<string>>();
  #listeningSince: number | undefined;
  /** Since when no node is heard at all. */
  #silenceSince: number | undefined;
  #checkedAt = 0;
  #cancel: () => void = () => undefined;

  /**
   * @param options.isThere whether the sender of a heartbeat is still there, by another way than heartbeats take; never rejects
   */
  constructor(options: { isThere?: (heartbeat: Heartbeat) => Promise<boolean>; clock: Clock; log: Logger }) {
    this.#isThere = options.isThere ?? (() => Promise.resolve(false));
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Heartbeats can be heard from now on. Silence before does not count. */
  resume(): void {
    this.#listeningSince = this.#clock.now();
    for (const record of this.#nodes.values()) record.lastSeen = this.#clock.now();
    this.#checkedAt = this.#clock.now();
    this.#cancel();
    const check = () => {
      this.#check();
      this.#cancel = this.#clock.after(checkIntervalMs, check);
    };
    check();
  }

  /** Heartbeats cannot be heard: nobody is lost until {@link resume}. */
  pause(): void {
    this.#listeningSince = undefined;
    this.#cancel();
  }

  onChange(listener: (name: string, change: NodeChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Calls `listener` when what a node serves of a room changed. */
  onServed(listener: (room: RoomRef) => void): () => void {
    this.#servedListeners.add(listener);
    return () => this.#servedListeners.delete(listener);
  }

  get(name: string): NodeRecord | undefined {
    return this.#nodes.get(name);
  }

  /** All nodes that were heard of. */
  list(): NodeRecord[] {
    return [...this.#nodes.values()];
  }

  /** Whether a verdict on the node may be passed: it is lost, or it never was heard of though there was time. */
  isGone(name: string): boolean {
    if (this.#listeningSince === undefined) return false;
    const record = this.#nodes.get(name);
    if (record) return !record.alive;
    return this.#clock.now() - this.#listeningSince > settleMs;
  }

  /** Milliseconds until {@link isGone} can be answered for nodes that were not heard of; 0 when it can. */
  get settlesInMs(): number {
    if (this.#listeningSince === undefined) return settleMs;
    return Math.max(0, this.#listeningSince + settleMs - this.#clock.now() + 1);
  }

  /** Nodes that serve the room object under this key (namespace/name), with their status of it. */
  serversOf(key: string): { node: string; status: AssignmentStatus }[] {
    const found: { node: string; status: AssignmentStatus }[] = [];
    for (const node of this.#servers.get(key) ?? []) {
      for (const status of this.#nodes.get(node)?.served?.values() ?? []) {
        if (status.room && keyOfRef(status.room) === key) found.push({ node, status });
      }
    }
    return found;
  }

  heartbeat(heartbeat: Heartbeat): void {
    const name = heartbeat.node;
    const now = this.#clock.now();
    const record = this.#nodes.get(name);
    if (!record) {
      if (heartbeat.leaving) return;
      this.#nodes.set(name, { heartbeat, alive: true, lastSeen: now, served: undefined });
      this.#log.info({ node: name, region: heartbeat.region, version: heartbeat.version }, 'Node registered');
      return this.#emit(name, 'registered');
    }
    const restarted = record.heartbeat.instance !== heartbeat.instance;
    // A late message of a process that was replaced, or one overtaken on the way.
    if (!restarted && heartbeat.sequence < record.heartbeat.sequence) return;
    const back = !record.alive;
    record.heartbeat = heartbeat;
    record.lastSeen = now;
    record.alive = !heartbeat.leaving;
    if (heartbeat.leaving) {
      this.#log.info({ node: name }, 'Node left');
      return this.#emit(name, 'lost');
    }
    if (restarted) {
      this.#log.info({ node: name, instance: heartbeat.instance }, 'Node runs as a new process');
      this.#dropServed(name, record);
      this.#emit(name, 'instance');
    } else if (back) {
      this.#log.info({ node: name }, 'Node is heard of again');
      this.#emit(name, 'back');
    } else this.#emit(name, 'report');
  }

  /** Takes what a node said over gRPC of what it serves; of another process than the one that beats, nothing. */
  served(name: string, event: NodeEvent): void {
    const record = this.#nodes.get(name);
    if (!record || event.instance !== record.heartbeat.instance || !event.event) return;
    switch (event.event.$case) {
      case 'snapshot': {
        const before = [...(record.served?.values() ?? [])];
        this.#dropServed(name, record);
        record.served = new Map();
        for (const status of event.event.value.assignments) this.#setServed(name, record, status);
        for (const { room } of before) if (room && !record.served.has(room.uid)) this.#emitServed(room);
        return;
      }
      case 'assigned':
        return this.#setServed(name, record, event.event.value);
      case 'released': {
        const room = event.event.value;
        record.served?.delete(room.uid);
        this.#unindex(name, record, room);
        return this.#emitServed(room);
      }
    }
  }

  /** Takes a node out, for good: its SfuNode was removed. */
  forget(name: string): void {
    const record = this.#nodes.get(name);
    if (!record) return;
    this.#dropServed(name, record);
    this.#nodes.delete(name);
    this.#emit(name, 'forgotten');
  }

  /** What nodes serve is only followed by the leader. */
  forgetServed(): void {
    for (const [name, record] of this.#nodes) this.#dropServed(name, record);
  }

  close(): void {
    this.pause();
    this.#listeners.clear();
    this.#servedListeners.clear();
  }

  #check(): void {
    const now = this.#clock.now();
    this.#forgiveStall(now - this.#checkedAt - checkIntervalMs);
    this.#checkedAt = now;
    const alive = [...this.#nodes.entries()].filter(([, record]) => record.alive);
    for (const [, record] of alive) if (now - record.lastSeen > lookAfterMs) this.#look(record);
    const silent = alive.filter(([, record]) => now - record.lastSeen > lostAfterMs && !isBorne(record, now));
    if (this.#suspectsItself(alive.length, silent.length, now)) return;
    for (const [name, record] of silent) {
      record.alive = false;
      this.#log.warn({ node: name, silentMs: now - record.lastSeen }, 'Node lost: no heartbeat');
      this.#emit(name, 'lost');
    }
  }

  #look(record: MutableRecord): void {
    if (record.isSought) return;
    record.isSought = true;
    void this.#isThere(record.heartbeat).then((isThere) => {
      record.isSought = false;
      if (isThere) record.foundAt = this.#clock.now();
    });
  }

  /**
   * All nodes at once do not die: it is this process that hears nothing, NATS hangs, say. Nobody is lost for that until
   * one is heard, or so much time has passed that the client would have noticed a dead connection itself.
   */
  #suspectsItself(alive: number, silent: number, now: number): boolean {
    if (silent < 2 || silent < alive) {
      this.#silenceSince = undefined;
      return false;
    }
    if (this.#silenceSince === undefined) {
      this.#silenceSince = now;
      this.#log.warn({ nodes: silent }, 'All nodes fell silent at once: suspecting NATS, and holding verdicts');
    }
    return now - this.#silenceSince < silenceMs;
  }

  /** Heartbeats that came while this process stood still wait unread in its socket: the time does not count. */
  #forgiveStall(lateMs: number): void {
    if (lateMs <= stallMs || this.#listeningSince === undefined) return;
    this.#log.warn({ stalledMs: lateMs }, 'This process stood still; nobody is lost for that');
    this.#listeningSince += lateMs;
    for (const record of this.#nodes.values()) record.lastSeen += lateMs;
  }

  #setServed(name: string, record: MutableRecord, status: AssignmentStatus): void {
    const { room } = status;
    if (!room) return;
    record.served ??= new Map();
    record.served.set(room.uid, status);
    const key = keyOfRef(room);
    const servers = this.#servers.get(key) ?? new Set();
    this.#servers.set(key, servers.add(name));
    this.#emitServed(room);
  }

  #dropServed(name: string, record: MutableRecord): void {
    const rooms = [...(record.served?.values() ?? [])].flatMap(({ room }) => room ?? []);
    record.served = undefined;
    for (const room of rooms) this.#unindex(name, record, room);
  }

  #unindex(name: string, record: MutableRecord, room: RoomRef): void {
    const key = keyOfRef(room);
    for (const status of record.served?.values() ?? []) if (status.room && keyOfRef(status.room) === key) return;
    const servers = this.#servers.get(key);
    servers?.delete(name);
    if (servers?.size === 0) this.#servers.delete(key);
  }

  #emit(name: string, change: NodeChange): void {
    for (const listener of this.#listeners) listener(name, change);
  }

  #emitServed(room: RoomRef): void {
    for (const listener of this.#servedListeners) listener(room);
  }
}

function keyOfRef(room: RoomRef): string {
  return `${room.namespace}/${room.name}`;
}
