import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import {
  AddTrackRequest,
  DisconnectReason,
  LeaveRequest_Action,
  MuteTrackRequest,
  RequestResponse_Reason,
  SessionDescription,
  SignalRequest,
  TrackSource,
  TrackType,
  UpdateParticipantMetadata,
  UpdateSubscription,
  UpdateTrackSettings,
  SignalResponse,
  type ParticipantInfo,
} from '@livekit/protocol';
import { Registry } from 'prom-client';
import { codeOf } from '#platform/errors.ts';
import { systemClock } from '#platform/clock.ts';
import { createLogger } from '#platform/log.ts';
import { Role, type Assignment } from '#proto/weir/control/v1/control.ts';
import { Cascade } from '#sfu-node/cascade/cascade.ts';
import { Feeds } from '#sfu-node/cascade/feed/feeds.ts';
import { NatsLink } from '#sfu-node/coordination/nats-link.ts';
import { RoomHost, type RoomHostOptions } from '#sfu-node/media/room-host.ts';
import type { RoomChange } from '#sfu-node/media/rooms.ts';
import { createNodeMetrics } from '#sfu-node/metrics.ts';
import type { SignalChannel, SignalHandlers } from '#sfu-node/signal/channel.ts';
import type { Claims, JoinIntent } from '#sfu-node/signal/claims.ts';
import { eventually } from '#test/fleet/mod.ts';

/** Rooms on a real mediasoup worker, spoken to as a client would, message by message. */
let host: RoomHost;
const registry = new Registry();
const metrics = createNodeMetrics(registry);
let ids = 0;
/** Of a NATS that is not there: a room on one node does without. */
let nats: NatsLink;

const log = createLogger({ name: 'test', level: 'silent' });

function createHost(more: Partial<RoomHostOptions> = {}): Promise<RoomHost> {
  const common = { node: 'test', clock: systemClock, log, metrics: createNodeMetrics(new Registry()), ...more };
  return RoomHost.create({
    ...common,
    region: 'eu-west',
    version: '0.0.0',
    workerCount: 1,
    addresses: [{ ip: '127.0.0.1' }],
    iceServers: () => [],
    freshToken: ({ claims, info }) => Promise.resolve(`fresh token of ${claims.identity} ${info.metadata}`),
    portBase: 0,
    streamsPerWorker: 500,
    linkListen: { ip: '127.0.0.1', capacityMbps: 1000 },
    cascade: Cascade.create({ ...common, instance: 'test', nats }),
    feeds: Feeds.create({ ...common, nats }),
    newId: (prefix) => `${prefix}${(ids += 1)}`,
  });
}

before(async () => {
  nats = NatsLink.create({ url: 'nats://127.0.0.1:1', name: 'test', clock: systemClock, log });
  host = await createHost({ metrics });
});

after(async () => {
  await host?.close();
  await nats?.close();
});

/** A client at the other end of a signalling channel. */
class Client implements SignalChannel {
  readonly holder = 'test';
  readonly received: SignalResponse['message'][] = [];
  closed: { code: number; reason: string } | undefined;
  #handlers: SignalHandlers | undefined;

  send(message: SignalResponse): void {
    if (!this.closed) this.received.push(message.message);
  }

  sendEncoded(bytes: Uint8Array): void {
    this.send(SignalResponse.fromBinary(bytes));
  }

  close(code: number, reason: string): void {
    if (this.closed) return;
    this.closed = { code, reason };
    this.#handlers?.close(code, reason);
  }

  start(handlers: SignalHandlers): void {
    this.#handlers = handlers;
  }

  /** Sends a request to the room. */
  say(message: SignalRequest['message']): void {
    this.sayBytes(new SignalRequest({ message }).toBinary());
  }

  sayBytes(bytes: Uint8Array): void {
    this.#handlers?.message(bytes);
  }

  /** The client's connection is cut. */
  cut(): void {
    this.#handlers?.close(1006, '');
  }

  last<C extends SignalResponse['message']['case']>(
    name: C,
  ): Extract<SignalResponse['message'], { case: C }>['value'] | undefined {
    return this.received.findLast((message) => message.case === name)?.value as never;
  }

