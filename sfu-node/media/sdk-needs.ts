/** What client SDKs need beside the protocol, by the name that they join with. Each has its source; none harms others. */
import type { JoinIntent } from '../signal/claims.ts';

/** On LiveKit's Rust core. */
const rustCore: ReadonlySet<string> = new Set(['cpp', 'node', 'python', 'rust', 'unity', 'unreal']);
/** On livekit-client. */
const javaScript: ReadonlySet<string> = new Set(['js', 'reactnative', 'unityweb']);

/**
 * Whether a client is told to connect for publishing at once. Up to livekit 0.8.1 the Rust core queues its offers only
 * then. Otherwise it hangs for good when an answer finds another offer waiting
 * (https://github.com/livekit/rust-sdks/pull/1252), as after a move when the way to the server and back takes more than
 * 150 ms.
 */
export function publishesFast({ sdk, claims }: JoinIntent): boolean {
  return rustCore.has(sdk) && claims.canPublish;
}

/**
 * How long the first offer of tracks waits, milliseconds. livekit-client that reconnects calls itself connected as soon as
 * its tracks are published again, if all its connections are up by then. It then never tells the application of tracks
 * that others publish until two seconds after its join (https://github.com/livekit/client-sdk-js/issues/2074). So it gets
 * its second connection when its tracks are there: nothing is lost by that, as otherwise it waits for the two seconds in
 * any case, and keeps what was subscribed to itself for as long.
 */
export function firstOfferDelayMs({ sdk, claims }: JoinIntent): number {
  return javaScript.has(sdk) && claims.canPublish && claims.session !== '' ? 1500 : 0;
}

/**
 * Milliseconds until a client whose session began then can be told to join anew. In the middle of a join or a resume SDKs
 * do not take that in: those on the Rust core, which call a resume done a second after it, lose the word
 * (https://github.com/livekit/rust-sdks, `PC_RECONNECT_SETTLE_DELAY` and `reconnect_task` up to livekit 0.8.1), and find out
 * fifteen seconds later. Meanwhile the client is served where it is.
 * @param since when the session began
 * @param now on the same clock, milliseconds
 */
export function settlesInMs(since: number, now: number): number {
  return Math.max(0, since + settleMs - now);
}

const settleMs = 2000;
