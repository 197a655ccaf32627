import { FeedReply, FeedRequest, type FeedEntries } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { codeOf, messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { subjects } from '#platform/subjects.ts';
import type { NatsLink } from '#sfu-node/coordination/nats-link.ts';
import { FeedFollower, type FeedChange, type FollowRequest } from './feed-follower.ts';

/** How long a peer may take to answer, milliseconds. */
const REQUEST_MS = 500;
/** Pause before the same is asked for again, milliseconds: doubles from the first to the last. */
const FIRST_PAUSE_MS = 50;
const LAST_PAUSE_MS = 500;

export interface FeedPeerOptions {
  readonly roomUid: string;
  /** Name of the peer. */
  readonly node: string;
  readonly nats: Pick<NatsLink, 'connected' | 'request'>;
  readonly clock: Clock;
  readonly log: Logger;
  /** Takes what the peer's feed changed, in order. */
  readonly onChanges: (changes: FeedChange[]) => void;
}

/** Follows one peer's feed of a room, and asks it for what is missing: one request at a time, until nothing is. */
export class FeedPeer {
  readonly follower = new FeedFollower();
  readonly #options: FeedPeerOptions;
  #asking = false;
  /** Something may be missing that nothing heard so far tells of. */
  #unsure = true;
  #failures = 0;
  #cancelPause: (() => void) | undefined;
  #closed = false;

  constructor(options: FeedPeerOptions) {
    this.#options = options;
  }

  /** Takes entries or a digest that the peer published. */
  entries(run: FeedEntries): void {
    this.#options.onChanges(this.follower.entries(run));
    this.askIfMissing();
  }

  /** NATS is there, for the first time or again: asks at once. */
  connected(): void {
    this.#unsure = true;
    this.#failures = 0;
    this.#endPause();
    this.askIfMissing();
  }

  /** Asks the peer, if something is missing and no request is under way. */
  askIfMissing(): void {
    if (this.#closed || this.#asking || this.#cancelPause || !this.#options.nats.connected) return;
    const request = this.#unsure ? this.follower.probe() : this.follower.missing();
    if (request) void this.#ask(request);
  }

  close(): void {
    this.#closed = true;
    this.#endPause();
  }

  async #ask(request: FollowRequest): Promise<void> {
    this.#asking = true;
    const changes = await this.#request(request);
    this.#asking = false;
    if (this.#closed) return;
    if (changes) this.#options.onChanges(changes);
    const missing = this.follower.missing();
    // An answer that leaves the same thing missing is as good as none.
    if (!changes || (missing && isSame(missing, request))) return this.#pause();
    this.#failures = 0;
    this.askIfMissing();
  }

  /** @returns what the answer changes; undefined without an answer of use */
  async #request(request: FollowRequest): Promise<FeedChange[] | undefined> {
    const { roomUid, node, nats, log } = this.#options;
    try {
      // Cleared first: a connection that comes back while this waits makes it unsure anew.
      this.#unsure = false;
      const message = FeedRequest.encode({ roomUid, ...request }).finish();
      const answer = await nats.request(subjects.feed(node), message, REQUEST_MS);
      return this.#closed ? [] : this.#take(answer);
    } catch (error) {
      this.#unsure = true;
      log.debug({ room: roomUid, node, code: codeOf(error), reason: messageOf(error) }, 'a feed could not be got');
      return undefined;
    }
  }

  #take(answer: Uint8Array): FeedChange[] {
    const result = read(answer)?.result;
    if (result?.$case === 'error') throw new WeirError(result.value.code, result.value.message);
    if (result?.value.node !== this.#options.node) return [{ kind: 'malformed' }];
    return result.$case === 'entries' ? this.follower.entries(result.value) : this.follower.snapshot(result.value);
  }

  #pause(): void {
    if (this.#closed || !this.#options.nats.connected) return; // connected() goes on.
    const ms = Math.min(FIRST_PAUSE_MS * 2 ** this.#failures++, LAST_PAUSE_MS);
    this.#endPause();
    this.#cancelPause = this.#options.clock.after(ms, () => {
      this.#cancelPause = undefined;
      this.askIfMissing();
    });
  }

  #endPause(): void {
    this.#cancelPause?.();
    this.#cancelPause = undefined;
  }
}

/** undefined: it cannot be read. */
function read(answer: Uint8Array): FeedReply | undefined {
  try {
    return FeedReply.decode(answer);
  } catch {
    return undefined;
  }
}

function isSame(one: FollowRequest, other: FollowRequest): boolean {
  return (
    one.incarnation === other.incarnation &&
    one.from === other.from &&
    one.state === other.state &&
    one.snapshot === other.snapshot &&
    one.have === other.have
  );
}
