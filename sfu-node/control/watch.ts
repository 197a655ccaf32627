import type { AssignmentStatus, NodeDescription, NodeEvent } from '#proto/weir/control/v1/control.ts';
import type { Clock } from '#platform/clock.ts';
import type { Rooms } from '#sfu-node/media/rooms.ts';

/** Counts and figures of one room are sent at most this often, milliseconds; epoch, generation and states of links at once. */
export const COUNTS_MS = 2_000;

interface Told {
  status: AssignmentStatus;
  at: number;
  /** Takes back the sending of later counts. */
  cancel: (() => void) | undefined;
}

export interface RoomWatchOptions {
  rooms: Pick<Rooms, 'watch'>;
  describe: () => NodeDescription;
  send: (event: NodeEvent) => void;
  clock: Clock;
}

/** One caller's view of this node: a snapshot, then what changes, with counts held back to one a room and two seconds. */
export class RoomWatch {
  readonly #options: RoomWatchOptions;
  readonly #instance: string;
  readonly #told = new Map<string, Told>();
  readonly #unwatch: () => void;

  static create(options: RoomWatchOptions): RoomWatch {
    return new RoomWatch(options);
  }

  private constructor(options: RoomWatchOptions) {
    this.#options = options;
    const snapshot = options.describe();
    this.#instance = snapshot.instance;
    const now = options.clock.now();
    for (const status of snapshot.assignments) {
      this.#told.set(uidOf(status), { status, at: now, cancel: undefined });
    }
    options.send({ instance: this.#instance, event: { $case: 'snapshot', value: snapshot } });
    this.#unwatch = options.rooms.watch((change) => {
      if (change.kind === 'assigned') return this.#onAssigned(change.status);
      this.#forget(change.room.uid);
      this.#send({ $case: 'released', value: change.room });
    });
  }

  close(): void {
    this.#unwatch();
    for (const uid of [...this.#told.keys()]) this.#forget(uid);
  }

  #onAssigned(status: AssignmentStatus): void {
    const { clock } = this.#options;
    const uid = uidOf(status);
    const told = this.#told.get(uid);
    const onlyCounts = told !== undefined && newsOf(told.status) === newsOf(status);
    const wait = told && onlyCounts ? told.at + COUNTS_MS - clock.now() : 0;
    if (!told || wait <= 0) {
      told?.cancel?.();
      this.#told.set(uid, { status, at: clock.now(), cancel: undefined });
      return this.#send({ $case: 'assigned', value: status });
    }
    told.cancel?.();
    told.cancel = clock.after(wait, () => this.#onAssigned(status));
  }

  #send(event: NodeEvent['event']): void {
    this.#options.send({ instance: this.#instance, event });
  }

  #forget(uid: string): void {
    this.#told.get(uid)?.cancel?.();
    this.#told.delete(uid);
  }
}

/** What of a status cannot wait. */
function newsOf({ epoch, generation, links }: AssignmentStatus): string {
  return JSON.stringify([epoch, generation, links.map(({ peer, state, errorCode }) => [peer, state, errorCode])]);
}

function uidOf(status: AssignmentStatus): string {
  return status.room?.uid ?? '';
}
