import type { Room } from '#crds/room.ts';
import {
  createToken,
  eventually,
  Fleet,
  type FleetNode,
  type FleetOptions,
  type TokenOptions,
} from '#test/fleet/mod.ts';
import { Browser, type BrowserParticipant, type JoinOptions, type Source } from './browser.ts';

/** A fleet of real nodes and a real Chromium whose windows join calls on it. */
export class Party {
  readonly fleet: Fleet;
  readonly browser: Browser;
  readonly #prefix: string;
  #rooms = 0;

  private constructor(fleet: Fleet, browser: Browser, prefix: string) {
    this.fleet = fleet;
    this.browser = browser;
    this.#prefix = prefix;
  }

  /** @param prefix of the names of rooms */
  static async start(prefix: string, options: FleetOptions): Promise<Party> {
    const results = await Promise.allSettled([Fleet.start(options), Browser.launch()]);
    const [fleet, browser] = results;
    if (fleet.status === 'fulfilled' && browser.status === 'fulfilled') {
      return new Party(fleet.value, browser.value, prefix);
    }
    if (fleet.status === 'fulfilled') await fleet.value.stop();
    if (browser.status === 'fulfilled') await browser.value.close();
    throw results.find((result) => result.status === 'rejected')?.reason;
  }

  /** A name that no room has yet. */
  newRoom(): string {
    this.#rooms += 1;
    return `${this.#prefix}-${this.#rooms}`;
  }

  /** Applies a Room, and waits until it is served. */
  async apply({ name, spec }: { name: string; spec: NonNullable<Room['spec']> }): Promise<void> {
    const manifest = { apiVersion: 'weir.dev/v1alpha1', kind: 'Room', metadata: { name, namespace: 'default' }, spec };
    await this.fleet.kubectl.apply(manifest);
    await this.fleet.roomReady(name);
  }

  token(room: string, identity: string, more: Partial<TokenOptions> = {}): Promise<string> {
    const { apiKey, apiSecret } = this.fleet;
    return createToken({ apiKey, apiSecret, room, identity, ...more });
  }

  /** A participant in a window of its own, joined through a node (the first one by default). */
  async join(
    room: string,
    identity: string,
    options: { node?: FleetNode; more?: Partial<TokenOptions> } & JoinOptions = {},
  ): Promise<BrowserParticipant> {
    const { node = this.fleet.nodes[0], more, ...joining } = options;
    if (!node) throw new Error('the fleet has no node');
    const participant = await this.browser.participant();
    await participant.connect(node.url, await this.token(room, identity, more), joining);
    return participant;
  }

  async close(): Promise<void> {
    await this.browser.close();
    await this.fleet.stop();
  }
}

/** Waits until frames (or audio energy) of a source keep coming. */
export async function plays(who: BrowserParticipant, identity: string, source: Source): Promise<void> {
  const measure = async () => {
    const now = await who.received(identity, source);
    return source === 'microphone' ? now.totalAudioEnergy : now.framesDecoded;
  };
  const timeoutMs = 20_000;
  const start = await eventually(async () => (await measure()) || undefined, {
    timeoutMs,
    what: `${source} of ${identity}`,
  });
  await eventually(async () => (await measure()) > start, { timeoutMs, what: `more ${source} of ${identity}` });
}

/** Waits until nothing comes of a source any more: two looks a second apart see the same count. */
export async function stops(who: BrowserParticipant, identity: string, source: Source): Promise<void> {
  await eventually(
    async () => {
      const before = (await who.received(identity, source)).packetsReceived;
      await who.page.waitForTimeout(1000);
      return (await who.received(identity, source)).packetsReceived === before;
    },
    { timeoutMs: 20_000, what: `${source} of ${identity} to stop` },
  );
}

export async function nodeOf(participant: BrowserParticipant): Promise<string> {
  return (await participant.view()).serverNode;
}

export async function closeAll(...participants: BrowserParticipant[]): Promise<void> {
  await Promise.all(participants.map((participant) => participant.close()));
}
