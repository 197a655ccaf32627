/** Which way streams go between nodes. Pure. */
export { cheapestPaths, choosePath, linkCost, switchBelow, weights, type Path, type PathLink } from './paths.ts';
