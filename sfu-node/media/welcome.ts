/** What a client is told of the room and the server when it joins or comes back. */
import {
  type ICEServer,
  JoinResponse,
  Room as RoomInfo,
  ServerInfo,
  ServerInfo_Edition,
  type ParticipantInfo,
} from '@livekit/protocol';
import type { Assignment } from '#proto/weir/control/v1/control.ts';
import { codecsOf, mimeTypeOf } from './codecs.ts';
import type { Participant } from './participant.ts';
import { publishesFast } from './sdk-needs.ts';

/** LiveKit protocol version that is spoken here. */
const protocolVersion = 16;
const pingIntervalSeconds = 5;
const pingTimeoutSeconds = 15;

/** STUN and TURN servers for the client with this identity. */
export type IceServers = (identity: string) => ICEServer[];

/** Where the client is. */
export interface Place {
  readonly node: string;
  readonly region: string;
  readonly version: string;
  readonly iceServers: IceServers;
}

export function serverInfo({ node, region, version }: Omit<Place, 'iceServers'>): ServerInfo {
  return new ServerInfo({
    edition: ServerInfo_Edition.Standard,
    version,
    protocol: protocolVersion,
    region,
    nodeId: node,
  });
}

/** @param createdAt milliseconds since the epoch */
export function roomInfo(
  assignment: Assignment,
  participants: readonly ParticipantInfo[],
  createdAt: number,
): RoomInfo {
  const { room, settings } = assignment;
  return new RoomInfo({
    sid: `RM_${room?.uid ?? ''}`,
    name: room?.roomName ?? '',
    emptyTimeout: settings?.emptyTimeoutSeconds ?? 0,
    departureTimeout: settings?.departureTimeoutSeconds ?? 0,
    maxParticipants: settings?.maxParticipants ?? 0,
    metadata: settings?.metadata ?? '',
    creationTime: BigInt(Math.floor(createdAt / 1000)),
    creationTimeMs: BigInt(createdAt),
    enabledCodecs: enabledCodecs(assignment),
    numParticipants: participants.length,
    numPublishers: participants.filter(({ tracks }) => tracks.length > 0).length,
  });
}

/** @param others participants that the client may see */
export function joinResponse(
  place: Place,
  assignment: Assignment,
  room: RoomInfo,
  participant: Participant,
  others: readonly ParticipantInfo[],
): JoinResponse {
  return new JoinResponse({
    room,
    participant: participant.info,
    otherParticipants: [...others],
    serverVersion: place.version,
    serverRegion: place.region,
    serverInfo: serverInfo(place),
    subscriberPrimary: true,
    fastPublish: publishesFast(participant.intent),
    pingInterval: pingIntervalSeconds,
    pingTimeout: pingTimeoutSeconds,
    enabledPublishCodecs: enabledCodecs(assignment),
    iceServers: place.iceServers(participant.identity),
  });
}

function enabledCodecs({ settings }: Assignment): { mime: string }[] {
  return codecsOf(settings ?? { codecs: [], audioOnly: false }).map((name) => ({ mime: mimeTypeOf(name) }));
}
