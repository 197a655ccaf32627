import type { Room } from '#crds/room.ts';
import { creationTime, keyOf } from '../runtime/kube.ts';
import { roomNameOf } from './translate.ts';

/** Which Rooms have a name that clients join by. Of several the oldest owns it. */
export class RoomIndex {
  readonly #byName = new Map<string, Map<string, Room>>();

  /** Takes a change of the Room under a key. */
  change(key: string, current: Room | undefined, previous: Room | undefined): void {
    if (previous) this.#remove(roomNameOf(previous), key);
    if (current) {
      const name = roomNameOf(current);
      const rooms = this.#byName.get(name) ?? new Map<string, Room>();
      this.#byName.set(name, rooms.set(key, current));
    }
  }

  /** Keys of all Rooms of a name. */
  keys(roomName: string): string[] {
    return [...(this.#byName.get(roomName)?.keys() ?? [])];
  }

  /** The Room that has the name: the oldest, then the first by uid. Rooms on their way out come last. */
  owner(roomName: string): Room | undefined {
    const rooms = [...(this.#byName.get(roomName)?.values() ?? [])];
    return rooms.reduce<Room | undefined>((best, room) => (best && comesFirst(best, room) ? best : room), undefined);
  }

  /** namespace/name of the Room that has this one's name, when that is another. */
  takenBy(room: Room): string | undefined {
    const owner = this.owner(roomNameOf(room));
    return owner && owner.metadata.uid !== room.metadata.uid ? keyOf(owner) : undefined;
  }

  #remove(name: string, key: string): void {
    const rooms = this.#byName.get(name);
    rooms?.delete(key);
    if (rooms?.size === 0) this.#byName.delete(name);
  }
}

function comesFirst(a: Room, b: Room): boolean {
  const [ra, rb] = [rank(a), rank(b)];
  for (const [index, value] of ra.entries()) {
    const other = rb[index]!;
    if (value !== other) return value < other;
  }
  return (a.metadata.uid ?? '') < (b.metadata.uid ?? '');
}

/**
 * Smaller is first: not on its way out, older, and of two made in the same second (the API's times are no finer) the one
 * that is placed, so that a newcomer never takes a call's name away.
 */
function rank(room: Room): number[] {
  const leaving = room.metadata.deletionTimestamp ? 1 : 0;
  const placed = (room.status?.placement?.length ?? 0) > 0 ? 0 : 1;
  return [leaving, creationTime(room) ?? Infinity, placed];
}
