/** How the nodes of a room are linked. Pure. */
export { bridges, pairKey, pairOf, partsOf } from './parts.ts';
export {
  meshLimit,
  shape,
  type LinkPair,
  type Member,
  type Topology,
  type TopologyKind,
  type WantedTopology,
} from './topology.ts';
