import { ConnectionQuality, ConnectionQualityInfo } from '@livekit/protocol';

/** How often the quality of connections is told, milliseconds. */
export const qualityIntervalMs = 5000;

/** mediasoup's score of a stream: 0 (nothing comes) to 10 (nothing is lost). */
const excellentFrom = 8;
const goodFrom = 5;

/**
 * Quality of a participant's connection, from mediasoup's scores (0 to 10) of the streams that it sends and receives: its
 * worst stream is what it complains of.
 * @param scores undefined entries are of streams that nothing is known of yet
 */
export function qualityOf(
  sid: string,
  scores: readonly (number | undefined)[],
  signalLost: boolean,
): ConnectionQualityInfo {
  const known = scores.filter((score) => score !== undefined);
  const worst = Math.min(10, ...known);
  const quality = signalLost
    ? ConnectionQuality.LOST
    : worst >= excellentFrom
      ? ConnectionQuality.EXCELLENT
      : worst >= goodFrom
        ? ConnectionQuality.GOOD
        : ConnectionQuality.POOR;
  // LiveKit's score is a mean opinion score, 1 to 5 (0 when lost).
  return new ConnectionQualityInfo({ participantSid: sid, quality, score: signalLost ? 0 : 1 + (4 * worst) / 10 });
}
