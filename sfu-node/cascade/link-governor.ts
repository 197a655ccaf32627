import { TrackSource } from '@livekit/protocol';
import type { PublishedTrack } from '../media/track.ts';
import type { TrackSender } from '../media/track-sender.ts';
import { capsOf, congestionOf, mostSteps, nextRelief, noRelief, settleMs, type LinkTrack } from './congestion.ts';
import { Lowest } from './probe.ts';

/** Delay counts when so many looks in a row find it. */
const telling = 3;

/** What is known of the way there. */
export interface GovernedFigures {
  /** Share (0..1) of packets that do not arrive. */
  readonly loss: number;
  /** Round trip time, milliseconds; undefined while nothing was sent that is reported on. */
  readonly rttMs: number | undefined;
  readonly sentKbps: number;
}

/** Watches one link and leaves out layers while it is too narrow for all that is wanted on it. */
export class LinkGovernor {
  readonly #capacityMbps: number;
  readonly #isSpeaking: (participantSid: string) => boolean;
  readonly #base = new Lowest();
  #lateLooks = 0;
  #relief = noRelief;
  #congestion: string | undefined;

  constructor(capacityMbps: number, isSpeaking: (participantSid: string) => boolean) {
    this.#capacityMbps = capacityMbps;
    this.#isSpeaking = isSpeaking;
  }

  /** Why the link is degraded: what is congested, or that layers are left out; undefined when neither is so. */
  get degradation(): string | undefined {
    return this.#congestion ?? (this.#relief.steps > 0 ? 'Recovering' : undefined);
  }

  /** Layers that are left out now. */
  get steps(): number {
    return this.#relief.steps;
  }

  /** Looks at the link anew; to be called about once a second. */
  govern(
    figures: GovernedFigures,
    senders: Iterable<{ readonly track: PublishedTrack; readonly sender: TrackSender }>,
    now: number,
  ): void {
    const { loss, rttMs, sentKbps } = figures;
    if (rttMs !== undefined) this.#base.take(rttMs, now);
    const sentMbps = sentKbps / 1000;
    const load = { loss, rttMs, baseRttMs: this.#base.figure, sentMbps, capacityMbps: this.#capacityMbps };
    const found = congestionOf(load);
    // One late report is no queue, and one that drains is no new one.
    const drains = now - this.#relief.loweredAt < settleMs;
    this.#lateLooks = found === 'Delay' && !drains ? this.#lateLooks + 1 : 0;
    this.#congestion = found === 'Delay' && this.#lateLooks < telling ? undefined : found;
    const all = [...senders];
    const tracks = all.map(({ track, sender }) => this.#linkTrack(track, sender));
    this.#relief = nextRelief(this.#relief, this.#congestion !== undefined, mostSteps(tracks), now);
    const caps = capsOf(tracks, this.#relief.steps);
    for (const [index, { track, sender }] of all.entries()) {
      const cap = caps.get(track.sid) ?? sender.top;
      // One that loses nothing has no cap: what is wanted of it next goes at once, and not when the link is looked at again.
      sender.setCap(cap < (tracks[index]?.top ?? 0) ? cap : sender.top);
    }
  }

  #linkTrack(track: PublishedTrack, sender: TrackSender): LinkTrack {
    const { sid, kind, info, publisherSid } = track;
    if (kind === 'audio') return { sid, kind: 'audio', top: 0 };
    const screen = info.source === TrackSource.SCREEN_SHARE;
    const speaks = this.#isSpeaking(publisherSid);
    return { sid, kind: screen ? 'screen' : speaks ? 'speaker' : 'video', top: sender.wantedTop };
  }
}
