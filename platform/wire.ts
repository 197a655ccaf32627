/** Placements between the words of decisions (core) and those of the wire (proto). */
import type { PlacedNode, Role as RoleName } from '#core/model.ts';
import { Role, type PlacedNode as WirePlacedNode } from '#proto/weir/control/v1/control.ts';

const roles: Record<RoleName, Role> = { Hub: Role.HUB, Edge: Role.EDGE, Relay: Role.RELAY, Standby: Role.STANDBY };
const names = new Map(Object.entries(roles).map(([name, role]) => [role, name as RoleName]));

export function roleToWire(role: RoleName): Role {
  return roles[role];
}

export function nodesToWire(nodes: readonly PlacedNode[]): WirePlacedNode[] {
  return nodes.map(({ node, region, role }) => ({ node, region, role: roles[role] }));
}

/** A role that is not known here, of a newer version's message, counts as Edge. */
export function nodesFromWire(nodes: readonly WirePlacedNode[]): PlacedNode[] {
  return nodes.map(({ node, region, role }) => ({ node, region, role: names.get(role) ?? 'Edge' }));
}
