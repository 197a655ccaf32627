/** What the page offers to tests: plain data and calls, so that both sides of the browser can name it. */
import type { MediaReceived } from '../media-gaps.ts';

export type Source = 'camera' | 'microphone' | 'screen_share' | 'screen_share_audio';

/** What is received of a track: zeroes while nothing is. */
export interface Received {
  framesDecoded: number;
  frameWidth: number;
  frameHeight: number;
  packetsReceived: number;
  bytesReceived: number;
  /** Energy of the audio that was decoded; grows while there is sound. */
  totalAudioEnergy: number;
}

export interface DataReceived {
  from: string;
  topic: string;
  text: string;
  kind: 'RELIABLE' | 'LOSSY';
}

export interface RemoteView {
  identity: string;
  sid: string;
  name: string;
  metadata: string;
  attributes: Record<string, string>;
  tracks: { sid: string; source: string; muted: boolean; subscribed: boolean }[];
}

/** The room as one participant sees it. */
export interface View {
  state: string;
  sid: string;
  serverRegion: string;
  serverNode: string;
  metadata: string;
  remotes: RemoteView[];
  speakers: string[];
  data: DataReceived[];
  /** Names of the SDK's events, in order. */
  events: string[];
  disconnectReason: string | undefined;
}

export interface JoinOptions {
  autoSubscribe?: boolean;
  /** Send only the layers that somebody shows. */
  dynacast?: boolean;
  /** Connect by TURN servers alone. */
  relayOnly?: boolean;
}

/** One layer of a video that is sent. */
export interface SentLayer {
  rid: string;
  active: boolean;
  framesSent: number;
}

export interface Publishing {
  camera?: boolean;
  /** A picture that changes, as a shared screen. */
  screen?: boolean;
  microphone?: boolean;
  /** A microphone with somebody who speaks without a pause; the browser's own fake one only beeps now and then. */
  voice?: boolean;
  simulcast?: boolean;
  videoCodec?: 'vp8' | 'h264' | 'vp9' | 'av1';
}

export interface PageApi {
  /** Joins; answers how long connect() took, in milliseconds. */
  connect(url: string, token: string, options: JoinOptions): Promise<number>;
  publish(publishing: Publishing): Promise<void>;
  setCamera(enabled: boolean): Promise<void>;
  unpublish(source: Source): Promise<void>;
  setQuality(identity: string, source: Source, quality: 'LOW' | 'MEDIUM' | 'HIGH'): void;
  setEnabled(identity: string, source: Source, enabled: boolean): void;
  setSubscribed(identity: string, source: Source, subscribed: boolean): void;
  send(text: string, options: { reliable: boolean; to?: string[] }): Promise<void>;
  received(identity: string, source: Source): Promise<Received>;
  /** Layers that are sent of an own source, lowest first. */
  sending(source: Source): Promise<SentLayer[]>;
  view(): View;
  /** Measures gaps anew from now on. */
  restartGaps(): void;
  /** Video frames that came, and how long none did, by whose they are. */
  gaps(): Record<string, MediaReceived>;
  leave(): Promise<void>;
}
