/* Generated from crds/weir.dev_sfunodes.yaml by `npm run generate`. Do not edit. */
import type { V1ObjectMeta } from '@kubernetes/client-node';

/** Group, version and plural of SfuNode, as API calls name them. */
export const sfunodes = { group: 'weir.dev', version: 'v1alpha1', plural: 'sfunodes', kind: 'SfuNode' } as const;

/**
 * SfuNode is one media server of the fleet. The operator makes it when the node registers over NATS and removes it with the node's pod.
 */
export interface SfuNode {
  metadata: V1ObjectMeta;
  /**
   * weir.dev/v1alpha1
   */
  apiVersion?: string;
  /**
   * SfuNode
   */
  kind?: string;
  /**
   * What an administrator wants of the node.
   */
  spec: {
    /**
     * Region that the node registered with.
     */
    region?: string;
    /**
     * Zone inside the region.
     */
    zone?: string;
    /**
     * true: no new room is placed here; rooms that are here stay.
     */
    unschedulable?: boolean;
    /**
     * true: rooms move to other nodes and no new one comes.
     */
    drain?: boolean;
    /**
     * Upper bounds that an administrator sets; the lower of this and what the node advertises counts.
     */
    capacity?: {
      /**
       * Published plus subscribed tracks.
       */
      streams?: number;
      /**
       * Outgoing megabits a second.
       */
      mbps?: number;
    };
    /**
     * Relative price of running a room here; 100 is ordinary, less is preferred.
     */
    cost?: number;
  };
  /**
   * What was last heard of the node, at most every 5 seconds. Written by the operator alone.
   */
  status?: {
    /**
     * The metadata.generation that this status speaks of.
     */
    observedGeneration?: number;
    /**
     * Identity of the running process; another one after a restart.
     */
    instance?: string;
    /**
     * WebSocket URL of this node.
     */
    url?: string;
    /**
     * host:port of the node's gRPC control service.
     */
    controlAddress?: string;
    /**
     * Addresses announced to clients for media.
     */
    addresses?: string[];
    /**
     * Media workers that are alive.
     */
    workers?: number;
    /**
     * Rooms assigned.
     */
    rooms?: number;
    /**
     * Participants connected.
     */
    participants?: number;
    /**
     * Published plus subscribed tracks.
     */
    streams?: number;
    /**
     * CPU of the node's processes as a share of what it may use, such as 34%.
     */
    cpu?: string;
    /**
     * What the node advertises.
     */
    capacity?: {
      /**
       * Published plus subscribed tracks.
       */
      streams?: number;
      /**
       * Outgoing megabits a second.
       */
      mbps?: number;
    };
    /**
     * Weir version of the node.
     */
    version?: string;
    /**
     * Ready: heartbeats arrive; Draining: rooms are leaving; Overloaded: short of CPU or streams, so that other nodes are preferred; CapacityLowered: it takes fewer streams for now, as it was strained.
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
