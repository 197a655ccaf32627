import { eventually } from '#tools/local/eventually.ts';
import type { MediaReceived } from './media-gaps.ts';

/** Whoever receives media: a window of Chromium, or a program on rtc-node. */
export interface Receiver {
  gaps(): Promise<Record<string, MediaReceived>>;
}

/** Waits until each of them receives new media from every one of the others that are named. */
export async function allReceive(
  receivers: Readonly<Record<string, Receiver>>,
  from: readonly string[],
  timeoutMs = 60_000,
): Promise<void> {
  for (const [name, receiver] of Object.entries(receivers)) {
    for (const sender of from) {
      if (sender === name) continue;
      const frames = async () => (await receiver.gaps())[sender]?.frames ?? 0;
      const before = await frames();
      const comes = async () => (await frames()) > before + 10;
      await eventually(comes, { timeoutMs, what: `media of ${sender} at ${name}` });
    }
  }
}
