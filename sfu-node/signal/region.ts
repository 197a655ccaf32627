import type { IncomingHttpHeaders } from 'node:http';
import type { Claims } from './claims.ts';

/** Token attribute that says where its bearer is. */
export const regionAttribute = 'weir.dev/region';

const dnsLabel = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/**
 * Where a client is: the region in its token, else the one in the header that the ingress sets, else that of the node it
 * reached. What is no region's name is ignored.
 */
export function clientRegion(
  { attributes }: Pick<Claims, 'attributes'>,
  headers: IncomingHttpHeaders,
  headerName: string,
  nodeRegion: string,
): string {
  const told = [attributes[regionAttribute], headers[headerName]];
  return told.find((value) => typeof value === 'string' && dnsLabel.test(value))?.toString() ?? nodeRegion;
}
