import { DisconnectReason, ParticipantInfo } from '@livekit/protocol';
import type { FeedEntries, FeedEntry, FeedRequest, FeedSnapshot, RoomData } from '#proto/weir/fleet/v1/fleet.ts';
import { entryBytes, feedLimits, type FeedLimits } from './feed-log.ts';

/** What a message of a peer changed, in order. */
export type FeedChange =
  /** A participant joined or changed. */
  | { readonly kind: 'participant'; readonly info: ParticipantInfo }
  | { readonly kind: 'left'; readonly sid: string; readonly reason: DisconnectReason }
  | { readonly kind: 'data'; readonly data: RoomData }
  /** Entries are missing that were not before. */
  | { readonly kind: 'gap' }
  /** So many reliable data packets are lost: the peer keeps them no more. */
  | { readonly kind: 'lost'; readonly packets: number }
  /** An entry or a participant of a snapshot could not be read and was passed over. */
  | { readonly kind: 'malformed' };

/** What to ask the peer for. */
export type FollowRequest = Omit<FeedRequest, 'roomUid'>;

/** A snapshot of which not all messages are here. */
interface Pages {
  readonly next: number;
  readonly total: number;
  readonly participants: Uint8Array[];
}

/**
 * A room's feed of one peer, as this node follows it. Entries are applied strictly in order, each once.
 *
 *     beginning --snapshot--> following --later incarnation--> beginning
 *
 * While it begins, what was known before stays, and the state just before the first entry heard is asked for: from there
 * on nothing is missed. While it follows, entries after a gap are held until the gap is filled, or until a snapshot says
 * that the entries missing are kept no more. Clocks of nodes are not compared: an incarnation is a number that the peer
 * alone makes greater.
 */
export class FeedFollower {
  readonly #limits: FeedLimits;
  readonly #participants = new Map<string, ParticipantInfo>();
  /** Entries whose turn has not come, by sequence. */
  readonly #held = new Map<number, FeedEntry>();
  #heldBytes = 0;
  /** Latest incarnation heard of; 0: nothing was heard. */
  #incarnation = 0;
  #following = false;
  /** While following: the next entry to apply. */
  #next = 0;
  /** While beginning: the first entry heard; 0: none. */
  #firstHeard = 0;
  /** Next entry that the peer will append, as far as it was heard. */
  #end = 0;
  /** Reliable data packets up to `next`, delivered or lost. */
  #packets = 0;
  #nowSequence = 0;
  #pages: Pages | undefined;

  constructor(limits: FeedLimits = feedLimits) {
    this.#limits = limits;
  }

  /** Participants of the peer by sid, as far as the feed was followed. */
  get participants(): ReadonlyMap<string, ParticipantInfo> {
    return this.#participants;
  }

