import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { codeOf, messageOf } from '#platform/errors.ts';
import { LocalControlPlane } from '#tools/local/control-plane.ts';
import { temporaryDirectory } from '#tools/local/temporary.ts';

const dir = temporaryDirectory('room-rules');
let plane: LocalControlPlane;
let files = 0;

before(async () => {
  plane = await LocalControlPlane.start({ dir: join(dir, 'kube') });
});

after(async () => {
  await plane?.stop();
});

async function apply(kind: 'Room' | 'SfuNode', name: string, spec: unknown): Promise<string> {
  const file = join(dir, `${++files}.json`);
  const object = { apiVersion: 'weir.dev/v1alpha1', kind, metadata: { name, namespace: 'default' }, spec };
  await writeFile(file, JSON.stringify(object));
  return plane.kubectl.run('apply', '--server-side', '-f', file);
}

/** What the API server says to an object that it refuses. */
async function refusal(kind: 'Room' | 'SfuNode', name: string, spec: unknown): Promise<string> {
  try {
    await apply(kind, name, spec);
  } catch (error) {
    assert.equal(codeOf(error), 'KubectlFailed');
    return messageOf(error);
  }
  return assert.fail(`${kind} ${name} was accepted: ${JSON.stringify(spec)}`);
}

const refused: { says: string; name?: string; spec: unknown; with: RegExp }[] = [
  {
    says: 'a name too long for a room is refused, and where to write a shorter one is told',
    name: `a${'b'.repeat(140)}`,
    spec: {},
    with: /may be at most 128 characters; write a shorter name in spec\.roomName/,
  },
  {
    says: 'a warm standby needs a second node',
    spec: { topology: 'SingleNode', failover: { standby: 'Warm' } },
    with: /failover\.standby Warm cannot work; write topology: Auto, or failover\.standby: None/,
  },
  {
    says: 'one node serves one region',
    spec: { topology: 'SingleNode', regions: ['eu-west', 'us-east'] },
    with: /SingleNode serves one region; write one entry in regions, or topology: Auto/,
  },
  {
    says: 'an audio room offers no video codec',
    spec: { media: { audioOnly: true, codecs: ['opus', 'vp8'] } },
    with: /write media\.codecs: \[opus\], or media\.audioOnly: false/,
  },
  {
    says: 'a codec that Weir does not serve is refused with those that it does',
    spec: { media: { codecs: ['mp3'] } },
    with: /Unsupported value: "mp3".*"opus", "vp8", "h264", "vp9", "av1"/s,
  },
  {
    says: 'a region is a DNS label',
    spec: { regions: ['EU West'] },
    with: /spec\.regions\[0\]/,
  },
  {
    says: 'a region is wanted once',
    spec: { regions: ['eu-west', 'eu-west'] },
    with: /spec\.regions\[1\]|duplicate/i,
  },
  {
    says: 'a room has no negative number of participants',
    spec: { maxParticipants: -1 },
    with: /spec\.maxParticipants.*greater than or equal to 0/s,
  },
  {
    says: 'a field that there is not is refused by its name',
    spec: { participants: 3 },
    with: /\.spec\.participants/,
  },
];

for (const { says, name = 'refused', spec, with: words } of refused) {
  test(says, async () => {
    assert.match(await refusal('Room', name, spec), words);
  });
}

test('a room keeps the name that clients hold tokens for', async () => {
  await apply('Room', 'renamed', { roomName: 'daily' });
  assert.match(await refusal('Room', 'renamed', { roomName: 'weekly' }), /roomName cannot be changed/);
  const patch = ['patch', 'room', 'renamed', '--type=json', '-p', '[{"op":"remove","path":"/spec/roomName"}]'];
  await assert.rejects(plane.kubectl.run(...patch), /roomName cannot be removed once set/);
  const kept = await plane.kubectl.json<{ spec: { roomName: string } }>('get', 'room', 'renamed');
  assert.equal(kept.spec.roomName, 'daily');
});

test('a long object name is fine when the room has a shorter one', async () => {
  const name = `c${'d'.repeat(140)}`;
  await apply('Room', name, { roomName: 'short' });
  await plane.kubectl.run('delete', 'room', name);
});

test('what a Room leaves out gets its default', async () => {
  await apply('Room', 'defaults', {});
  const { spec } = await plane.kubectl.json<{ spec: Record<string, unknown> }>('get', 'room', 'defaults');
  assert.deepEqual(spec, {
    departureTimeoutSeconds: 20,
    emptyTimeoutSeconds: 300,
    expectedStreams: 0,
    maxParticipants: 0,
    topology: 'Auto',
  });
});

test('rooms and nodes are found by their short names and their category', async () => {
  await apply('Room', 'found', {});
  await apply('SfuNode', 'found', { region: 'eu-west' });
  assert.match(await plane.kubectl.run('get', 'wroom', 'found'), /found/);
  assert.match(await plane.kubectl.run('get', 'sfun', 'found'), /eu-west/);
  const all = await plane.kubectl.run('get', 'weir');
  assert.match(all, /room\.weir\.dev\/found/);
  assert.match(all, /sfunode\.weir\.dev\/found/);
});

test('an SfuNode without capacity to give is refused', async () => {
  assert.match(await refusal('SfuNode', 'empty', { capacity: { streams: 0 } }), /spec\.capacity\.streams/);
});
