import { Track, type Participant, type Room, type TrackPublication } from 'livekit-client';

/** Which node and region serve a participant, in words, and the name of the region's colour. */
export interface ServedAt {
  place: string;
  hue: string;
}

/** Elements of one participant's tile, and the tracks that are attached to them. */
interface Tile {
  root: HTMLElement;
  video: HTMLVideoElement;
  audio: HTMLAudioElement;
  avatar: HTMLElement;
  name: HTMLElement;
  muted: HTMLElement;
  node: HTMLElement;
  attached: Map<HTMLMediaElement, Track>;
}

function element(tag: string, className: string): HTMLElement {
  const made = document.createElement(tag);
  made.className = className;
  return made;
}

function createTile(container: HTMLElement): Tile {
  const root = element('article', 'tile');
  const video = document.createElement('video');
  video.autoplay = true;
  video.playsInline = true;
  // Sound comes by the audio element; a video element with sound might not be allowed to play.
  video.muted = true;
  const audio = document.createElement('audio');
  audio.autoplay = true;
  const [avatar, caption] = [element('div', 'avatar'), element('div', 'caption')];
  const [name, muted, node] = [element('span', 'name'), element('span', 'muted'), element('span', 'node')];
  muted.textContent = 'muted';
  caption.append(name, muted, node);
  root.append(avatar, video, audio, caption);
  container.append(root);
  return { root, video, audio, avatar, name, muted, node, attached: new Map() };
}

/** Attaches what the publication carries now, and detaches what it carried before. */
function show(tile: Tile, media: HTMLMediaElement, publication: TrackPublication | undefined): boolean {
  const wanted = publication && !publication.isMuted ? publication.track : undefined;
  const current = tile.attached.get(media);
  if (current !== wanted) {
    current?.detach(media);
    tile.attached.delete(media);
    if (wanted) {
      wanted.attach(media);
      tile.attached.set(media, wanted);
    }
  }
  return wanted !== undefined;
}

/** Pixels between tiles; the same as `gap` in page.css. */
const gap = 12;

/** The largest size, between 16:9 and 4:3, at which `count` tiles fit into a box. */
function largestTile(count: number, boxWidth: number, boxHeight: number): { width: number; height: number } {
  let best = { width: 0, height: 0 };
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const room = { width: (boxWidth - gap * (columns - 1)) / columns, height: (boxHeight - gap * (rows - 1)) / rows };
    const width = Math.floor(Math.min(room.width, (room.height * 16) / 9));
    const height = Math.floor(Math.min(room.height, (width * 3) / 4));
    if (width * height > best.width * best.height) best = { width, height };
  }
  return best;
}

/** The grid of participants. `render` may be called as often as anything changes. */
export class Tiles {
  readonly #container: HTMLElement;
  readonly #tiles = new Map<string, Tile>();

  constructor(container: HTMLElement) {
    this.#container = container;
    new ResizeObserver(() => this.#layOut()).observe(container);
  }

  /** Makes the grid what the room is; where each participant is served stands in their tile's corner. */
  render(room: Room, servedAt: (participant: Participant) => ServedAt): void {
    const participants: Participant[] = [room.localParticipant, ...room.remoteParticipants.values()];
    const present = new Set(participants.map((participant) => participant.identity));
    for (const [identity, tile] of this.#tiles) {
      if (present.has(identity)) continue;
      for (const [media, track] of tile.attached) track.detach(media);
      tile.root.remove();
      this.#tiles.delete(identity);
    }
    for (const participant of participants) {
      if (participant.identity === '') continue;
      let tile = this.#tiles.get(participant.identity);
      if (!tile) this.#tiles.set(participant.identity, (tile = createTile(this.#container)));
      this.#update(tile, participant, servedAt(participant));
    }
    this.#layOut();
  }

  /** Removes every tile. */
  clear(): void {
    for (const tile of this.#tiles.values()) {
      for (const [media, track] of tile.attached) track.detach(media);
      tile.root.remove();
    }
    this.#tiles.clear();
  }

  #layOut(): void {
    const { width, height } = largestTile(this.#tiles.size, this.#container.clientWidth, this.#container.clientHeight);
    this.#container.style.setProperty('--tile-width', `${width}px`);
    this.#container.style.setProperty('--tile-height', `${height}px`);
  }

  #update(tile: Tile, participant: Participant, { place, hue }: ServedAt): void {
    const name = participant.name ?? participant.identity;
    const label = name === '' ? participant.identity : name;
    tile.root.dataset['identity'] = participant.identity;
    tile.root.classList.toggle('local', participant.isLocal);
    tile.root.classList.toggle('speaking', participant.isSpeaking);
    tile.name.textContent = participant.isLocal ? `${label} (you)` : label;
    tile.avatar.textContent = label.slice(0, 1).toUpperCase();
    tile.muted.hidden = participant.isMicrophoneEnabled;
    tile.node.textContent = place;
    tile.node.dataset['hue'] = hue;
    tile.node.hidden = place === '';
    const hasVideo = show(tile, tile.video, participant.getTrackPublication(Track.Source.Camera));
    tile.video.hidden = !hasVideo;
    tile.avatar.hidden = hasVideo;
    // Nobody wants to hear themselves.
    if (!participant.isLocal) show(tile, tile.audio, participant.getTrackPublication(Track.Source.Microphone));
  }
}
