import { Metadata } from '@grpc/grpc-js';
import { LinkState, NodeControlClient, type LinkStatus, type NodeDescription } from '#proto/weir/control/v1/control.ts';
import { controlCredentials } from '#operator/fleet/node-client.ts';
import { createLogger } from '#platform/log.ts';
import { systemClock as clock } from '#platform/clock.ts';
import { TlsIdentity } from '#platform/tls-identity.ts';
import type { Fleet } from '#test/fleet/mod.ts';

/** Reads how nodes see their cascade links, as the operator reads it: by their control service. */
export class LinkRates {
  readonly #clients: readonly NodeControlClient[];
  readonly #identity: TlsIdentity;

  private constructor(clients: readonly NodeControlClient[], identity: TlsIdentity) {
    this.#clients = clients;
    this.#identity = identity;
  }

  static async open(fleet: Fleet): Promise<LinkRates> {
    const tls = await fleet.credentials('bench', { subject: 'OU=operator,CN=weir-bench', names: ['bench'] });
    const identity = await TlsIdentity.create(tls, { clock, log: createLogger({ name: 'bench', level: 'silent' }) });
    const clients = fleet.nodes.map(({ name, control }) => {
      const names = { 'grpc.ssl_target_name_override': name, 'grpc.default_authority': name };
      return new NodeControlClient(control, controlCredentials(identity), names);
    });
    return new LinkRates(clients, identity);
  }

  /** Whether all links of a room are up, and none of them is relieved of anything. */
  async clear(roomName: string): Promise<boolean> {
    return (await this.#links(roomName)).every(({ state }) => state === LinkState.UP);
  }

  /** Kilobits a second that all nodes together send over the links of a room, over the last second or so. */
  async kbps(roomName: string): Promise<number> {
    return (await this.#links(roomName)).reduce((sum, { kbps }) => sum + kbps, 0);
  }

  close(): void {
    for (const client of this.#clients) client.close();
    this.#identity.close();
  }

  /** Each link as each of its ends sees it. */
  async #links(roomName: string): Promise<LinkStatus[]> {
    const descriptions = await Promise.all(this.#clients.map(describe));
    const rooms = descriptions.flatMap(({ assignments }) => assignments);
    return rooms.filter(({ room }) => room?.roomName === roomName).flatMap((room) => room.links);
  }
}

function describe(client: NodeControlClient): Promise<NodeDescription> {
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + 10_000 };
    client.describe({}, new Metadata(), options, (error, found) => (error ? reject(error) : resolve(found)));
  });
}
