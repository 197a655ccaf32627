/** The nodes of a room, their links and the ways of its streams as one whole. Pure. */
export { design, isTorn, type LinkHealth, type LinkState, type Network, type NetworkRequest } from './network.ts';
export { detoursOf, treesOf, type Detour, type Trees } from './detours.ts';
