/** Since when rooms are empty, as nodes tell; forgotten with the process, so a new leader counts anew. */
export class Occupancy {
  readonly #rooms = new Map<string, { emptySince: number | undefined; wasUsed: boolean }>();

  /** Takes the number of participants of a room now. */
  observe(uid: string, participants: number, now: number): { emptySince: number | undefined; wasUsed: boolean } {
    const before = this.#rooms.get(uid);
    const after =
      participants > 0
        ? { emptySince: undefined, wasUsed: true }
        : { emptySince: before?.emptySince ?? now, wasUsed: before?.wasUsed ?? false };
    this.#rooms.set(uid, after);
    return after;
  }

  forget(uid: string): void {
    this.#rooms.delete(uid);
  }
}
