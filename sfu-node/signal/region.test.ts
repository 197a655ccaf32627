import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clientRegion } from './region.ts';

const table: { says: string; attributes?: Record<string, string>; header?: string; region: string }[] = [
  {
    says: 'the token goes first',
    attributes: { 'weir.dev/region': 'ap-south' },
    header: 'us-east',
    region: 'ap-south',
  },
  { says: 'the ingress comes next', header: 'us-east', region: 'us-east' },
  { says: 'else it is where the node is', region: 'eu-west' },
  { says: 'what is no name of a region is ignored', header: 'US East; drop', region: 'eu-west' },
  { says: 'an empty one is ignored', attributes: { 'weir.dev/region': '' }, header: 'us-east', region: 'us-east' },
];

for (const { says, attributes = {}, header, region } of table) {
  test(`of a client's region ${says}`, () => {
    const headers = header === undefined ? {} : { 'x-where': header };
    assert.equal(clientRegion({ attributes }, headers, 'x-where', 'eu-west'), region);
  });
}
