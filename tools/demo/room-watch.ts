import { rooms, type Room } from '#crds/room.ts';
import { RoomIndex } from '#operator/room/room-index.ts';
import { loadKubeConfig } from '#operator/runtime/kube.ts';
import { Reflector } from '#operator/runtime/reflector.ts';
import { systemClock as clock } from '#platform/clock.ts';
import { createLogger } from '#platform/log.ts';
import type { RoomState } from './page/room-state.ts';

/** The status of every Room, watched, so that any number of pages can ask as often as they like. */
export class RoomWatch {
  readonly #reflector: Reflector<Room>;
  readonly #index = new RoomIndex();

  private constructor(reflector: Reflector<Room>) {
    this.#reflector = reflector;
    reflector.onChange((key, current, previous) => this.#index.change(key, current, previous));
  }

  /**
   * Begins to watch; while the API server is away the last status that was seen stands.
   *
   * @throws WeirError BadKubeConfig
   */
  static start(kubeconfigPath: string): RoomWatch {
    const kubeConfig = loadKubeConfig({ KUBECONFIG: kubeconfigPath });
    // The demo itself says when the API server is gone.
    const log = createLogger({ name: 'demo', level: 'silent' });
    const reflector = new Reflector<Room>({ ...rooms, kubeConfig, clock, random: Math.random, log });
    reflector.start();
    return new RoomWatch(reflector);
  }

  /** The state of the room that clients join by this name; undefined when there is none. */
  state(roomName: string): RoomState | undefined {
    const room = this.#index.owner(roomName);
    return room && stateOf(room);
  }

  async close(): Promise<void> {
    await this.#reflector.stop();
  }
}

/** What the page shows of a Room. */
export function stateOf({ status }: Pick<Room, 'status'>): RoomState {
  const { epoch = 0, placement = [], links = [], topology, conditions = [] } = status ?? {};
  const ready = conditions.find(({ type }) => type === 'Ready');
  return {
    ready: ready?.status === 'True',
    message: ready?.message ?? '',
    epoch,
    topology: topology?.kind ?? '',
    reason: topology?.message ?? '',
    nodes: placement.map(({ node, region = '', role }) => ({ node, region, role })),
    links: links.map(({ from, to, state = 'Opening', rttMillis }) => ({ from, to, state, rttMillis })),
  };
}