  /** What the room told of a participant, when that is so. */
  told(identity: string, so: (info: ParticipantInfo) => boolean): ParticipantInfo | undefined {
    const infos = this.received.flatMap((message) => (message.case === 'update' ? message.value.participants : []));
    return infos.find((info) => info.identity === identity && so(info));
  }
}

function claims(room: string, identity: string, more: Partial<Claims> = {}): Claims {
  return {
    apiKey: 'key',
    identity,
    name: identity,
    metadata: '',
    attributes: {},
    room,
    canPublish: true,
    canSubscribe: true,
    canPublishData: true,
    canPublishSources: [],
    canUpdateOwnMetadata: true,
    hidden: false,
    roomAdmin: false,
    kind: 'standard',
    mayCreateRoom: false,
    expiresAt: 0,
    session: '',
    ...more,
  };
}

function intent(
  room: string,
  identity: string,
  more: Partial<JoinIntent> = {},
  grants: Partial<Claims> = {},
): JoinIntent {
  return {
    claims: claims(room, identity, grants),
    region: 'eu-west',
    autoSubscribe: true,
    adaptiveStream: false,
    reconnect: false,
    participantSid: '',
    protocol: 16,
    sdk: 'test',
    sdkVersion: '1',
    ...more,
  };
}

function assignment(
  name: string,
  epoch = 1,
  more: Omit<Partial<Assignment>, 'settings'> & { settings?: Partial<NonNullable<Assignment['settings']>> } = {},
): Assignment {
  return {
    room: { uid: `uid-${name}`, namespace: 'default', name, roomName: name },
    epoch,
    generation: 1,
    role: Role.EDGE,
    placement: [{ node: 'test', region: 'eu-west', role: Role.EDGE }],
    links: [],
    routes: [],
    ...more,
    settings: {
      maxParticipants: 0,
      codecs: [],
      maxVideoBitrateKbps: 0,
      audioOnly: false,
      metadata: '',
      emptyTimeoutSeconds: 300,
      departureTimeoutSeconds: 20,
      ...more.settings,
    },
  };
}

async function join(room: string, identity: string, grants: Partial<Claims> = {}): Promise<Client> {
  const client = new Client();
  await host.join(room, intent(room, identity, {}, grants), client);
  return client;
}

async function violations(code: string): Promise<number> {
  const { values } = await metrics.violations.get();
  return values.find(({ labels }) => labels.code === code)?.value ?? 0;
}

const breaches: { says: string; code: string; act: (client: Client) => void }[] = [
  {
    says: 'bytes that are no protobuf',
    code: 'MalformedMessage',
    act: (client) => client.sayBytes(new Uint8Array([0xff, 0xff, 0xff, 0x07])),
  },
  { says: 'a message without a request', code: 'EmptyMessage', act: (client) => client.sayBytes(new Uint8Array()) },
  {
    says: 'a mute of a track that it does not publish',
    code: 'UnknownTrack',
    act: (client) => client.say({ case: 'mute', value: new MuteTrackRequest({ sid: 'TR_none', muted: true }) }),
  },
  {
    says: 'a subscription to a track that never was',
    code: 'UnknownTrack',
    act: (client) =>
      client.say({ case: 'subscription', value: new UpdateSubscription({ trackSids: ['TR_none'], subscribe: true }) }),
  },
  {
    says: 'settings of a track that never was',
    code: 'UnknownTrack',
    act: (client) => client.say({ case: 'trackSetting', value: new UpdateTrackSettings({ trackSids: ['TR_none'] }) }),
  },
  {
    says: 'an offer that is no SDP',
    code: 'InvalidSdp',
    act: (client) =>
      client.say({ case: 'offer', value: new SessionDescription({ type: 'offer', sdp: 'v=0\r\nnonsense', id: 1 }) }),
  },
  {
    says: 'an offer without a fingerprint',
    code: 'InvalidSdp',
    act: (client) =>
      client.say({
        case: 'offer',
        value: new SessionDescription({
          type: 'offer',
          sdp: 'v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sctp-port:5000\r\n',
          id: 1,
        }),
      }),
  },
  {
    says: 'an answer with a kind of fingerprint that mediasoup refuses',
    code: 'InvalidSdp',
    act: (client) =>
      client.say({
        case: 'answer',
        value: new SessionDescription({
          type: 'answer',
          sdp: 'v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-999 00:11\r\na=setup:active\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:datachannel\r\na=sctp-port:5000\r\n',
          id: 1,
        }),
      }),
  },
];

