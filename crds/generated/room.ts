/* Generated from crds/weir.dev_rooms.yaml by `npm run generate`. Do not edit. */
import type { V1ObjectMeta } from '@kubernetes/client-node';

/** Group, version and plural of Room, as API calls name them. */
export const rooms = { group: 'weir.dev', version: 'v1alpha1', plural: 'rooms', kind: 'Room' } as const;

/**
 * Room is a call: people who hear and see one another. The operator places it on SFU nodes and keeps it served while nodes come, go and die. Clients join it with any LiveKit SDK under spec.roomName.
 */
export interface Room {
  metadata: V1ObjectMeta;
  /**
   * weir.dev/v1alpha1
   */
  apiVersion?: string;
  /**
   * Room
   */
  kind?: string;
  /**
   * What should run. Nothing here is written by the operator.
   */
  spec: {
    /**
     * The name that clients join by (the room grant of their token). Unique in the fleet: of two Rooms with one roomName the older is served. Defaults to metadata.name. Cannot be changed.
     */
    roomName?: string;
    /**
     * Regions to serve from, most wanted first. Empty means any region.
     */
    regions?: string[];
    /**
     * How many participants may be in the room at once. 0 means no limit.
     */
    maxParticipants?: number;
    /**
     * Streams (published plus subscribed tracks) to reserve on the room's first node. 0 reserves a default of 20, which each further node reserves as well.
     */
    expectedStreams?: number;
    /**
     * How the room's nodes are linked. Auto: a mesh of up to three nodes, beyond that a hub a region and the hubs meshed. SingleNode never spans nodes.
     */
    topology?: 'Auto' | 'SingleNode' | 'Mesh' | 'HubAndSpoke';
    /**
     * Labels that an SfuNode must have to serve this room.
     */
    nodeSelector?: {
      [k: string]: string;
    };
    /**
     * What may be sent in the room.
     */
    media?: {
      /**
       * Codecs offered to publishers. Empty means all that Weir serves.
       */
      codecs?: ('opus' | 'vp8' | 'h264' | 'vp9' | 'av1')[];
      /**
       * Upper bound of the video a publisher may send, in kilobits a second.
       */
      maxVideoBitrateKbps?: number;
      /**
       * Refuse video tracks.
       */
      audioOnly?: boolean;
    };
    /**
     * What is kept ready for a node's death.
     */
    failover?: {
      /**
       * Warm keeps a path to a second node ready, so that a crash costs detection and one offer.
       */
      standby?: 'None' | 'Warm';
    };
    /**
     * How long a Room that a first join made stays without anybody ever having joined, in seconds. Rooms made by hand stay until they are deleted.
     */
    emptyTimeoutSeconds?: number;
    /**
     * How long a Room that a first join made stays after the last participant left, in seconds.
     */
    departureTimeoutSeconds?: number;
    /**
     * Free text handed to every client (the LiveKit room metadata).
     */
    metadata?: string;
  };
  /**
   * What is running. Written by the operator alone.
   */
  status?: {
    /**
     * The metadata.generation that this status speaks of.
     */
    observedGeneration?: number;
    /**
     * Grows with every placement. A node refuses an assignment older than one it has seen.
     */
    epoch?: number;
    /**
     * The nodes that serve the room at this epoch.
     */
    placement?: {
      /**
       * Name of the SfuNode.
       */
      node: string;
      /**
       * Region of the node when it was chosen.
       */
      region?: string;
      /**
       * Hub: others link to it. Edge: serves participants. Relay: passes streams on. Standby: kept warm.
       */
      role: 'Hub' | 'Edge' | 'Relay' | 'Standby';
    }[];
    /**
     * First node of the placement: for field selectors.
     */
    primaryNode?: string;
    /**
     * Node names of the placement, for kubectl get.
     */
    nodes?: string;
    /**
     * Regions of the placement, for kubectl get.
     */
    regions?: string;
    /**
     * How the nodes are linked, and why so.
     */
    topology?: {
      /**
       * Mesh: each to each. HubAndSpoke: all to one hub. Hybrid: a hub a region, and the hubs to each other.
       */
      kind: 'SingleNode' | 'Mesh' | 'HubAndSpoke' | 'Hybrid';
      /**
       * CamelCase reason for programs.
       */
      reason: string;
      /**
       * Reason for people.
       */
      message: string;
    };
    /**
     * Cascade links between the nodes of the placement.
     */
    links?: {
      /**
       * Node that opened the link.
       */
      from: string;
      /**
       * Node at the other end.
       */
      to: string;
      /**
       * State as both ends see it.
       */
      state?: 'Opening' | 'Up' | 'Degraded' | 'Down';
      /**
       * Round trip time in milliseconds.
       */
      rttMillis?: number;
      /**
       * Packets lost, in percent.
       */
      lossPercent?: number;
      /**
       * Bit rate over the link in kilobits a second.
       */
      kbps?: number;
    }[];
    /**
     * Where streams go another way than by the fewest links: those of source reach node from via. Empty while all go the usual way.
     */
    detours?: {
      /**
       * Node that the streams are published on.
       */
      source: string;
      /**
       * Node that they go to.
       */
      node: string;
      /**
       * Its neighbour that they come from.
       */
      via: string;
    }[];
    /**
     * Participants in the room; at most a few seconds old.
     */
    participants?: number;
    /**
     * Published plus subscribed tracks; at most a few seconds old.
     */
    streams?: number;
    /**
     * WebSocket URL that clients connect to.
     */
    url?: string;
    /**
     * Ready sums up; Scheduled: nodes were chosen; Migrating: a move is under way; Degraded: served with less than asked for.
     */
    conditions?: {
      /**
       * Name of the condition.
       */
      type: string;
      /**
       * Whether it holds.
       */
      status: 'True' | 'False' | 'Unknown';
      /**
       * metadata.generation it speaks of.
       */
      observedGeneration?: number;
      /**
       * When status last changed.
       */
      lastTransitionTime: string;
      /**
       * CamelCase reason for programs.
       */
      reason: string;
      /**
       * Reason for people, with what to do.
       */
      message: string;
    }[];
  };
}
