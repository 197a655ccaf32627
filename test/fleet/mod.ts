/** The harness of integration tests, end-to-end tests and benchmarks. */
export { eventually } from '#tools/local/eventually.ts';
export {
  Fleet,
  type FleetNode,
  type FleetNodeOptions,
  type FleetOperator,
  type FleetOptions,
} from '#tools/local/fleet.ts';
export { LocalControlPlane } from '#tools/local/control-plane.ts';
export { LocalNats } from '#tools/local/nats.ts';
export { temporaryDirectory } from '#tools/local/temporary.ts';
export { FarAway } from './far-away.ts';
export { ImpairedLinks, loopbackPair, type ImpairedLinksOptions, type LinkedNode } from './impaired-link.ts';
export { type Impairment } from './impairment.ts';
export { namespaceProblem, NetworkNamespace } from './namespace.ts';
export { createToken, type TokenOptions } from './token.ts';