for (const { says, code, act } of breaches) {
  test(`a client that sends ${says} is told to leave, closed and counted, and nobody else notices`, async () => {
    await host.apply(assignment('breach'));
    const [bad, good] = [await join('breach', 'bad'), await join('breach', 'good')];
    const before = await violations(code);
    act(bad);
    await eventually(() => bad.closed, { what: 'the client to be closed' });
    const leave = bad.last('leave');
    assert.equal(leave?.action, LeaveRequest_Action.DISCONNECT);
    assert.match(bad.closed?.reason ?? '', new RegExp(`^${code}: `));
    assert.equal(await violations(code), before + 1);
    assert.equal(good.closed, undefined);
    good.say({ case: 'ping', value: 1n });
    assert.ok(good.last('pong'));
    assert.equal(host.describe().find(({ room }) => room?.name === 'breach')?.participants, 1);
    good.say({ case: 'leave', value: {} as never });
  });
}

test('a publish beyond the grant is refused with words, and the client stays', async () => {
  await host.apply(assignment('grants', 1, {}));
  const listener = await join('grants', 'listener', { canPublish: false });
  const speaker = await join('grants', 'speaker', { canPublishSources: ['microphone'] });
  const camera = new AddTrackRequest({ cid: 'c', type: TrackType.VIDEO, source: TrackSource.CAMERA });
  const microphone = new AddTrackRequest({ cid: 'm', type: TrackType.AUDIO, source: TrackSource.MICROPHONE });
  listener.say({ case: 'addTrack', value: microphone });
  speaker.say({ case: 'addTrack', value: camera });
  for (const client of [listener, speaker]) {
    assert.equal(client.last('requestResponse')?.reason, RequestResponse_Reason.NOT_ALLOWED);
    assert.match(client.last('requestResponse')?.message ?? '', /token/);
    assert.equal(client.closed, undefined);
  }
  speaker.say({ case: 'addTrack', value: microphone });
  assert.equal(speaker.last('trackPublished')?.cid, 'm');
  assert.match(speaker.last('trackPublished')?.track?.sid ?? '', /^TR_AM/);
});

test('an audio-only room refuses video', async () => {
  await host.apply(assignment('radio', 1, { settings: { audioOnly: true } }));
  const client = await join('radio', 'ada');
  assert.deepEqual(
    client.last('join')?.enabledPublishCodecs.map(({ mime }) => mime),
    ['audio/opus'],
  );
  client.say({
    case: 'addTrack',
    value: new AddTrackRequest({ cid: 'c', type: TrackType.VIDEO, source: TrackSource.CAMERA }),
  });
  assert.match(client.last('requestResponse')?.message ?? '', /audio only/);
});

test('participants are told of one another, of changes and of leaving', async () => {
  await host.apply(assignment('news', 1, { settings: { metadata: 'hello' } }));
  const ada = await join('news', 'ada');
  const hidden = await join('news', 'ghost', { hidden: true });
  const bob = await join('news', 'bob');
  assert.equal(ada.last('join')?.room?.metadata, 'hello');
  assert.deepEqual(
    bob.last('join')?.otherParticipants.map(({ identity }) => identity),
    ['ada'],
    'hidden participants are not listed',
  );
  assert.ok(hidden.last('join'));
  bob.say({
    case: 'updateMetadata',
    value: new UpdateParticipantMetadata({ metadata: 'm', name: 'Bob', attributes: { a: '1' }, requestId: 7 }),
  });
  const seen = await eventually(() => ada.told('bob', ({ name }) => name === 'Bob'), { what: 'the change' });
  assert.deepEqual([seen.metadata, seen.attributes], ['m', { a: '1' }]);
  assert.deepEqual(
    [bob.last('requestResponse')?.requestId, bob.last('requestResponse')?.reason],
    [7, RequestResponse_Reason.OK],
  );
  bob.say({ case: 'leave', value: {} as never });
  await eventually(
    () => ada.told('bob', ({ disconnectReason }) => disconnectReason === DisconnectReason.CLIENT_INITIATED),
    { what: 'the leaving' },
  );
});

