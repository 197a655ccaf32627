import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { codeOf } from '#platform/errors.ts';
import { matches, parseSelector } from './label-selector.ts';

const labels = { app: 'sfu-node', 'topology.kubernetes.io/zone': 'a', empty: '' };

for (const [selector, expected] of [
  ['', true],
  ['app=sfu-node', true],
  ['app==sfu-node', true],
  [' app = sfu-node , topology.kubernetes.io/zone=a', true],
  ['app=operator', false],
  ['app!=operator', true],
  ['app!=sfu-node', false],
  ['missing!=x', true],
  ['missing=x', false],
  ['app in (operator, sfu-node),empty', true],
  ['app in (operator)', false],
  ['app notin (operator,nats)', true],
  ['missing notin (a)', true],
  ['empty=', true],
  ['app', true],
  ['!app', false],
  ['!missing', true],
  ['constructor', false],
] as const) {
  test(`the selector "${selector}" ${expected ? 'selects' : 'leaves out'} the pod`, () => {
    assert.equal(matches(parseSelector(selector), labels), expected);
  });
}

for (const selector of ['=a', 'app=a=b', 'app in a', 'app in (a', 'app in ((a))', 'a b', ',', 'app=sfu node', 'x>1']) {
  test(`"${selector}" is no selector`, () => {
    assert.throws(
      () => parseSelector(selector),
      (error) => codeOf(error) === 'BadRequest',
    );
  });
}

test('any text is a selector or a bad request, and is judged in no time', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 300 }), (text) => {
      try {
        matches(parseSelector(text), labels);
      } catch (error) {
        assert.equal(codeOf(error), 'BadRequest');
      }
    }),
  );
});
