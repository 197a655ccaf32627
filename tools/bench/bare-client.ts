import { isDeepStrictEqual } from 'node:util';
import { rooms, type Room } from '#crds/room.ts';
import { pathOf } from '#operator/runtime/kube.ts';
import { benchNamespace, inParallel, roomBody, type BenchClient } from './rooms.ts';

/** One write that the operator makes to a Room after its creation. */
export type Write = { kind: 'finalizers'; finalizers: string[] } | { kind: 'status'; status: Room['status'] };

/**
 * The writes behind the versions that a watch saw of one Room: what the operator wrote, in its order. A change of
 * finalizers and of the status in one version cannot be: they are written through different paths of the API.
 */
export function writesOf(history: readonly Room[]): Write[] {
  const writes: Write[] = [];
  for (const [index, version] of history.entries()) {
    const before = history[index - 1];
    if (!before) continue;
    const finalizers = version.metadata.finalizers ?? [];
    if (!isDeepStrictEqual(before.metadata.finalizers ?? [], finalizers))
      writes.push({ kind: 'finalizers', finalizers });
    else if (!isDeepStrictEqual(before.status, version.status)) writes.push({ kind: 'status', status: version.status });
  }
  return writes;
}

/** The shortest of several: a room whose counts changed meanwhile had one more, which is not part of its start. */
export function fewestWrites(histories: readonly (readonly Room[])[]): Write[] {
  const [fewest] = histories.map(writesOf).sort((a, b) => a.length - b.length);
  return fewest ?? [];
}

/**
 * Creates Rooms and makes the given writes to each, one after the other as a room has them, `concurrency` rooms at
 * once. Nothing is decided, watched or served. Milliseconds that it took.
 */
export async function writeBare(
  client: BenchClient,
  options: { prefix: string; count: number; concurrency: number; writes: readonly Write[] },
): Promise<number> {
  const start = performance.now();
  await inParallel(options.count, options.concurrency, async (index) => {
    let room = await client.rooms.create(roomBody(`${options.prefix}-${index}`));
    for (const write of options.writes) room = await apply(client, room, write);
  });
  return performance.now() - start;
}

/** Writes as the operator does: under the resourceVersion of the version it builds on. */
async function apply(client: BenchClient, room: Room, write: Write): Promise<Room> {
  const { name, namespace, resourceVersion } = room.metadata;
  if (write.kind === 'status') return await client.rooms.replaceStatus({ ...room, status: write.status });
  const body = { metadata: { finalizers: write.finalizers, resourceVersion } };
  return await client.rooms.patchMerge(name ?? '', namespace, body);
}

/** Removes Rooms that no operator is there to finalize. */
export async function removeBare(client: BenchClient, concurrency: number): Promise<void> {
  await client.transport.request({ method: 'DELETE', path: pathOf(rooms, benchNamespace), timeoutMs: 60_000 });
  const left = await client.rooms.list(benchNamespace);
  await inParallel(left.length, concurrency, async (index) => {
    const name = left[index]?.metadata.name ?? '';
    await client.rooms.patchMerge(name, benchNamespace, { metadata: { finalizers: null } });
  });
}