test('a client gets a token to come back with, and another one when it changed itself', async () => {
  await host.apply(assignment('tokens'));
  const ada = await join('tokens', 'ada');
  await eventually(() => ada.last('refreshToken') === 'fresh token of ada ', { what: 'a token' });
  ada.say({ case: 'updateMetadata', value: new UpdateParticipantMetadata({ metadata: 'm' }) });
  await eventually(() => ada.last('refreshToken') === 'fresh token of ada m', { what: 'another token' });
});

test('livekit-client that comes back is offered tracks when its own are there, everybody else at once', async () => {
  await host.apply(assignment('back'));
  const track = (cid: string) => new AddTrackRequest({ cid, type: TrackType.AUDIO, source: TrackSource.MICROPHONE });
  const backAs = async (identity: string, sdk: string) => {
    const client = new Client();
    await host.join('back', intent('back', identity, { sdk }, { session: 'PA_before' }), client);
    return client;
  };
  const ada = await backAs('ada', 'js');
  ada.say({ case: 'addTrack', value: track('mic') });
  const others = [await backAs('bob', 'node'), await join('back', 'cyd')];
  await eventually(() => others.every((client) => client.last('offer')), { what: 'offers to the others' });
  assert.equal(ada.last('offer'), undefined);
  // What it announced never comes, as when somebody takes back the camera: the wait ends all the same.
  await eventually(() => ada.last('offer'), { timeoutMs: 20_000, what: 'an offer to who comes back' });
});

test('a room with its participants complete refuses one more', async () => {
  await host.apply(assignment('full', 1, { settings: { maxParticipants: 1 } }));
  await join('full', 'ada');
  const late = new Client();
  await assert.rejects(host.join('full', intent('full', 'bob'), late), (error) => codeOf(error) === 'RoomFull');
  assert.equal(late.last('leave')?.reason, DisconnectReason.JOIN_FAILURE);
  assert.match(late.closed?.reason ?? '', /RoomFull/);
});

test('a client whose signalling is lost before it has media is gone; what it would resume elsewhere is a full join', async () => {
  await host.apply(assignment('lost'));
  const ada = await join('lost', 'ada');
  const bob = await join('lost', 'bob');
  ada.cut();
  await eventually(
    () => bob.told('ada', ({ disconnectReason }) => disconnectReason === DisconnectReason.SIGNAL_CLOSE),
    { what: 'the leaving' },
  );
  const again = new Client();
  await host.join('lost', intent('lost', 'ada', { reconnect: true, participantSid: 'PA_gone' }), again);
  assert.equal(again.last('leave')?.action, LeaveRequest_Action.RECONNECT);
});

test('a resume takes the place of the channel before it', async () => {
  await host.apply(assignment('resume'));
  const ada = await join('resume', 'ada');
  const again = new Client();
  const participantSid = ada.last('join')?.participant?.sid ?? '';
  await host.join('resume', intent('resume', 'ada', { reconnect: true, participantSid }), again);
  assert.ok(again.last('reconnect'));
  assert.ok(ada.closed);
  await eventually(() => again.last('offer'), { what: 'an offer with fresh ICE parameters' });
  assert.equal(host.describe().find(({ room }) => room?.name === 'resume')?.participants, 1);
});

test('who is about to publish for the first time joins anew instead of a resume, as its offer may be lost', async () => {
  await host.apply(assignment('early'));
  const announce = (client: Client) =>
    client.say({ case: 'addTrack', value: new AddTrackRequest({ cid: 'mic', type: TrackType.AUDIO }) });
  for (const [identity, sdk, act] of [
    ['ada', 'js', announce],
    // It offers before it announces anything.
    ['bob', 'node', () => undefined],
  ] as const) {
    const client = new Client();
    await host.join('early', intent('early', identity, { sdk }), client);
    act(client);
    const again = new Client();
    const participantSid = client.last('join')?.participant?.sid ?? '';
    await host.join('early', intent('early', identity, { sdk, reconnect: true, participantSid }), again);
    assert.equal(again.last('reconnect'), undefined);
    assert.equal(again.last('leave')?.action, LeaveRequest_Action.RECONNECT);
  }
});

