import { WeirError } from '#platform/errors.ts';
import type { Rooms } from '#sfu-node/media/rooms.ts';

/** Whether a node carries as many streams as it can: whoever joins would add to them. */
export function isFull(rooms: Pick<Rooms, 'load'>, capacity: { streams: number } | undefined): boolean {
  return capacity !== undefined && rooms.load().streams >= capacity.streams;
}

/** @throws WeirError NodeFull; the room then gets another node for the client */
export function admit(rooms: Pick<Rooms, 'load'>, capacity: { streams: number } | undefined): void {
  if (!isFull(rooms, capacity)) return;
  throw new WeirError(
    'NodeFull',
    `this node carries the ${capacity?.streams} streams that it can; join through another`,
  );
}