  /** What is missing; undefined when nothing is known to be. */
  missing(): FollowRequest | undefined {
    if (this.#following && !this.#isGap() && !this.#pages) return undefined;
    return this.probe();
  }

  /** What to ask for, also when nothing is known to be missing: who was cut off does not know. */
  probe(): FollowRequest {
    return {
      incarnation: this.#incarnation,
      from: this.#following ? this.#next : this.#firstHeard,
      state: !this.#following,
      snapshot: this.#pages?.next ?? 0,
      have: this.#pages?.participants.length ?? 0,
    };
  }

  /** Takes a run of entries, or a digest, published or asked for. */
  entries({ incarnation, first, entries }: FeedEntries): FeedChange[] {
    if (incarnation === 0 || first === 0) return [{ kind: 'malformed' }];
    if (!this.#hear(incarnation)) return [];
    if (!this.#following && (this.#firstHeard === 0 || first < this.#firstHeard)) this.#firstHeard = first;
    const gapBefore = this.#isGap();
    this.#end = Math.max(this.#end, first + entries.length);
    const changes = entries.flatMap((entry, index) => this.#take(first + index, entry));
    if (this.#isGap() && !gapBefore) changes.push({ kind: 'gap' });
    return changes;
  }

  /** Takes a snapshot, or one message of it. */
  snapshot(page: FeedSnapshot): FeedChange[] {
    if (page.incarnation === 0 || page.next === 0) return [{ kind: 'malformed' }];
    if (!this.#hear(page.incarnation)) return [];
    if (!this.#isWanted(page)) {
      if (this.#pages?.next === page.next) this.#pages = undefined;
      return [];
    }
    if (page.offset === 0) this.#pages = { next: page.next, total: page.total, participants: [] };
    const pages = this.#pages;
    if (!pages || pages.next !== page.next || pages.participants.length !== page.offset) return [];
    pages.participants.push(...page.participants);
    if (pages.participants.length < pages.total) return [];
    return this.#install(pages, page.packets);
  }

  /** Whether a RoomNow is the newest one, of the latest incarnation. */
  now(incarnation: number, sequence: number): boolean {
    if (incarnation === 0 || !this.#hear(incarnation) || sequence <= this.#nowSequence) return false;
    this.#nowSequence = sequence;
    return true;
  }

  /** Forgets all participants, for `reason`. */
  end(reason: DisconnectReason): FeedChange[] {
    return [...this.#participants.keys()].map((sid) => this.#leave(sid, reason));
  }

  /** Takes up a later incarnation; false: this one is past. */
  #hear(incarnation: number): boolean {
    if (incarnation < this.#incarnation) return false;
    if (incarnation === this.#incarnation) return true;
    this.#incarnation = incarnation;
    this.#following = false;
    this.#firstHeard = 0;
    this.#end = 0;
    this.#nowSequence = 0;
    this.#pages = undefined;
    this.#held.clear();
    this.#heldBytes = 0;
    return true;
  }

  #isGap(): boolean {
    return this.#following && this.#next < this.#end;
  }

  #take(sequence: number, entry: FeedEntry): FeedChange[] {
    if (!this.#following || sequence > this.#next) {
      this.#hold(sequence, entry);
      return [];
    }
    return sequence < this.#next ? [] : [...this.#apply(entry), ...this.#drain()];
  }

  /** Holds an entry while there is room; what is not held is asked for again. */
  #hold(sequence: number, entry: FeedEntry): void {
    const bytes = entryBytes(entry);
    if (this.#held.has(sequence) || this.#held.size >= this.#limits.entries) return;
    if (this.#heldBytes + bytes > this.#limits.bytes) return;
    this.#held.set(sequence, entry);
    this.#heldBytes += bytes;
  }

  /** Applies what is held as far as nothing is missing. */
  #drain(): FeedChange[] {
    const changes: FeedChange[] = [];
    for (let entry = this.#release(this.#next); entry; entry = this.#release(this.#next)) {
      changes.push(...this.#apply(entry));
    }
    if (this.#pages && this.#pages.next <= this.#next) this.#pages = undefined;
    return changes;
  }

  #release(sequence: number): FeedEntry | undefined {
    const entry = this.#held.get(sequence);
    if (entry) this.#heldBytes -= entryBytes(entry);
    this.#held.delete(sequence);
    return entry;
  }

  /** Applies the entry whose turn it is. */
  #apply({ entry }: FeedEntry): FeedChange[] {
    this.#next++;
    if (entry?.$case === 'participant') return this.#participant(entry.value);
    if (entry?.$case === 'left') {
      const { sid, reason } = entry.value;
      return this.#participants.has(sid) ? [this.#leave(sid, reason)] : [];
    }
    if (entry?.$case === 'data') {
      this.#packets++;
      return [{ kind: 'data', data: entry.value }];
    }
    return [{ kind: 'malformed' }];
  }

  #participant(encoded: Uint8Array): FeedChange[] {
    const info = decode(encoded);
    if (!info) return [{ kind: 'malformed' }];
    this.#participants.set(info.sid, info);
    return [{ kind: 'participant', info }];
  }

  #leave(sid: string, reason: DisconnectReason): FeedChange {
    this.#participants.delete(sid);
    return { kind: 'left', sid, reason };
  }

  /** A snapshot is of use only where entries are missing that are kept no more: others are asked for, as data is in them. */
  #isWanted({ next, oldest }: FeedSnapshot): boolean {
    if (this.#following) return this.#next < Math.min(next, oldest);
    return this.#firstHeard === 0 || next <= this.#firstHeard || this.#firstHeard < oldest;
  }

  /** Puts a whole snapshot in the place of what was known, and goes on from there. */
  #install({ next, participants }: Pages, packets: number): FeedChange[] {
    const changes: FeedChange[] = [];
    const infos = participants.map(decode);
    const sids = new Set(infos.map((info) => info?.sid));
    // Who left is not told why: that entry is lost. At a later incarnation it is the room there that began anew.
    const reason = this.#following ? DisconnectReason.UNKNOWN_REASON : DisconnectReason.SERVER_SHUTDOWN;
    for (const sid of [...this.#participants.keys()]) if (!sids.has(sid)) changes.push(this.#leave(sid, reason));
    for (const info of infos) {
      if (!info) changes.push({ kind: 'malformed' });
      else if (!this.#following || this.#participants.get(info.sid)?.version !== info.version) {
        this.#participants.set(info.sid, info);
        changes.push({ kind: 'participant', info });
      }
    }
    const lost = packets - this.#packets;
    if (this.#following && lost > 0) changes.push({ kind: 'lost', packets: lost });
    this.#packets = packets;
    this.#following = true;
    this.#next = next;
    this.#end = Math.max(this.#end, next);
    this.#pages = undefined;
    for (const sequence of [...this.#held.keys()]) if (sequence < next) this.#release(sequence);
    return [...changes, ...this.#drain()];
  }
}

/** undefined: not a ParticipantInfo, or one without sid. */
function decode(encoded: Uint8Array): ParticipantInfo | undefined {
  try {
    const info = ParticipantInfo.fromBinary(encoded);
    return info.sid === '' ? undefined : info;
  } catch {
    return undefined;
  }
}
