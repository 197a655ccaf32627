import type { WeirCluster } from '#test/cluster/weir-cluster.ts';
import { BrowserParticipant } from '#test/e2e/browser.ts';
import { allReceive } from '#test/e2e/receiving.ts';
import { RtcParticipant } from '#test/e2e/rtc-participant.ts';

type Person = BrowserParticipant | RtcParticipant;

/** Longest time to wait until everybody in a call receives everybody else, milliseconds. */
export const meetMs = 60_000;

/** A call whose people all send and receive; what each of them misses is measured. */
export class MeasuredCall {
  readonly room: string;
  readonly #people = new Map<string, Person>();

  private constructor(room: string) {
    this.room = room;
  }

  /** A call of programs on rtc-node, who hear each other. */
  static async ofPrograms(weir: WeirCluster, url: string, room: string, count: number): Promise<MeasuredCall> {
    const call = new MeasuredCall(room);
    for (let index = 1; index <= count; index += 1) {
      const person = new RtcParticipant({ watches: false });
      const identity = `program-${index}`;
      call.#people.set(identity, person);
      await person.connect(url, await weir.token(room, identity));
      await person.publishAudio();
    }
    await call.#receive();
    return call;
  }

  /** A call of two windows of Chromium, who see each other. */
  static async ofBrowsers(weir: WeirCluster, url: string, room: string): Promise<MeasuredCall> {
    const call = new MeasuredCall(room);
    for (const identity of ['window-1', 'window-2']) {
      const person = await BrowserParticipant.alone();
      call.#people.set(identity, person);
      await person.connect(url, await weir.token(room, identity));
      await person.publish({ camera: true });
    }
    await call.#receive();
    return call;
  }

  /** Measures from now on. */
  async restart(): Promise<void> {
    await Promise.all([...this.#people.values()].map((person) => person.restartGaps()));
  }

  /**
   * The longest time that each of them received nothing of one of the others, milliseconds, once everybody does again.
   * Who does not within {@link meetMs} has that and more.
   */
  async gaps(): Promise<number[]> {
    await this.#receive().catch(() => undefined);
    const found = await Promise.all([...this.#people.values()].map((person) => person.gaps()));
    return found.map((sources) => Math.max(...Object.values(sources).map(({ longestGapMs }) => longestGapMs)));
  }

  async end(): Promise<void> {
    await Promise.allSettled([...this.#people.values()].map((person) => person.close()));
  }

  /** Waits until everybody receives everybody else anew. */
  async #receive(): Promise<void> {
    await allReceive(Object.fromEntries(this.#people), [...this.#people.keys()], meetMs);
  }
}
