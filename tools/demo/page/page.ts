/** The demo page: one call with camera, microphone and chat, by the unmodified LiveKit SDK. */
import {
  ConnectionState,
  DisconnectReason,
  MediaDeviceFailure,
  Room,
  RoomEvent,
  VideoPresets,
  type Participant,
} from 'livekit-client';
import { placeOf, type RoomState, type Setup } from './room-state.ts';
import { describeRoom, drawStrip } from './strip.ts';
import { Tiles, type ServedAt } from './tiles.ts';

const chatTopic = 'chat';
/** How often the page asks where the room is served, milliseconds. */
const stateEveryMs = 1000;
const icons = {
  microphone: '<rect x="9" y="3" width="6" height="11" rx="3"/><path d="M5 11a7 7 0 0 0 14 0M12 18v3"/>',
  camera: '<rect x="3" y="6" width="12" height="12" rx="3"/><path d="m15 11 6-3v8l-6-3"/>',
  chat: '<path d="M4 5h16v11H10l-4 4v-4H4z"/>',
  leave: '<path d="M3 14c5-5 13-5 18 0l-3 3-3-2v-3c-2-.7-4-.7-6 0v3l-3 2z"/>',
};
const stateText: Record<ConnectionState, string> = {
  [ConnectionState.Disconnected]: 'Not connected',
  [ConnectionState.Connecting]: 'Connecting',
  [ConnectionState.Connected]: 'Connected',
  [ConnectionState.Reconnecting]: 'Reconnecting',
  [ConnectionState.SignalReconnecting]: 'Reconnecting',
};

function byId<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no element "${id}"`);
  return found as T;
}

const lobby = byId('lobby');
const call = byId('call');
const controls = byId('controls');
const joinForm = byId<HTMLFormElement>('join');
const tiles = new Tiles(byId('tiles'));
const room = new Room({
  adaptiveStream: true,
  dynacast: true,
  videoCaptureDefaults: { resolution: VideoPresets.h720.resolution },
});
// For the browser's console, and for tests.
Object.assign(window, { weir: { room } });
const setup = await getJson<Setup>('/setup');
/** Where the room is served, as its status said last. */
let roomState: RoomState | undefined;

async function getJson<T>(path: string): Promise<T> {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(await answer.text());
  return (await answer.json()) as T;
}

function notice(text: string): void {
  const box = byId('notice');
  box.textContent = text;
  box.hidden = text === '';
}

/** Each region has a colour: the first, the second, and so on. */
function hueOf(region: string): string {
  return String(setup.regions.indexOf(region));
}

function servedAt(participant: Participant): ServedAt {
  // Not room.serverInfo: that stays what it was at first when the SDK reconnects through another node.
  const own = participant.isLocal ? room.engine?.latestJoinResponse?.serverInfo : undefined;
  // The SDK has no public getter for the region that is in every participant's info.
  const region = own?.region ?? participant['participantInfo']?.region ?? '';
  return { place: placeOf(roomState, region, own?.nodeId), hue: hueOf(region) };
}

/** Asks where the room is served. */
async function askState(): Promise<void> {
  const query = new URLSearchParams({ room: room.name });
  roomState = (await getJson<RoomState | null>(`/room?${query.toString()}`).catch(() => null)) ?? undefined;
  render();
}

/** Keeps what is shown of the room in step with its status. */
async function followState(): Promise<never> {
  for (;;) {
    if (room.state !== ConnectionState.Disconnected) await askState();
    await new Promise((resolve) => setTimeout(resolve, stateEveryMs));
  }
}

/** Links that open the room once more, from each region. */
function drawElsewhere(): void {
  const links = setup.regions.map((region) => {
    const link = document.createElement('a');
    link.href = `?${new URLSearchParams({ room: room.name, region }).toString()}`;
    link.target = '_blank';
    link.textContent = region;
    link.dataset['hue'] = hueOf(region);
    return link;
  });
  byId('elsewhere').replaceChildren('Open a tab in', ...links);
}

function drawButton(id: string, icon: string, text: string, pressed?: boolean): void {
  const button = byId<HTMLButtonElement>(id);
  button.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true">${icon}</svg><span>${text}</span>`;
  button.setAttribute('aria-label', text);
  if (pressed !== undefined) button.setAttribute('aria-pressed', String(pressed));
}

function render(): void {
  const joined = room.state !== ConnectionState.Disconnected;
  const { localParticipant: me } = room;
  lobby.hidden = joined;
  call.hidden = !joined;
  controls.hidden = !joined;
  const state = byId('state');
  state.textContent = stateText[room.state];
  state.dataset['state'] = room.state;
  byId('room-name').textContent = joined ? room.name : '';
  const { place } = servedAt(me);
  byId('served-by').textContent = `served by ${place}`;
  byId('served-by').hidden = !joined || place === '';
  byId('serving').hidden = !joined || roomState === undefined;
  drawStrip(byId('strip'), roomState, hueOf);
  byId('topology').textContent = describeRoom(roomState);
  byId('topology').title = roomState?.reason ?? '';
  drawButton('microphone', icons.microphone, me.isMicrophoneEnabled ? 'Mute' : 'Unmute', me.isMicrophoneEnabled);
  drawButton('camera', icons.camera, me.isCameraEnabled ? 'Camera off' : 'Camera on', me.isCameraEnabled);
  drawButton('toggle-chat', icons.chat, 'Chat', !byId('chat').hidden);
  drawButton('leave', icons.leave, 'Leave');
  if (joined) tiles.render(room, servedAt);
  else tiles.clear();
}

