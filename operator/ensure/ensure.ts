import { createHash } from 'node:crypto';
import type { Msg, NatsConnection, Subscription } from '@nats-io/transport-node';
import type { Demand, DemandAnswer } from '#core/placement/mod.ts';
import type { Room } from '#crds/room.ts';
import { EnsureRoomRequest, EnsureRoomResponse, type Route } from '#proto/weir/fleet/v1/fleet.ts';
import type { Clock } from '#platform/clock.ts';
import { codeOf, messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { subjects } from '#platform/subjects.ts';
import { conditionOf } from '../room/status.ts';
import { createdByAnnotation, placementOf, preferredRegionAnnotation, roomNameOf, routeOf } from '../room/translate.ts';
import { isAlreadyExists, type ResourceClient } from '../runtime/kube.ts';

/** Less than the 5 s that the asking node waits, so that it hears why. */
const timeoutMs = 4500;
const checkMs = 10;
const maxRoomName = 128;

export interface EnsureOptions {
  client: ResourceClient<Room>;
  /** The Room that owns a roomName. */
  find: (roomName: string) => Room | undefined;
  /** Whether there is a Room object under a key (namespace/name). */
  exists: (key: string) => boolean;
  /** Takes what a client asks of a placed room. */
  demand: (room: Room, demand: Demand) => DemandAnswer;
  observeWrite: (room: Room) => void;
  /** Namespace of Rooms that joins make. */
  namespace: string;
  clock: Clock;
  log: Logger;
}

/** Answers nodes that ask for a room: it is placed, or made and placed, or gets another node for the client. */
export class EnsureResponder {
  readonly #options: EnsureOptions;
  #subscription: Subscription | undefined;

  constructor(options: EnsureOptions) {
    this.#options = options;
  }

  /** Answers from now on; only the leader does. */
  start(connection: NatsConnection): void {
    this.#subscription?.unsubscribe();
    this.#subscription = connection.subscribe(subjects.ensureRoom, {
      callback: (error, message) => {
        if (error) this.#options.log.error({ err: error }, 'Requests for rooms cannot be received');
        else void this.#answer(message);
      },
    });
  }

  stop(): void {
    this.#subscription?.unsubscribe();
    this.#subscription = undefined;
  }

  async #answer(message: Msg): Promise<void> {
    let response: EnsureRoomResponse;
    try {
      const route = await this.ensure(EnsureRoomRequest.decode(message.data));
      response = { result: { $case: 'route', value: route } };
    } catch (error) {
      if (codeOf(error) === 'Internal') this.#options.log.error({ err: error }, 'A room could not be made for a join');
      response = { result: { $case: 'error', value: { code: codeOf(error), message: messageOf(error) } } };
    }
    message.respond(EnsureRoomResponse.encode(response).finish());
  }

  /**
   * The route of a room, once it is served. With a node of `region` that is not one of `full`, when Room and fleet allow
   * that; the route as it is otherwise.
   * @throws WeirError RoomNotFound, InvalidRoomName, RoomNotReady, NoCapacity when all its nodes are full and no other fits
   */
  async ensure({ roomName, region, create, full }: EnsureRoomRequest): Promise<Route> {
    const { clock } = this.#options;
    if (roomName.length === 0 || roomName.length > maxRoomName) {
      throw new WeirError('InvalidRoomName', `A room's name has 1 to ${maxRoomName} characters.`);
    }
    const deadline = clock.now() + timeoutMs;
    for (;;) {
      const room = this.#find(roomName);
      if (!room) {
        if (!create)
          throw new WeirError(
            'RoomNotFound',
            `Room ${roomName} does not exist, and this API key may not make rooms. Apply a Room.`,
          );
        await this.#create(roomName, region);
      }
      const route = room && this.#served(room);
      if (room && route && this.#suits(room, { region, full })) return route;
      if (clock.now() >= deadline) {
        // The room is there: a client far from it is better than none.
        if (route && full.length === 0) return route;
        const why = conditionOf(room?.status, 'Ready')?.message ?? 'It was not placed yet.';
        throw new WeirError('RoomNotReady', `Room ${roomName} is not served: ${why}`);
      }
      await new Promise<void>((resolve) => clock.after(checkMs, resolve));
    }
  }

  #served(room: Room): Route | undefined {
    const placement = placementOf(room);
    const ready = conditionOf(room.status, 'Ready')?.status === 'True';
    return placement && ready ? routeOf(room, placement) : undefined;
  }

  /** Whether the room, as it is served, is the answer: it has what is asked for, or cannot get it. */
  #suits(room: Room, demand: Demand): boolean {
    const answer = this.#options.demand(room, demand);
    if (answer.kind !== 'full') return answer.kind !== 'extend';
    const words = `All nodes of room ${roomNameOf(room)} are full, and it fits on no other: ${answer.refusal.message}`;
    throw new WeirError('NoCapacity', words);
  }

  /** A Room on its way out serves nobody new: another is made as soon as it is gone. */
  #find(roomName: string): Room | undefined {
    const room = this.#options.find(roomName);
    return room?.metadata.deletionTimestamp ? undefined : room;
  }

  async #create(roomName: string, region: string): Promise<void> {
    const { client, observeWrite, exists, namespace, log } = this.#options;
    const annotations = { [createdByAnnotation]: 'join', ...(region ? { [preferredRegionAnnotation]: region } : {}) };
    try {
      observeWrite(
        await client.create({
          apiVersion: 'weir.dev/v1alpha1',
          kind: 'Room',
          metadata: { name: objectName(roomName, (name) => exists(`${namespace}/${name}`)), namespace, annotations },
          spec: { roomName },
        }),
      );
      log.info({ roomName, region }, 'Room made for a first join');
    } catch (error) {
      // Another join was first, or the Room before this one is not quite gone.
      if (!isAlreadyExists(error)) throw error;
    }
  }
}

/**
 * A name that Kubernetes takes: the room's own when it can be one and no other Room has it (under another roomName),
 * else what is left of it and a hash of the whole.
 */
export function objectName(roomName: string, taken: (name: string) => boolean = () => false): string {
  if (/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(roomName) && !taken(roomName)) return roomName;
  const readable = roomName
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 40);
  const hash = createHash('sha256').update(roomName).digest('hex').slice(0, 10);
  return `${readable || 'room'}-${hash}`.replace(/--+/g, '-');
}
