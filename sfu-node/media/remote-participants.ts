import type { ParticipantInfo } from '@livekit/protocol';
import type { PublishedTrack } from './track.ts';

/** A participant of the room on another node, as that node tells. */
export interface RemoteParticipant {
  readonly node: string;
  info: ParticipantInfo;
  /** Tracks by sid. */
  readonly tracks: Map<string, PublishedTrack>;
  /** The same identity has joined again since, elsewhere or here: clients see the newer one. */
  superseded: boolean;
}

/** Of two sessions of one identity, whether the first is the newer one. */
export function isNewer(a: ParticipantInfo, b: ParticipantInfo): boolean {
  return a.joinedAtMs > b.joinedAtMs || (a.joinedAtMs === b.joinedAtMs && a.sid > b.sid);
}

/** The participants of a room that are on other nodes. */
export class RemoteParticipants {
  readonly #bySid = new Map<string, RemoteParticipant>();

  /** Those that clients see. */
  get shown(): RemoteParticipant[] {
    return [...this.#bySid.values()].filter(({ superseded }) => !superseded);
  }

  get(sid: string): RemoteParticipant | undefined {
    return this.#bySid.get(sid);
  }

  /** Sessions of one identity. */
  of(identity: string): RemoteParticipant[] {
    return [...this.#bySid.values()].filter(({ info }) => info.identity === identity);
  }

  add(node: string, info: ParticipantInfo): RemoteParticipant {
    const remote: RemoteParticipant = { node, info, tracks: new Map(), superseded: false };
    this.#bySid.set(info.sid, remote);
    return remote;
  }

  delete(sid: string): void {
    this.#bySid.delete(sid);
  }

  track(sid: string): { remote: RemoteParticipant; track: PublishedTrack } | undefined {
    for (const remote of this.#bySid.values()) {
      const track = remote.tracks.get(sid);
      if (track) return { remote, track };
    }
    return undefined;
  }
}
