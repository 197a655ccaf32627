/** Where rooms go. Everything here is a pure function of what it is given. */
export { nearestNodes, place, servingNodes, type Chosen, type Refusal } from './choose.ts';
export { violationOf, type Violation } from './feasibility.ts';
export { FleetIndex } from './fleet-index.ts';
export { hysteresis, score, usedShare, weights } from './score.ts';
export {
  choicesOf,
  isMet,
  maxNodes,
  span,
  type Choices,
  type Demand,
  type DemandAnswer,
  type SpanRequest,
} from './span.ts';
