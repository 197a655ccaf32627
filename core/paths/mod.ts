/** Which way streams go between nodes. Pure. */
export {
  cheapestPaths,
  chooseTree,
  defaultTree,
  linkCost,
  switchBelow,
  weights,
  type Path,
  type PathLink,
  type Tree,
} from './paths.ts';