test('an assignment of an older epoch is refused, and one of the same changes nothing', async () => {
  const changes: RoomChange[] = [];
  const unwatch = host.watch((change) => changes.push(change));
  await host.apply(assignment('fence', 3));
  const client = await join('fence', 'ada');
  await assert.rejects(
    host.apply(assignment('fence', 2)),
    (error) => codeOf(error) === 'StaleEpoch' && /epoch 3/.test(String(error)),
  );
  assert.equal((await host.apply(assignment('fence', 3))).epoch, 3);
  assert.equal((await host.apply(assignment('fence', 4))).epoch, 4);
  assert.equal(client.closed, undefined, 'clients stay over all of it');
  host.release({ uid: 'uid-fence', namespace: 'default', name: 'fence', roomName: 'fence' }, 3, 'RoomMoved');
  await host.apply(assignment('other'));
  assert.ok(host.find('fence'), 'a release of an older epoch is late');
  host.release({ uid: 'uid-fence', namespace: 'default', name: 'fence', roomName: 'fence' }, 4, 'RoomMoved');
  await eventually(() => changes.some((change) => change.kind === 'released'), { what: 'the release' });
  assert.equal(client.last('leave')?.action, LeaveRequest_Action.RECONNECT);
  await assert.rejects(
    host.apply(assignment('fence', 3)),
    (error) => codeOf(error) === 'StaleEpoch',
    'also after the room was released',
  );
  unwatch();
});

test('a room that is deleted ends its sessions for good', async () => {
  await host.apply(assignment('deleted'));
  const client = await join('deleted', 'ada');
  host.release({ uid: 'uid-deleted', namespace: 'default', name: 'deleted', roomName: 'deleted' }, 1, 'RoomDeleted');
  await eventually(() => client.closed, { what: 'the client to be closed' });
  assert.equal(client.last('leave')?.action, LeaveRequest_Action.DISCONNECT);
  assert.equal(client.last('leave')?.reason, DisconnectReason.ROOM_DELETED);
  await assert.rejects(join('deleted', 'bob'), (error) => codeOf(error) === 'RoomNotServed');
});

test('a draining node keeps its rooms and takes no new one', async () => {
  await host.apply(assignment('kept'));
  host.setDraining(true);
  await assert.rejects(host.apply(assignment('new')), (error) => codeOf(error) === 'NodeDraining');
  assert.equal((await host.apply(assignment('kept', 2))).epoch, 2);
  host.setDraining(false);
});

test('rooms on a worker that dies are made again on its replacement, and their clients come back', async () => {
  await host.apply(assignment('phoenix'));
  const client = await join('phoenix', 'ada');
  const [pid] = host.workerPids;
  assert.ok(pid);
  process.kill(pid, 'SIGKILL');
  await eventually(() => client.closed, { what: 'the client to be sent away' });
  assert.equal(client.last('leave')?.action, LeaveRequest_Action.RECONNECT);
  const again = await join('phoenix', 'ada');
  assert.ok(again.last('join'));
  assert.notEqual(host.workerPids[0], pid);
});

test('a client whose media never comes up is sent through a new join, and leaves', async () => {
  const hasty = await createHost({ mediaDeadlineMs: 300 });
  try {
    await hasty.apply(assignment('hasty'));
    const client = new Client();
    await hasty.join('hasty', intent('hasty', 'ada'), client);
    await eventually(() => client.closed, { what: 'the client to be sent away' });
    const leave = client.last('leave');
    assert.equal(leave?.action, LeaveRequest_Action.RECONNECT);
    assert.equal(leave.reason, DisconnectReason.CONNECTION_TIMEOUT);
    assert.equal(hasty.load().participants, 0);
  } finally {
    await hasty.close();
  }
});
