import { EnsureRoomRequest, EnsureRoomResponse, type Route } from '#proto/weir/fleet/v1/fleet.ts';
import { WeirError } from '#platform/errors.ts';
import { subjects } from '#platform/subjects.ts';
import type { NatsLink } from './nats-link.ts';

/** The leading operator places a room within this, or the client is told to come back; milliseconds. */
const ENSURE_TIMEOUT_MS = 5_000;

/** Asks the leading operator to place rooms; joins to one room at once share one request. */
export class RoomRequests {
  readonly #nats: NatsLink;
  readonly #region: string;
  readonly #pending = new Map<string, Promise<Route>>();

  constructor(nats: NatsLink, region: string) {
    this.#nats = nats;
    this.#region = region;
  }

  /**
   * Answers with the room's route once it is placed.
   * @param create the Room object is made when there is none
   * @throws WeirError RoomNotFound, NatsUnavailable, OperatorUnavailable, or what the operator answered
   */
  ensure(roomName: string, create: boolean): Promise<Route> {
    const key = `${create ? 'create' : 'find'} ${roomName}`;
    const known = this.#pending.get(key);
    if (known) return known;
    const request = this.#ask(roomName, create).finally(() => this.#pending.delete(key));
    this.#pending.set(key, request);
    return request;
  }

  async #ask(roomName: string, create: boolean): Promise<Route> {
    const request = EnsureRoomRequest.encode({ roomName, region: this.#region, create, full: [] }).finish();
    const data = await this.#nats.request(subjects.ensureRoom, request, ENSURE_TIMEOUT_MS).catch((error: unknown) => {
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
