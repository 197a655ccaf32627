import { DisconnectReason } from '@livekit/protocol';
import type { Assignment, AssignmentStatus, RoomRef } from '#proto/weir/control/v1/control.ts';
import type { Clock } from '#platform/clock.ts';
import { WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import type { Cascade } from '../cascade/cascade.ts';
import type { Feeds } from '../cascade/feed/feeds.ts';
import type { LinkListen } from '../cascade/link.ts';
import type { NodeMetrics } from '../metrics.ts';
import type { SignalChannel } from '../signal/channel.ts';
import type { JoinIntent } from '../signal/claims.ts';
import type { Bearer } from '../signal/token-refresh.ts';
import { MediaRoom, type RoomContext } from './room.ts';
import type { RoomChange, Rooms, RoomsLoad } from './rooms.ts';
import { OutgoingRate } from './outgoing-rate.ts';
import type { IceServers } from './welcome.ts';
import { WorkerPool, type MediaAddress, type MediaWorker } from './worker-pool.ts';

export interface RoomHostOptions {
  /** Name of this node. */
  node: string;
  region: string;
  version: string;
  /** Media workers to keep alive; one a core is right. */
  workerCount: number;
  /** Where media sockets listen, each on every port. */
  addresses: readonly MediaAddress[];
  /** First media port, one a worker, UDP and TCP; 0 lets the system choose. */
  portBase: number;
  /** Streams that one worker is to carry. */
  streamsPerWorker: number;
  /** Where cascade links listen. */
  linkListen: LinkListen;
  cascade: Cascade;
  feeds: Feeds;
  clock: Clock;
  /** A new id with a prefix. */
  newId: (prefix: string) => string;
  /** STUN and TURN servers that a client is told. */
  iceServers: IceServers;
  /** A token with which a client can come back; undefined when there is none for it. */
  freshToken: (bearer: Bearer) => Promise<string | undefined>;
  /** How long a client has for its media to come up, milliseconds. Default 60,000. */
  mediaDeadlineMs?: number;
  log: Logger;
  metrics: NodeMetrics;
}

/** Epochs of rooms that were released are remembered, so that a late assignment of theirs is refused; the newest this many. */
const rememberedEpochs = 10_000;

/** The rooms that this node serves: assignments, declared by the operator and fenced by epoch, made real on workers. */
export class RoomHost implements Rooms {
  readonly #options: RoomHostOptions;
  readonly #workers: WorkerPool;
  readonly #context: RoomContext;
  readonly #outgoing: OutgoingRate;
  readonly #rooms = new Map<string, MediaRoom>();
  readonly #uidByName = new Map<string, string>();
  /** Newest epoch seen of each room, served or not. */
  readonly #epochs = new Map<string, number>();
  readonly #listeners = new Set<(change: RoomChange) => void>();
  /** Work on one room runs one after the other. */
  readonly #queues = new Map<string, Promise<unknown>>();
  #draining = false;
  #closed = false;

  private constructor(options: RoomHostOptions, workers: WorkerPool) {
    this.#options = options;
    this.#workers = workers;
    this.#context = {
      node: options.node,
      region: options.region,
      version: options.version,
      workers,
      streamsPerWorker: options.streamsPerWorker,
      linkListen: options.linkListen,
      cascade: options.cascade,
      feeds: options.feeds,
      clock: options.clock,
      newId: options.newId,
      iceServers: options.iceServers,
      freshToken: options.freshToken,
      mediaDeadlineMs: options.mediaDeadlineMs,
      log: options.log,
      metrics: options.metrics,
      onCounts: (room) => {
        if (this.#rooms.get(uidOf(room)) === room) this.#emit({ kind: 'assigned', status: room.status });
      },
    };
    this.#outgoing = new OutgoingRate(options.clock, () =>
      [...this.#rooms.values()].flatMap(({ participants }) =>
        participants.flatMap(({ subscriber }) => (subscriber ? [subscriber.transport] : [])),
      ),
    );
    workers.onDeath((worker) => this.#workerDied(worker));
    options.metrics.trackRooms(() => this.load());
  }

  /** @throws WeirError PortInUse, WorkerNotStarted */
  static async create(options: RoomHostOptions): Promise<RoomHost> {
    const workers = await WorkerPool.create({
      count: options.workerCount,
      addresses: options.addresses,
      portBase: options.portBase,
      clock: options.clock,
      log: options.log,
      metrics: options.metrics,
    });
    return new RoomHost(options, workers);
  }

  /** Process ids of the media workers. */
  get workerPids(): number[] {
    return this.#workers.pids;
  }

  get draining(): boolean {
    return this.#draining;
  }

  setDraining(draining: boolean): void {
    this.#draining = draining;
  }

  async apply(assignment: Assignment): Promise<AssignmentStatus> {
    const room = assignment.room;
    if (!room?.uid || !room.roomName) {
      throw new WeirError('InvalidAssignment', 'An assignment names its room by uid and roomName; both must be set.');
    }
    return this.#serially(room.uid, () => this.#apply(assignment, room));
  }

  release(room: RoomRef, epoch: number, reason: string): void {
    this.#serially(room.uid, async () => {
      const served = this.#rooms.get(room.uid);
      this.#remember(room.uid, epoch);
      if (!served || served.assignment.epoch > epoch) return;
      const deleted = reason === 'RoomDeleted';
      if (!deleted) await this.#pause(served.settlesInMs);
      // Its worker may have died meanwhile.
      if (this.#rooms.get(room.uid) !== served) return;
      served.close(deleted ? DisconnectReason.ROOM_DELETED : DisconnectReason.MIGRATION, !deleted);
      this.#forget(served, room);
      served.log.info({ epoch, reason }, 'Room released');
    }).catch((error: unknown) => this.#options.log.error({ err: error, room: room.uid }, 'Room could not be released'));
  }

  describe(): AssignmentStatus[] {
    return [...this.#rooms.values()].map(({ status }) => status);
  }

  find(roomName: string): { room: RoomRef; epoch: number } | undefined {
    const served = this.#byName(roomName);
    const ref = served?.assignment.room;
    return served && ref ? { room: ref, epoch: served.assignment.epoch } : undefined;
  }

  nodeOf(roomName: string, participantSid: string): string | undefined {
    return this.#byName(roomName)?.nodeOf(participantSid);
  }

  async join(roomName: string, intent: JoinIntent, channel: SignalChannel): Promise<void> {
    // A room that is being made, or made again after its worker died, is there in a moment.
    const uid = this.#uidByName.get(roomName);
    await (uid === undefined ? undefined : this.#queues.get(uid));
    const room = this.#byName(roomName);
    if (!room) {
      throw new WeirError('RoomNotServed', `Room ${roomName} is not served by node ${this.#options.node}.`);
    }
    await room.join(intent, channel);
  }

  load(): RoomsLoad {
    const statuses = this.describe();
    const sum = (pick: (status: AssignmentStatus) => number) =>
      statuses.reduce((total, status) => total + pick(status), 0);
    return {
      workers: this.#workers.size,
      rooms: statuses.length,
      participants: sum(({ participants }) => participants),
      streams: sum(({ streams }) => streams),
      mbps: this.#outgoing.mbps,
      cpu: this.#workers.cpu,
    };
  }

  watch(listener: (change: RoomChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#draining = true;
    this.#outgoing.close();
    await Promise.allSettled(this.#queues.values());
    for (const room of this.#rooms.values()) room.close(DisconnectReason.SERVER_SHUTDOWN, true);
    this.#rooms.clear();
    this.#uidByName.clear();
    this.#workers.close();
  }

  async #apply(assignment: Assignment, ref: RoomRef): Promise<AssignmentStatus> {
    const { uid, roomName } = ref;
    const seen = this.#epochs.get(uid) ?? 0;
    if (assignment.epoch < seen) {
      this.#options.metrics.staleAssignments.inc();
      throw new WeirError(
        'StaleEpoch',
        `Room ${roomName} was seen at epoch ${seen}; an assignment at epoch ${assignment.epoch} is refused. Read the Room again.`,
      );
    }
    let room = this.#rooms.get(uid);
    if (!room) {
      if (this.#closed || this.#draining) {
        throw new WeirError(
          'NodeDraining',
          `Node ${this.#options.node} is draining and takes no new room; place it on another.`,
        );
      }
      const other = this.#byName(roomName);
      if (other && other.assignment.room?.uid !== uid) this.#replace(other);
      this.#uidByName.set(roomName, uid);
      room = await this.#create(assignment);
    } else {
      const { epoch, generation } = room.assignment;
      if (epoch !== assignment.epoch || generation !== assignment.generation) room.update(assignment);
    }
    this.#remember(uid, assignment.epoch);
    this.#emit({ kind: 'assigned', status: room.status });
    return room.status;
  }

  async #create(assignment: Assignment): Promise<MediaRoom> {
    const created = await MediaRoom.create(this.#context, assignment);
    this.#rooms.set(uidOf(created), created);
    created.log.info({ epoch: assignment.epoch, worker: created.workers[0]?.index }, 'Room assigned');
    return created;
  }

  /** A Room that was deleted and made again under its name: the newer one is what the API holds. */
  #replace(older: MediaRoom): void {
    older.close(DisconnectReason.ROOM_DELETED, false);
    if (older.assignment.room) this.#forget(older, older.assignment.room);
  }

  #workerDied(worker: MediaWorker): void {
    for (const room of [...this.#rooms.values()].filter(({ workers }) => workers.includes(worker))) {
      const { assignment } = room;
      const uid = uidOf(room);
      room.close(DisconnectReason.SERVER_SHUTDOWN, true);
      this.#serially(uid, async () => {
        if (this.#rooms.get(uid) !== room || this.#closed) return;
        const created = await this.#create(assignment);
        created.log.warn({ worker: worker.index }, 'Room was made again after its media worker died');
      }).catch((error: unknown) => {
        // Nobody serves it any more: the operator sees that, and declares it again.
        if (this.#rooms.get(uid) === room && assignment.room) this.#forget(room, assignment.room);
        room.log.error({ err: error }, 'Room could not be made again after its media worker died');
      });
    }
  }

  #forget(room: MediaRoom, ref: RoomRef): void {
    this.#rooms.delete(uidOf(room));
    if (this.#uidByName.get(ref.roomName) === ref.uid) this.#uidByName.delete(ref.roomName);
    this.#emit({ kind: 'released', room: ref });
  }

  #byName(roomName: string): MediaRoom | undefined {
    const uid = this.#uidByName.get(roomName);
    return uid === undefined ? undefined : this.#rooms.get(uid);
  }

  #remember(uid: string, epoch: number): void {
    const seen = this.#epochs.get(uid) ?? 0;
    // Taken out and put in again, so that the oldest entry is the one not seen for longest.
    this.#epochs.delete(uid);
    this.#epochs.set(uid, Math.max(seen, epoch));
    for (const old of this.#epochs.keys()) {
      if (this.#epochs.size <= rememberedEpochs) break;
      if (!this.#rooms.has(old)) this.#epochs.delete(old);
      else break;
    }
  }

  #serially<T>(uid: string, work: () => Promise<T>): Promise<T> {
    const result = (this.#queues.get(uid) ?? Promise.resolve()).then(work, work);
    const settled = result.then(
      () => undefined,
      () => undefined,
    );
    this.#queues.set(uid, settled);
    void settled.then(() => {
      if (this.#queues.get(uid) === settled) this.#queues.delete(uid);
    });
    return result;
  }

  #pause(ms: number): Promise<void> | undefined {
    return ms > 0 ? new Promise((resolve) => void this.#options.clock.after(ms, resolve)) : undefined;
  }

  #emit(change: RoomChange): void {
    for (const listener of this.#listeners) listener(change);
  }
}

function uidOf(room: MediaRoom): string {
  return room.assignment.room?.uid ?? '';
}
