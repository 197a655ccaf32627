/** Which addresses a cluster has. Plain arithmetic: nothing is looked up or set here. */

export type IpFamily = 'IPv4' | 'IPv6';

/** A machine's place in the network, in one family of addresses. */
export interface Place {
  family: IpFamily;
  /** The machine's own address. */
  address: string;
  /** Another one, by which the world outside would know it. */
  externalAddress: string;
  /** Bits that all machines have in common. */
  prefixLength: number;
  /** Subnet of its pods, CIDR. */
  podSubnet: string;
}

/** The addresses of a cluster in one family. */
export interface Subnets {
  family: IpFamily;
  /** This machine's own address in the cluster's network, where the control plane is. */
  host: string;
  prefixLength: number;
  /** CIDR of all machines. */
  machines: string;
  /** CIDR of all pods. */
  pods: string;
  /** Everything, CIDR. */
  everywhere: string;
  /** The place of the machine of this number, from 1 to 99. */
  place: (number: number) => Place;
}

/** CIDRs of Services. They are the same in all clusters: nobody but its own machines can reach them. */
export const serviceSubnets: Record<IpFamily, string> = { IPv4: '10.96.0.0/16', IPv6: 'fd88:3::/112' };

/** @param slot tells clusters on one machine apart: 0 to 15 */
export function subnetsOf(family: IpFamily, slot: number): Subnets {
  const isV4 = family === 'IPv4';
  // No part of these is 0, so that they stand everywhere as they are written here.
  const part = (slot + 1).toString(16);
  const machine = (index: number) => (isV4 ? `10.88.${slot}.${index}` : `fd88:1:1:${part}::${index}`);
  const prefixLength = isV4 ? 24 : 64;
  return {
    family,
    host: machine(1),
    prefixLength,
    machines: isV4 ? `10.88.${slot}.0/24` : `fd88:1:1:${part}::/64`,
    pods: isV4 ? `10.${112 + slot}.0.0/16` : `fd88:2:${part}::/48`,
    everywhere: isV4 ? '0.0.0.0/0' : '::/0',
    place: (number) => ({
      family,
      address: machine(10 + number),
      externalAddress: machine(110 + number),
      prefixLength,
      podSubnet: isV4 ? `10.${112 + slot}.${number}.0/24` : `fd88:2:${part}:${number}::/64`,
    }),
  };
}
