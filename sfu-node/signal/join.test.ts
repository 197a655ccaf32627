import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Role } from '#proto/weir/control/v1/control.ts';
import type { Route } from '#proto/weir/fleet/v1/fleet.ts';
import { codeOf, WeirError } from '#platform/errors.ts';
import type { RelayedSession } from '#sfu-node/coordination/relay-holder.ts';
import type { JoinIntent } from './claims.ts';
import { JOIN_PATIENCE_MS, type JoinDeps, resolveJoin } from './join.ts';

const room = { uid: 'u', namespace: 'n', name: 'r', roomName: 'r' };
const routeTo = (node: string, epoch: number): Route => ({
  room,
  epoch,
  nodes: [{ node, region: 'eu-west', role: Role.HUB }],
});

const routeIn = (epoch: number, ...placed: [node: string, region: string][]): Route => ({
  room,
  epoch,
  nodes: placed.map(([node, region]) => ({ node, region, role: Role.EDGE })),
});

/** A fleet in which time passes only while a join waits. */
class Scene {
  now = 0;
  served: number | undefined;
  route: Route | undefined;
  readonly log: string[] = [];
  /** What happens at a time, in order. */
  events: [number, () => void][] = [];
  ensure: () => Route = () => {
    throw new WeirError('RoomNotFound', 'none');
  };
  extend: (full: readonly string[]) => Route | undefined = () => undefined;
  streams = 0;
  /** Where the session is that a client resumes. */
  sessionOn: string | undefined;
  open: (node: string) => void = () => {};

  join(options: { reconnect?: boolean; mayCreateRoom?: boolean; region?: string } = {}): Promise<string> {
    const claims = { room: 'r', mayCreateRoom: options.mayCreateRoom ?? false };
    const intent = { claims, region: 'eu-west', ...options } as JoinIntent;
    const session = { node: '', start() {}, send() {}, close() {} } satisfies RelayedSession;
    const deps: JoinDeps = {
      node: 'here',
      region: 'eu-west',
      rooms: {
        find: () => (this.served === undefined ? undefined : { room, epoch: this.served }),
        nodeOf: () => this.sessionOn,
        load: () => ({ workers: 1, rooms: 1, participants: 0, streams: this.streams, mbps: 0, cpu: 0 }),
      },
      capacity: { streams: 100 },
      routes: {
        get: () => this.route,
        waitFor: (_name, predicate, timeoutMs) => {
          const end = this.now + timeoutMs;
          for (;;) {
            const next = this.events[0];
            if (!next || next[0] > end) break;
            this.now = Math.max(this.now, next[0]);
            this.events.shift();
            next[1]();
            if (predicate(this.route)) return Promise.resolve(this.route);
          }
          this.now = end;
          return Promise.resolve(this.route);
        },
      },
      requests: {
        ensure: (_name, { create }) => {
          this.log.push(create ? 'create' : 'find');
          return new Promise((resolve) => resolve(this.ensure()));
        },
        extend: (_name, { region, full }) => {
          this.log.push(`extend to ${region}${full.length > 0 ? `, ${full.join(' ')} full` : ''}`);
          return new Promise((resolve) => resolve(this.extend(full)));
        },
      },
      relay: {
        open: (node) => {
          this.log.push(`open ${node}`);
          return new Promise((resolve) => {
            this.open(node);
            resolve(session);
          });
        },
      },
      clock: { now: () => this.now, after: () => () => {} },
    };
    return resolveJoin(intent, deps, new AbortController().signal).then(
      ({ kind }) => kind,
      (error: unknown) => codeOf(error),
    );
  }
}

function dead(...nodes: string[]): (node: string) => void {
  return (node) => {
    if (nodes.includes(node)) throw new WeirError('NodeUnreachable', 'dead');
  };
}

function refusing(...nodes: string[]): (node: string) => void {
  return (node) => {
    if (nodes.includes(node)) throw new WeirError('NodeFull', 'full');
  };
}

