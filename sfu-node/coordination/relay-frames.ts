import { SignalFrame } from '#proto/weir/fleet/v1/fleet.ts';
import { WeirError } from '#platform/errors.ts';

/** What a frame of a relayed session is to its reader. */
export type RelayStep =
  | { kind: 'message'; bytes: Uint8Array }
  | { kind: 'close'; code: number; reason: string }
  /** The other side lost track of the session. */
  | { kind: 'stray'; reason: string }
  /** Says only what the other side has. */
  | { kind: 'acknowledgement' }
  /** It was taken before. */
  | { kind: 'repeated' }
  /** One before it has not come; it is not taken, and has to come again. */
  | { kind: 'early' };

/** A frame, and how far the other side had taken ours when it was sent. */
export interface RelayReading {
  step: RelayStep;
  /** Sequence of the last frame that the other side has, with all before it; 0 for none. */
  acknowledged: number;
}

/** Numbers the frames of one direction of a relayed session, and keeps them until the other side has them. */
export class FrameWriter {
  #sequence = 0;
  #kept: { sequence: number; frame: Uint8Array }[] = [];
  #keptBytes = 0;

  /** @param taken what {@link FrameReader.taken} of the other direction says */
  message(bytes: Uint8Array, taken: number): Uint8Array {
    return this.#frame({ $case: 'message', value: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length) }, taken);
  }

  /** @param taken as with {@link message} */
  close(code: number, reason: string, taken: number): Uint8Array {
    return this.#frame({ $case: 'close', value: { code, reason } }, taken);
  }

  /** The other side has the frames up to this one; true when that is news. */
  acknowledge(sequence: number): boolean {
    const before = this.#kept.length;
    while (this.#kept[0] && this.#kept[0].sequence <= sequence) {
      this.#keptBytes -= this.#kept.shift()!.frame.length;
    }
    return this.#kept.length < before;
  }

  /** Frames that the other side is not known to have, in order. */
  get kept(): Uint8Array[] {
    return this.#kept.map(({ frame }) => frame);
  }

  /** Their bytes. */
  get keptBytes(): number {
    return this.#keptBytes;
  }

  #frame(step: SignalFrame['frame'], taken: number): Uint8Array {
    const sequence = ++this.#sequence;
    const frame = encode(sequence, step, taken);
    this.#kept.push({ sequence, frame });
    this.#keptBytes += frame.length;
    return frame;
  }
}

/** Takes the frames of one direction in their order, each once. */
export class FrameReader {
  #taken = 0;

  /** Sequence of the last frame that was taken. */
  get taken(): number {
    return this.#taken;
  }

  /** @throws WeirError RelayMalformed */
  read(data: Uint8Array): RelayReading {
    let frame: SignalFrame;
    try {
      frame = SignalFrame.decode(data);
    } catch (error) {
      throw new WeirError('RelayMalformed', 'a frame of a relayed session cannot be read', { cause: error });
    }
    return { step: this.#step(frame), acknowledged: frame.acknowledged };
  }

  #step({ sequence, frame }: SignalFrame): RelayStep {
    // So is the empty message by which NATS says that nobody listens: it acknowledges nothing.
    if (sequence === 0) {
      return frame?.$case === 'close' ? { kind: 'stray', reason: frame.value.reason } : { kind: 'acknowledgement' };
    }
    if (sequence <= this.#taken) return { kind: 'repeated' };
    if (sequence > this.#taken + 1) return { kind: 'early' };
    if (!frame) throw new WeirError('RelayMalformed', 'a frame of a relayed session is empty');
    this.#taken = sequence;
    return frame.$case === 'message' ? { kind: 'message', bytes: frame.value } : { kind: 'close', ...frame.value };
  }
}

/** Says what was taken, and nothing else. */
export function acknowledgement(taken: number): Uint8Array {
  return encode(0, undefined, taken);
}

/** The answer to a frame of a session that is not known here: a close outside of the order. */
export function strayClose(reason: string): Uint8Array {
  return encode(0, { $case: 'close', value: { code: 1012, reason } }, 0);
}

/** True for what wants an answer when its session is not known: closes of two nodes never answer each other. */
export function isMessage(data: Uint8Array): boolean {
  try {
    return SignalFrame.decode(data).frame?.$case === 'message';
  } catch {
    return false;
  }
}

function encode(sequence: number, frame: SignalFrame['frame'], acknowledged: number): Uint8Array {
  return SignalFrame.encode({ sequence, frame, acknowledged }).finish();
}
