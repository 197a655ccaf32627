import { SignalFrame } from '#proto/weir/fleet/v1/fleet.ts';
import { WeirError } from '#platform/errors.ts';

/** What a frame of a relayed session carries. */
export type RelayStep =
  | { kind: 'message'; bytes: Uint8Array }
  | { kind: 'close'; code: number; reason: string }
  /** The other side lost track of the session. */
  | { kind: 'stray'; reason: string };

/** Numbers the frames of one direction of a relayed session. */
export class FrameWriter {
  #sequence = 0;

  message(bytes: Uint8Array): Uint8Array {
    return encode(++this.#sequence, {
      $case: 'message',
      value: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length),
    });
  }

  close(code: number, reason: string): Uint8Array {
    return encode(++this.#sequence, { $case: 'close', value: { code, reason } });
  }
}

/** The answer to a frame of a session that is not known here: a close outside of the order. */
export function strayClose(reason: string): Uint8Array {
  return encode(0, { $case: 'close', value: { code: 1012, reason } });
}

/** Checks that no frame of one direction is missing. */
export class FrameReader {
  #expected = 1;

  /**
   * @returns what the frame carries
   * @throws WeirError RelayGap when frames were lost, RelayMalformed
   */
  read(data: Uint8Array): RelayStep {
    let frame: SignalFrame;
    try {
      frame = SignalFrame.decode(data);
    } catch (error) {
      throw new WeirError('RelayMalformed', 'a frame of a relayed session cannot be read', { cause: error });
    }
    const step = frame.frame;
    if (frame.sequence === 0 && step?.$case === 'close') return { kind: 'stray', reason: step.value.reason };
    if (frame.sequence !== this.#expected) {
      const words = `frame ${frame.sequence} came where ${this.#expected} was expected`;
      throw new WeirError('RelayGap', words);
    }
    this.#expected++;
    if (!step) throw new WeirError('RelayMalformed', 'a frame of a relayed session is empty');
    return step.$case === 'message' ? { kind: 'message', bytes: step.value } : { kind: 'close', ...step.value };
  }
}

/** True for a close, so that two nodes that do not know a session never answer each other's closes. */
export function isClose(data: Uint8Array): boolean {
  try {
    return SignalFrame.decode(data).frame?.$case === 'close';
  } catch {
    return true;
  }
}

function encode(sequence: number, frame: SignalFrame['frame']): Uint8Array {
  return SignalFrame.encode({ sequence, frame }).finish();
}