describe('a join', () => {
  it('is served here when the room is here', async () => {
    const scene = new Scene();
    scene.served = 1;
    assert.equal(await scene.join(), 'local');
    assert.deepEqual(scene.log, []);
  });

  it('is relayed when another node serves the room', async () => {
    const scene = new Scene();
    scene.route = routeTo('there', 1);
    assert.equal(await scene.join(), 'relayed');
  });

  it('goes to the node of this region when several serve the room, and never to a standby', async () => {
    const scene = new Scene();
    const placed = (node: string, region: string, role: Role) => ({ node, region, role });
    scene.route = {
      room,
      epoch: 1,
      nodes: [
        placed('warm', 'eu-west', Role.STANDBY),
        placed('far', 'us-east', Role.HUB),
        placed('near', 'eu-west', Role.EDGE),
      ],
    };
    assert.equal(await scene.join(), 'relayed');
    assert.deepEqual(scene.log, ['open near']);
  });

  it('goes to the new node while the old room is still being released here', async () => {
    const scene = new Scene();
    scene.served = 1;
    scene.route = routeTo('there', 2);
    assert.equal(await scene.join(), 'relayed');
  });

  it('stays here while the routing table is behind', async () => {
    const scene = new Scene();
    scene.served = 2;
    scene.route = routeTo('there', 1);
    assert.equal(await scene.join(), 'local');
  });

  it('asks the operator when there is no route, and to make the room only if the key may', async () => {
    const scene = new Scene();
    scene.ensure = () => routeTo('there', 1);
    assert.equal(await scene.join({ mayCreateRoom: true }), 'relayed');
    assert.deepEqual(scene.log, ['create', 'open there']);
  });

  it('fails at once when the room does not exist', async () => {
    const scene = new Scene();
    assert.equal(await scene.join(), 'RoomNotFound');
    assert.equal(scene.now, 0);
  });

  it('waits for the next epoch when the serving node is dead', async () => {
    const scene = new Scene();
    scene.route = routeTo('dead', 1);
    scene.open = dead('dead');
    scene.events = [[1_100, () => (scene.route = routeTo('there', 2))]];
    assert.equal(await scene.join(), 'relayed');
    assert.equal(scene.now, 1_100);
    assert.equal(scene.log.at(-1), 'open there');
  });

  it('waits for this node to serve a room that is placed on it', async () => {
    const scene = new Scene();
    scene.route = routeTo('here', 1);
    scene.events = [[300, () => (scene.served = 1)]];
    assert.equal(await scene.join(), 'local');
  });

  it('waits for an operator to lead', async () => {
    const scene = new Scene();
    let leads = false;
    scene.ensure = () => {
      if (leads) return routeTo('there', 1);
      throw new WeirError('OperatorUnavailable', 'none leads');
    };
    scene.events = [[2_000, () => (leads = true)]];
    assert.equal(await scene.join(), 'relayed');
  });

  it('gives up with the last reason when its patience ends', async () => {
    const scene = new Scene();
    scene.route = routeTo('dead', 1);
    scene.open = dead('dead');
    assert.equal(await scene.join(), 'NodeUnreachable');
    assert.equal(scene.now, JOIN_PATIENCE_MS);
  });

  it('that resumes on a dead node is sent through a full join at once', async () => {
    const scene = new Scene();
    scene.route = routeTo('dead', 1);
    scene.open = dead('dead');
    assert.equal(await scene.join({ reconnect: true }), 'rejoin');
    assert.equal(scene.now, 0);
  });

  it('from a region without a node of the room gets one there', async () => {
    const scene = new Scene();
    scene.route = routeTo('far', 1);
    scene.extend = () => routeIn(2, ['far', 'eu-west'], ['near', 'us-east']);
    assert.equal(await scene.join({ region: 'us-east' }), 'relayed');
    assert.deepEqual(scene.log, ['extend to us-east', 'open near']);
  });

  it('from a region that cannot have a node goes to what there is', async () => {
    const scene = new Scene();
    scene.route = routeTo('far', 1);
    for (const answer of [undefined, routeTo('far', 1)]) {
      scene.extend = () => answer;
      assert.equal(await scene.join({ region: 'us-east' }), 'relayed');
      assert.deepEqual(scene.log.splice(0), ['extend to us-east', 'open far']);
    }
  });

  it('that resumes goes to the node that has its session, also when another is nearer', async () => {
    const scene = new Scene();
    scene.served = 1;
    scene.route = routeIn(1, ['here', 'eu-west'], ['far', 'us-east']);
    scene.sessionOn = 'far';
    assert.equal(await scene.join({ reconnect: true }), 'relayed');
    assert.deepEqual(scene.log, ['open far']);
    assert.equal(await scene.join(), 'local');
  });

  it('that resumes asks for no other node', async () => {
    const scene = new Scene();
    scene.route = routeTo('far', 1);
    assert.equal(await scene.join({ region: 'us-east', reconnect: true }), 'relayed');
    assert.deepEqual(scene.log, ['open far']);
  });

  it('of another region is served where that region has a node, though the room is here too', async () => {
    const scene = new Scene();
    scene.served = 1;
    scene.route = routeIn(1, ['here', 'eu-west'], ['there', 'us-east']);
    assert.equal(await scene.join({ region: 'us-east' }), 'relayed');
    assert.equal(await scene.join(), 'local');
    assert.deepEqual(scene.log, ['open there']);
  });

  it('is refused by a full node, and goes to the one that the room gets for it', async () => {
    const scene = new Scene();
    scene.route = routeTo('full', 1);
    scene.open = refusing('full');
    scene.extend = () => routeIn(2, ['full', 'eu-west'], ['more', 'eu-west']);
    assert.equal(await scene.join(), 'relayed');
    assert.deepEqual(scene.log, ['open full', 'extend to eu-west, full full', 'open more']);
  });

  it('goes to another region when its own is full and gets no other node', async () => {
    const scene = new Scene();
    scene.served = 1;
    scene.streams = 100;
    scene.route = routeIn(1, ['here', 'eu-west'], ['there', 'us-east']);
    assert.equal(await scene.join(), 'relayed');
    assert.deepEqual(scene.log, ['extend to eu-west, here full', 'open there']);
  });

  it('is refused when all nodes are full: at once, and with the words of the operator if it leads', async () => {
    const scene = new Scene();
    scene.served = 1;
    scene.streams = 100;
    scene.route = routeTo('here', 1);
    assert.equal(await scene.join(), 'NodeFull');
    scene.extend = () => {
      throw new WeirError('NoCapacity', 'none fits');
    };
    assert.equal(await scene.join(), 'NoCapacity');
    assert.equal(scene.now, 0);
  });

  it('that resumes on a full node is not refused: its streams are there', async () => {
    const scene = new Scene();
    scene.served = 1;
    scene.streams = 100;
    scene.route = routeTo('here', 1);
    assert.equal(await scene.join({ reconnect: true }), 'local');
  });

  it('asks again when the answer of the operator was overtaken', async () => {
    const scene = new Scene();
    const answers = ['dead', 'there'];
    scene.ensure = () => routeTo(answers.shift() ?? '', 1);
    scene.open = dead('dead');
    assert.equal(await scene.join(), 'relayed');
    assert.deepEqual(scene.log, ['find', 'open dead', 'find', 'open there']);
  });
});
