import type { Assignment, AssignmentStatus, RoomRef } from '#proto/weir/control/v1/control.ts';
import type { JoinIntent } from '#sfu-node/signal/claims.ts';
import type { SignalChannel } from '#sfu-node/signal/channel.ts';

/** What the node's edges (gRPC, NATS, signalling) may ask of its rooms. Implemented by RoomHost. */
export interface Rooms {
  /**
   * Serves a room at an epoch; answers when it is served. Applying the same epoch and generation again changes nothing.
   * @throws WeirError StaleEpoch when a newer epoch of the room was seen here, NodeDraining when the node drains and the room is new to it
   */
  apply(assignment: Assignment): Promise<AssignmentStatus>;
  /** Ends a room here if its epoch is at or below `epoch`: clients are closed (RoomDeleted) or sent to reconnect (RoomMoved). */
  release(room: RoomRef, epoch: number, reason: string): void;
  /** Status of every room that is served. */
  describe(): AssignmentStatus[];
  /** uid and epoch of the room that is served under this name, if any. */
  find(roomName: string): { room: RoomRef; epoch: number } | undefined;
  /** Name of the node that a participant of a served room is connected to, as far as is known here: this one or another. */
  nodeOf(roomName: string, participantSid: string): string | undefined;
  /**
   * Takes a client into a served room and its channel over: answers with the join response, or a leave and a close.
   * @throws WeirError RoomNotServed when the room is not here (nothing was sent on the channel)
   */
  join(roomName: string, intent: JoinIntent, channel: SignalChannel): Promise<void>;
  readonly draining: boolean;
  setDraining(draining: boolean): void;
  /** Figures for the heartbeat. */
  load(): RoomsLoad;
  /** Calls `listener` on every change of {@link describe}; the returned function ends that. */
  watch(listener: (change: RoomChange) => void): () => void;
  /** Closes every room, transport and worker. Clients are told to reconnect elsewhere. */
  close(): Promise<void>;
}

export type RoomChange = { kind: 'assigned'; status: AssignmentStatus } | { kind: 'released'; room: RoomRef };

export interface RoomsLoad {
  workers: number;
  rooms: number;
  participants: number;
  /** Published plus subscribed tracks. */
  streams: number;
  /** Outgoing megabits a second. */
  mbps: number;
  /** CPU of the workers, as a share (0..1) of the machine's cores that they may use. */
  cpu: number;
}
