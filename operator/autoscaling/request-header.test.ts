import assert from 'node:assert/strict';
import { test } from 'node:test';
import { frontProxyUser, requestHeaderRules, type RequestHeaderRules } from './request-header.ts';

const data = {
  'client-ca-file': 'PEM of clients',
  'requestheader-client-ca-file': 'PEM',
  'requestheader-allowed-names': '["front-proxy-client"]',
  'requestheader-username-headers': '["X-Remote-User"]',
  'requestheader-group-headers': '["X-Remote-Group"]',
  'requestheader-extra-headers-prefix': '["X-Remote-Extra-"]',
};

function rules(more: Record<string, string> = {}): RequestHeaderRules {
  const read = requestHeaderRules({ ...data, ...more });
  assert.ok(typeof read !== 'string');
  return read;
}

function problem(map: Record<string, string> | undefined): string {
  const read = requestHeaderRules(map);
  assert.ok(typeof read === 'string');
  return read;
}

const alice = { 'x-remote-user': ['alice'], 'x-remote-group': ['dev', 'ops'] };

test('the user and groups are those that the front proxy names, and everybody is authenticated', () => {
  assert.deepEqual(frontProxyUser(rules(), 'front-proxy-client', alice), {
    username: 'alice',
    uid: undefined,
    groups: ['dev', 'ops', 'system:authenticated'],
    extra: {},
  });
});

test('who is anonymous stays so', () => {
  const headers = { 'x-remote-user': ['system:anonymous'], 'x-remote-group': ['system:unauthenticated'] };
  assert.deepEqual(frontProxyUser(rules(), 'front-proxy-client', headers)?.groups, ['system:unauthenticated']);
});

test('uid and further attributes are taken', () => {
  const headers = { ...alice, 'x-remote-uid': ['7'], 'x-remote-extra-acme.com%2fteam': ['a', 'b'] };
  const user = frontProxyUser(
    rules({ 'requestheader-uid-headers': '["X-Remote-Uid"]' }),
    'front-proxy-client',
    headers,
  );
  assert.equal(user?.uid, '7');
  assert.deepEqual(user.extra, { 'acme.com/team': ['a', 'b'] });
});

for (const { says, name = 'front-proxy-client', headers = alice, more = {}, believed } of [
  { says: 'a certificate of another name is not believed', name: 'kubelet', believed: false },
  { says: 'a certificate without a name is not believed', name: '', believed: false },
  {
    says: 'any name is believed when none is listed',
    name: 'x',
    more: { 'requestheader-allowed-names': '[]' },
    believed: true,
  },
  { says: 'null lists no name', name: 'x', more: { 'requestheader-allowed-names': 'null' }, believed: true },
  { says: 'nobody is named', headers: {}, believed: false },
  { says: 'an empty name is nobody', headers: { 'x-remote-user': [''] }, believed: false },
  {
    says: 'headers that are not listed name nobody',
    more: { 'requestheader-username-headers': '["X-Other"]' },
    believed: false,
  },
] as {
  says: string;
  name?: string;
  headers?: Record<string, string[]>;
  more?: Record<string, string>;
  believed: boolean;
}[]) {
  test(says, () => assert.equal(frontProxyUser(rules(more), name, headers) !== undefined, believed));
}

test('a map without an authority, or that cannot be read, says what is wrong', () => {
  for (const without of [undefined, {}, { ...data, 'requestheader-client-ca-file': '' }]) {
    assert.match(problem(without), /--requestheader-client-ca-file/);
  }
  for (const wrong of ['no JSON', '{"a":1}', '[1]']) {
    assert.match(problem({ ...data, 'requestheader-allowed-names': wrong }), /cannot be read/);
  }
});