function addMessage(from: string, text: string): void {
  const item = document.createElement('li');
  const [author, body] = [document.createElement('b'), document.createElement('span')];
  author.textContent = from;
  body.textContent = text;
  item.append(author, body);
  byId('messages').append(item);
  item.scrollIntoView({ block: 'nearest' });
}

/** Why camera or microphone could not be used, and what to do. */
function mediaProblem(error: unknown): string {
  if (!window.isSecureContext) {
    return 'You can see and hear the others, but this browser gives camera and microphone only to https and localhost pages. Open this page on the machine itself (http://localhost), or put https in front of it.';
  }
  const failure = error instanceof Error ? MediaDeviceFailure.getFailure(error) : undefined;
  if (failure === MediaDeviceFailure.PermissionDenied)
    return 'Camera and microphone are blocked for this page; allow them beside the address.';
  if (failure === MediaDeviceFailure.NotFound)
    return 'No camera or microphone was found; you can see and hear the others.';
  if (failure === MediaDeviceFailure.DeviceInUse)
    return 'Another program uses the camera or microphone; close it, then switch them on below.';
  return `Camera or microphone could not be used: ${error instanceof Error ? error.message : String(error)}`;
}

async function join(roomName: string, identity: string, region: string): Promise<void> {
  notice('');
  const query = new URLSearchParams({ room: roomName, identity, region });
  history.replaceState(null, '', `?${query.toString()}`);
  try {
    const { url, token } = await getJson<{ url: string; token: string }>(`/token?${query.toString()}`);
    await room.connect(url, token);
  } catch (error) {
    notice(`The room could not be joined: ${error instanceof Error ? error.message : String(error)}`);
    render();
    return;
  }
  drawElsewhere();
  await askState();
  try {
    await room.localParticipant.enableCameraAndMicrophone();
  } catch (error) {
    notice(mediaProblem(error));
  }
  render();
}

for (const event of [
  RoomEvent.Connected,
  RoomEvent.ConnectionStateChanged,
  RoomEvent.Reconnected,
  RoomEvent.ParticipantConnected,
  RoomEvent.ParticipantDisconnected,
  RoomEvent.ParticipantNameChanged,
  RoomEvent.TrackSubscribed,
  RoomEvent.TrackUnsubscribed,
  RoomEvent.TrackMuted,
  RoomEvent.TrackUnmuted,
  RoomEvent.LocalTrackPublished,
  RoomEvent.LocalTrackUnpublished,
  RoomEvent.ActiveSpeakersChanged,
]) {
  room.on(event, render);
}
room.on(RoomEvent.Disconnected, (reason) => {
  if (reason !== DisconnectReason.CLIENT_INITIATED) {
    notice(
      `The call ended: ${reason === undefined ? 'the connection was lost' : DisconnectReason[reason].toLowerCase().replaceAll('_', ' ')}.`,
    );
  }
  render();
});
room.on(RoomEvent.DataReceived, (payload, participant, _kind, topic) => {
  if (topic === chatTopic)
    addMessage(participant?.name ?? participant?.identity ?? 'server', new TextDecoder().decode(payload));
  byId('chat').hidden = false;
  render();
});
const clickToHear = 'Click anywhere to hear the others.';
room.on(RoomEvent.AudioPlaybackStatusChanged, () => {
  if (room.state === ConnectionState.Connected && !room.canPlaybackAudio) notice(clickToHear);
  else if (byId('notice').textContent === clickToHear) notice('');
});
document.addEventListener('click', () => {
  if (!room.canPlaybackAudio) void room.startAudio();
});

const field = (name: string) => joinForm.elements.namedItem(name) as HTMLInputElement | HTMLSelectElement;
const joinAsAsked = () => join(field('room').value, field('identity').value, field('region').value);
joinForm.addEventListener('submit', (event) => {
  event.preventDefault();
  const button = joinForm.querySelector('button');
  if (button) button.disabled = true;
  void joinAsAsked().finally(() => {
    if (button) button.disabled = false;
  });
});
function onClick(id: string, act: () => Promise<unknown>): void {
  byId(id).addEventListener('click', () => {
    void act()
      .catch((error: unknown) => notice(mediaProblem(error)))
      .finally(render);
  });
}
onClick('microphone', () => room.localParticipant.setMicrophoneEnabled(!room.localParticipant.isMicrophoneEnabled));
onClick('camera', () => room.localParticipant.setCameraEnabled(!room.localParticipant.isCameraEnabled));
onClick('leave', () => room.disconnect());
byId('toggle-chat').addEventListener('click', () => {
  byId('chat').hidden = !byId('chat').hidden;
  render();
});
byId<HTMLFormElement>('say').addEventListener('submit', (event) => {
  event.preventDefault();
  const input = byId<HTMLInputElement>('text');
  const text = input.value.trim();
  if (text === '') return;
  input.value = '';
  addMessage('you', text);
  room.localParticipant
    .publishData(new TextEncoder().encode(text), { reliable: true, topic: chatTopic })
    .catch((error: unknown) => notice(`The message was not sent: ${String(error)}`));
});
for (const id of ['microphone', 'camera']) byId(id).classList.add('device');

const query = new URLSearchParams(location.search);
field('room').value = query.get('room') ?? setup.room;
field('region').append(...setup.regions.map((region) => new Option(region)));
const wantedRegion = query.get('region');
if (wantedRegion !== null && setup.regions.includes(wantedRegion)) field('region').value = wantedRegion;
field('identity').value = query.get('identity') ?? `guest-${Math.floor(Math.random() * 900 + 100)}`;
if (!window.isSecureContext) notice(mediaProblem(undefined));
render();
void followState();
if (query.get('join') === '1') void joinAsAsked();
