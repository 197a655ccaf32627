import type { ParticipantInfo, DisconnectReason } from '@livekit/protocol';
import type {
  FeedEntries,
  FeedEntry,
  FeedReply,
  FeedRequest,
  FeedSnapshot,
  RoomData,
} from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { WeirError } from '#platform/errors.ts';

/** How much a {@link FeedLog} keeps, and how much it says in one message. */
export interface FeedLimits {
  /** Entries kept, at most. */
  readonly entries: number;
  /** Bytes of the entries kept, at most. */
  readonly bytes: number;
  /** Age of the entries kept, at most, milliseconds. */
  readonly ageMs: number;
  /** Bytes of one NATS message, at most. */
  readonly messageBytes: number;
}

export const feedLimits: FeedLimits = {
  entries: 1000,
  bytes: 1024 * 1024,
  ageMs: 30_000,
  messageBytes: 512 * 1024,
};

/** Room in a message for what stands around its entries or participants: names and numbers. */
const HEADER_BYTES = 1024;
/** Field tags and lengths around the bytes of one entry, no more than. */
const ENTRY_BYTES = 32;
/** Snapshots of several messages that are kept until their rest was asked for. */
const SNAPSHOTS = 8;
const SNAPSHOT_AGE_MS = 10_000;

/** Size of an entry on the wire, bytes; never less than it is. */
export function entryBytes({ entry }: FeedEntry): number {
  if (entry?.$case === 'participant') return entry.value.length + ENTRY_BYTES;
  if (entry?.$case === 'left') return Buffer.byteLength(entry.value.sid) + ENTRY_BYTES;
  if (entry?.$case === 'data') return Buffer.byteLength(entry.value.sid) + entry.value.packet.length + ENTRY_BYTES;
  return ENTRY_BYTES;
}

/** Participants after some entry, and how many data packets there were up to it. */
interface FeedState {
  /** Encoded ParticipantInfo by participant sid. */
  readonly participants: Map<string, Buffer>;
  packets: number;
}

interface KeptEntry {
  readonly entry: FeedEntry;
  /** Participant sid that the entry is about. */
  readonly sid: string;
  readonly bytes: number;
  /** When it was appended, milliseconds since the epoch. */
  readonly at: number;
}

interface KeptSnapshot extends Omit<FeedSnapshot, 'node' | 'incarnation' | 'offset' | 'oldest'> {
  /** When it was asked for last, milliseconds since the epoch. */
  at: number;
}

export interface FeedLogOptions {
  /** Name of this node. */
  readonly node: string;
  /** Start of the room on this node, milliseconds since the epoch. */
  readonly incarnation: number;
  readonly clock: Clock;
  /** Default {@link feedLimits}. */
  readonly limits?: FeedLimits;
}

/**
 * What one node says of its own participants in a room. Entries are numbered from 1; the newest are kept, and the state
 * that the others led to (`base`), so that the state just before any entry that is kept can be told:
 *
 *     base | oldest ... newest | next
 *          '--- kept ---------'
 */
export class FeedLog {
  readonly #node: string;
  readonly #incarnation: number;
  readonly #clock: Clock;
  readonly #limits: FeedLimits;
  readonly #base: FeedState = { participants: new Map(), packets: 0 };
  readonly #state: FeedState = { participants: new Map(), packets: 0 };
  readonly #kept: KeptEntry[] = [];
  /** Snapshots of several messages, by their `next`. */
  readonly #snapshots = new Map<number, KeptSnapshot>();
  #keptBytes = 0;
  /** Sequence of the first entry kept. */
  #oldest = 1;

  constructor({ node, incarnation, clock, limits = feedLimits }: FeedLogOptions) {
    this.#node = node;
    this.#incarnation = incarnation;
    this.#clock = clock;
    this.#limits = limits;
  }

  /** Sequence of the next entry. */
  get next(): number {
    return this.#oldest + this.#kept.length;
  }

  /** Encoded ParticipantInfo by participant sid, as of now. */
  get participants(): ReadonlyMap<string, Uint8Array> {
    return this.#state.participants;
  }

