import type { Msg, NatsConnection } from '@nats-io/transport-node';
import {
  LinkAnswer,
  LinkClose,
  LinkOffer,
  TrackChanged,
  TrackReply,
  TrackRequest,
  type LinkEnd,
  type TrackSupply,
} from '#proto/weir/fleet/v1/fleet.ts';
import { codeOf, messageOf, WeirError } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { subjects } from '#platform/subjects.ts';
import type { NatsLink } from '../coordination/nats-link.ts';
import type { NodeMetrics } from '../metrics.ts';
import { gatherLinks, type NodeLinks } from './link-metrics.ts';
import type { RoomLinks } from './room-links.ts';

/** How long a peer may take to answer an offer of a link, milliseconds. */
const offerMs = 2000;
/** The same for a track: a relay may have to get it first. */
const trackMs = 2000;

export interface CascadeOptions {
  /** Name of this node. */
  readonly node: string;
  /** Identity of this process. */
  readonly instance: string;
  readonly nats: NatsLink;
  readonly metrics: NodeMetrics;
  readonly log: Logger;
}

/** Where nodes ask one another for links and tracks, over NATS: requests to this node find their room here. */
export class Cascade {
  readonly instance: string;
  readonly #options: CascadeOptions;
  readonly #rooms = new Map<string, RoomLinks>();

  static create(options: CascadeOptions): Cascade {
    const cascade = new Cascade(options);
    options.nats.onConnected((connection, first) => {
      // Subscriptions outlive a reconnect.
      if (first) cascade.#subscribe(connection);
      for (const room of cascade.#rooms.values()) room.resume();
    });
    return cascade;
  }

  private constructor(options: CascadeOptions) {
    this.#options = options;
    this.instance = options.instance;
    options.metrics.trackLinks(() => this.links);
  }

  add(uid: string, room: RoomLinks): void {
    this.#rooms.set(uid, room);
  }

  remove(uid: string, room: RoomLinks): void {
    if (this.#rooms.get(uid) === room) this.#rooms.delete(uid);
  }

  /** What is known now of the links of all rooms. */
  get links(): NodeLinks {
    const rooms = [...this.#rooms.values()];
    return gatherLinks(
      rooms.flatMap(({ samples }) => samples),
      rooms.map(({ tracks }) => tracks),
    );
  }

  /**
   * Offers a link; answers with the peer's half.
   * @throws WeirError NatsUnavailable, NoResponders, RequestTimeout, or what the peer refused it for
   */
  async offerLink(peer: string, offer: LinkOffer): Promise<LinkEnd> {
    const data = await this.#options.nats.request(subjects.linkOffer(peer), LinkOffer.encode(offer).finish(), offerMs);
    const { result } = LinkAnswer.decode(data);
    if (result?.$case === 'end') return result.value;
    throw refusal(peer, result?.$case === 'error' ? result.value : undefined);
  }

  /**
   * Says what is wanted of a track over a link; answers with how it comes.
   * @throws WeirError NatsUnavailable, NoResponders, RequestTimeout, or what the peer refused it for
   */
  async requestTrack(peer: string, request: TrackRequest): Promise<TrackSupply | undefined> {
    const payload = TrackRequest.encode(request).finish();
    const data = await this.#options.nats.request(subjects.linkTrack(peer), payload, trackMs);
    const { result } = TrackReply.decode(data);
    if (result?.$case === 'error') throw refusal(peer, result.value);
    return result?.value;
  }

  /** Tells a peer that a link is closed; should it not hear that, it sees that nothing comes any more. */
  tellClosed(peer: string, message: LinkClose): void {
    this.#tell(subjects.linkClose(peer), LinkClose.encode(message).finish());
  }

  /** Tells a peer that a track comes as another stream. */
  tellStream(peer: string, message: TrackChanged): void {
    this.#tell(subjects.linkStream(peer), TrackChanged.encode(message).finish());
  }

  #tell(subject: string, payload: Uint8Array): void {
    const { nats } = this.#options;
    if (nats.connected) nats.connection?.publish(subject, payload);
  }

  #subscribe(connection: NatsConnection): void {
    const { node } = this.#options;
    const on = (subject: string, handle: (message: Msg) => void) => {
      connection.subscribe(subject, {
        callback: (error, message) => {
          if (error) return;
          try {
            handle(message);
          } catch (failure) {
            this.#refused(failure);
          }
        },
      });
    };
    on(subjects.linkOffer(node), (message) => void this.#onOffer(message));
    on(subjects.linkTrack(node), (message) => void this.#onTrack(message));
    on(subjects.linkClose(node), ({ data }) => {
      const { roomUid, link } = LinkClose.decode(data);
      this.#rooms.get(roomUid)?.closedByPeer(link);
    });
    on(subjects.linkStream(node), ({ data }) => {
      const { roomUid, trackSid } = TrackChanged.decode(data);
      this.#rooms.get(roomUid)?.streamChanged(trackSid);
    });
  }

  async #onOffer(message: Msg): Promise<void> {
    let result: LinkAnswer['result'];
    try {
      const offer = LinkOffer.decode(message.data);
      result = { $case: 'end', value: await this.#room(offer.roomUid).accept(offer) };
    } catch (error) {
      result = { $case: 'error', value: this.#refused(error) };
    }
    this.#respond(message, LinkAnswer.encode({ result, instance: this.instance }).finish());
  }

  async #onTrack(message: Msg): Promise<void> {
    let result: TrackReply['result'];
    try {
      const request = TrackRequest.decode(message.data);
      const supply = await this.#room(request.roomUid).supply(request);
      result = supply && { $case: 'supply', value: supply };
    } catch (error) {
      result = { $case: 'error', value: this.#refused(error) };
    }
    this.#respond(message, TrackReply.encode({ result }).finish());
  }

  /** The connection may have been closed since the request came. */
  #respond(message: Msg, answer: Uint8Array): void {
    try {
      message.respond(answer);
    } catch (error) {
      this.#options.log.debug({ reason: messageOf(error) }, 'An answer to another node could not be sent');
    }
  }

  /** @throws WeirError RoomNotServed */
  #room(uid: string): RoomLinks {
    const room = this.#rooms.get(uid);
    if (!room) throw new WeirError('RoomNotServed', `Node ${this.#options.node} does not serve that room.`);
    return room;
  }

  #refused(error: unknown): { code: string; message: string } {
    const code = codeOf(error);
    this.#options.metrics.cascadeRefusals.inc({ code });
    if (code === 'Internal') this.#options.log.error({ err: error }, 'A request of another node failed');
    else this.#options.log.debug({ code, reason: messageOf(error) }, 'Refused a request of another node');
    return { code, message: messageOf(error) };
  }
}

function refusal(peer: string, error: { code: string; message: string } | undefined): WeirError {
  if (!error) return new WeirError('EmptyAnswer', `Node ${peer} gave an empty answer; it may be of another version.`);
  return new WeirError(error.code, error.message, { where: peer });
}
