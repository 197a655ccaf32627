import { EnsureRoomRequest, EnsureRoomResponse, type Route } from '#proto/weir/fleet/v1/fleet.ts';
import { servingNodes } from '#core/placement/mod.ts';
import type { Clock } from '#platform/clock.ts';
import { codeOf, WeirError } from '#platform/errors.ts';
import { subjects } from '#platform/subjects.ts';
import { nodesFromWire } from '#platform/wire.ts';
import type { NatsLink } from './nats-link.ts';

/** The leading operator places a room within this, or the client is told to come back; milliseconds. */
const ENSURE_TIMEOUT_MS = 5_000;
/** A client whose room is served waits no longer than this for a nearer node, milliseconds. */
const EXTEND_TIMEOUT_MS = 2_000;
/** A room that could not get a nearer node is not asked about again for so long, milliseconds. */
const DECLINED_MS = 10_000;
/** Answers remembered at once; beyond that, those that have run out go. */
const MAX_DECLINED = 1_000;

/** What a node asks of the operator for a client that joins. */
export interface RoomWish {
  /** The Room object is made when there is none. */
  readonly create: boolean;
  /** Where the client is. */
  readonly region: string;
  /** Nodes of the room that refused the client, as they are full. */
  readonly full: readonly string[];
}

/** Asks the leading operator to place rooms; joins that ask the same at once share one request. */
export class RoomRequests {
  readonly #nats: Pick<NatsLink, 'request'>;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #pending = new Map<string, Promise<Route>>();
  /** Until when a room is not asked again for a nearer node, by room, region and full nodes; milliseconds since the epoch. */
  readonly #declined = new Map<string, number>();

  constructor(nats: Pick<NatsLink, 'request'>, clock: Pick<Clock, 'now'>) {
    this.#nats = nats;
    this.#clock = clock;
  }

  /**
   * Answers with the room's route once it is served, with a node for the client if there can be one.
   * @throws WeirError RoomNotFound, NoCapacity, NatsUnavailable, OperatorUnavailable, or what else the operator answered
   */
  ensure(roomName: string, wish: RoomWish): Promise<Route> {
    return this.#shared(roomName, wish, ENSURE_TIMEOUT_MS);
  }

  /**
   * Asks for another node of a room that is served, near the client and not full. Undefined when there can be none now, or
   * nobody answers: the client then goes to a node that there is.
   * @throws WeirError NoCapacity when all nodes of the room are full and it fits on no other
   */
  async extend(roomName: string, { region, full }: Omit<RoomWish, 'create'>): Promise<Route | undefined> {
    const key = keyOf(roomName, region, full);
    if ((this.#declined.get(key) ?? 0) > this.#clock.now()) return undefined;
    try {
      const route = await this.#shared(roomName, { create: false, region, full }, EXTEND_TIMEOUT_MS);
      const helps = servingNodes(nodesFromWire(route.nodes)).some(
        (each) => each.region === region && !full.includes(each.node),
      );
      if (!helps) this.#decline(key);
      return route;
    } catch (error) {
      if (codeOf(error) === 'NoCapacity') throw error;
      this.#decline(key);
      return undefined;
    }
  }

  #decline(key: string): void {
    const now = this.#clock.now();
    this.#declined.set(key, now + DECLINED_MS);
    if (this.#declined.size <= MAX_DECLINED) return;
    for (const [old, until] of this.#declined) if (until <= now) this.#declined.delete(old);
  }

  #shared(roomName: string, { create, region, full }: RoomWish, timeoutMs: number): Promise<Route> {
    const key = `${timeoutMs} ${create} ${keyOf(roomName, region, full)}`;
    const known = this.#pending.get(key);
    if (known) return known;
    const request = EnsureRoomRequest.create({ roomName, create, region, full: [...full] });
    const answer = this.#ask(request, timeoutMs).finally(() => this.#pending.delete(key));
    this.#pending.set(key, answer);
    return answer;
  }

  async #ask(wish: EnsureRoomRequest, timeoutMs: number): Promise<Route> {
    const { roomName } = wish;
    const request = EnsureRoomRequest.encode(wish).finish();
    const data = await this.#nats.request(subjects.ensureRoom, request, timeoutMs).catch((error: unknown) => {
      if (error instanceof WeirError && (error.code === 'NoResponders' || error.code === 'RequestTimeout')) {
        const words = `room ${roomName} is not placed and no operator leads now to place it; try again`;
        throw new WeirError('OperatorUnavailable', words, { cause: error });
      }
      throw error;
    });
    const { result } = EnsureRoomResponse.decode(data);
    if (result?.$case === 'route') return result.value;
    if (result?.$case === 'error') throw new WeirError(result.value.code, result.value.message, { where: roomName });
    throw new WeirError('OperatorUnavailable', 'the operator gave an empty answer; try again');
  }
}

function keyOf(roomName: string, region: string, full: readonly string[]): string {
  return JSON.stringify([roomName, region, ...full.toSorted()]);
}