  /**
   * A participant joined or changed.
   * @returns what to publish; undefined when nothing changed
   * @throws WeirError FeedEntryTooLarge
   */
  participant(info: ParticipantInfo): FeedEntries | undefined {
    const value = Buffer.from(info.toBinary());
    if (this.#state.participants.get(info.sid)?.equals(value)) return undefined;
    return this.#append(info.sid, { entry: { $case: 'participant', value } });
  }

  /**
   * A participant is gone.
   * @returns what to publish; undefined when it was not there
   */
  left(sid: string, reason: DisconnectReason): FeedEntries | undefined {
    if (!this.#state.participants.has(sid)) return undefined;
    return this.#append(sid, { entry: { $case: 'left', value: { sid, reason } } });
  }

  /**
   * A participant sent a reliable data packet.
   * @returns what to publish
   * @throws WeirError FeedEntryTooLarge
   */
  reliable(value: RoomData): FeedEntries {
    return this.#append(value.sid, { entry: { $case: 'data', value } });
  }

  /** How far the feed is: who heard less knows that something was lost. */
  digest(): FeedEntries {
    return this.#run(this.next, []);
  }

  /** What another node asked for, or as much of it as fits one message. */
  answer(request: FeedRequest): FeedReply {
    this.#trim();
    const { from, state, snapshot, have } = request;
    if (request.incarnation !== this.#incarnation) return this.#snapshotAt(this.next);
    const begun = this.#snapshots.get(snapshot);
    if (begun) return this.#page(begun, have);
    if (from === 0 || from > this.next) return this.#snapshotAt(this.next);
    if (state || from < this.#oldest) return this.#snapshotAt(Math.max(from, this.#oldest));
    return this.#entriesFrom(from);
  }

  #append(sid: string, entry: FeedEntry): FeedEntries {
    const bytes = entryBytes(entry);
    const room = this.#limits.messageBytes - HEADER_BYTES;
    if (bytes > room) {
      const words = `an entry of a room's feed has ${bytes} bytes and may have ${room}: make metadata or message smaller`;
      throw new WeirError('FeedEntryTooLarge', words, { where: sid });
    }
    const sequence = this.next;
    this.#kept.push({ entry, sid, bytes, at: this.#clock.now() });
    this.#keptBytes += bytes;
    apply(this.#state, sid, entry);
    this.#trim();
    return this.#run(sequence, [entry]);
  }

  /** Moves what is too old or too much from the entries kept into the base. */
  #trim(): void {
    const { entries, bytes, ageMs } = this.#limits;
    const now = this.#clock.now();
    const isOver = (first: KeptEntry) =>
      this.#kept.length > entries || this.#keptBytes > bytes || now - first.at > ageMs;
    let over = 0;
    for (let first = this.#kept[0]; first && isOver(first); first = this.#kept[0]) {
      apply(this.#base, first.sid, first.entry);
      this.#keptBytes -= first.bytes;
      this.#kept.shift();
      over++;
    }
    this.#oldest += over;
    for (const [next, { at }] of this.#snapshots) if (now - at > SNAPSHOT_AGE_MS) this.#snapshots.delete(next);
  }

  #run(first: number, entries: FeedEntry[]): FeedEntries {
    return { node: this.#node, incarnation: this.#incarnation, first, entries };
  }

  #entriesFrom(from: number): FeedReply {
    const entries = this.#fill(this.#kept.slice(from - this.#oldest), ({ bytes }) => bytes).map(({ entry }) => entry);
    return { result: { $case: 'entries', value: this.#run(from, entries) } };
  }

  /** The state just before entry `next`. */
  #snapshotAt(next: number): FeedReply {
    const state: FeedState = { participants: new Map(this.#base.participants), packets: this.#base.packets };
    for (const { sid, entry } of this.#kept.slice(0, next - this.#oldest)) apply(state, sid, entry);
    const participants = [...state.participants.values()];
    const { packets } = state;
    return this.#page({ next, participants, total: participants.length, packets, at: 0 }, 0);
  }

  /** The participants of a snapshot from place `offset` on; it is kept while some are left. */
  #page(snapshot: KeptSnapshot, offset: number): FeedReply {
    const { next, total, packets } = snapshot;
    const participants = this.#fill(snapshot.participants.slice(offset), ({ length }) => length + ENTRY_BYTES);
    if (offset + participants.length < total) this.#keep(snapshot);
    const place = { node: this.#node, incarnation: this.#incarnation, next, offset, total, oldest: this.#oldest };
    return { result: { $case: 'snapshot', value: { ...place, participants, packets } } };
  }

  #keep(snapshot: KeptSnapshot): void {
    snapshot.at = this.#clock.now();
    this.#snapshots.delete(snapshot.next);
    this.#snapshots.set(snapshot.next, snapshot);
    const [leastRecent] = this.#snapshots.keys();
    if (this.#snapshots.size > SNAPSHOTS && leastRecent !== undefined) this.#snapshots.delete(leastRecent);
  }

  /** As many of the first items as fit one message. */
  #fill<T>(items: T[], bytesOf: (item: T) => number): T[] {
    let room = this.#limits.messageBytes - HEADER_BYTES;
    const tooMuch = items.findIndex((item) => (room -= bytesOf(item)) < 0);
    return tooMuch < 0 ? items : items.slice(0, tooMuch);
  }
}

function apply(state: FeedState, sid: string, { entry }: FeedEntry): void {
  if (entry?.$case === 'participant') state.participants.set(sid, entry.value);
  if (entry?.$case === 'left') state.participants.delete(sid);
  if (entry?.$case === 'data') state.packets++;
}
