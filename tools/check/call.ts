/**
 * Checks a fleet by a call: two simulated clients join a room of their own, one speaks, the other hears it. Ends with
 * status 0 when media came, else with 1 and what was missing. The chart's `helm test`.
 */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createToken } from '#test/fleet/token.ts';
import { fields, readConfig } from '#platform/config.ts';
import { codeOf, messageOf, WeirError } from '#platform/errors.ts';
import { parseApiKeys } from '#sfu-node/signal/api-keys.ts';
import { SimulatedClient } from '../bench/load/simulated-client.ts';

const shape = {
  WEIR_CHECK_URL: fields.text('the WebSocket URL of the fleet'),
  WEIR_CHECK_SECONDS: fields.integer(1, 600).default(30),
  WEIR_API_KEYS_FILE: fields.text('the YAML file of API keys'),
};

/** A second of speech. */
const wantedPackets = 50;

/** Joins a client, trying again while the fleet comes up. */
async function join(options: Parameters<typeof SimulatedClient.join>[0], until: number): Promise<SimulatedClient> {
  for (;;) {
    try {
      return await SimulatedClient.join(options);
    } catch (error) {
      if (Date.now() > until) throw error;
      console.log(`joining again: ${messageOf(error)}`);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

async function call(): Promise<string> {
  const { WEIR_CHECK_URL: url, WEIR_API_KEYS_FILE: file, WEIR_CHECK_SECONDS: seconds } = readConfig(shape, process.env);
  const keys = parseApiKeys(await readFile(file, 'utf8'), file);
  const key = [...keys.values()].find(({ createRooms }) => createRooms);
  if (!key) {
    const words = `no key of ${file} may make rooms: add one with createRooms: true, or check by hand in a Room of yours`;
    throw new WeirError('NoCheckKey', words, { where: file });
  }
  const room = `check-${randomBytes(4).toString('hex')}`;
  const token = (identity: string) =>
    createToken({ apiKey: key.key, apiSecret: Buffer.from(key.secret).toString(), room, identity });
  const until = Date.now() + seconds * 1000;
  let packets = 0;
  let enough: () => void = () => undefined;
  const heard = new Promise<void>((resolve) => (enough = resolve));
  const quiet = {
    url,
    onSent: () => undefined,
    onReceived: () => undefined,
    onFirstPacket: () => undefined,
  };
  const onReceived = () => {
    packets += 1;
    if (packets === wantedPackets) enough();
  };
  const clients: SimulatedClient[] = [];
  try {
    clients.push(await join({ ...quiet, token: await token('listener'), onReceived }, until));
    const publishes = { source: 'microphone', turns: { turns: 1, own: [0] } } as const;
    clients.push(await join({ ...quiet, token: await token('speaker'), publishes }, until));
    const late = new Promise<never>((_, reject) => {
      const words = `both clients are in room ${room}, and ${packets} packets came in ${seconds} s: is the announced address of nodes (sfuNode.media) reached from here by UDP or TCP?`;
      setTimeout(() => reject(new WeirError('NoMedia', words)), until - Date.now());
    });
    await Promise.race([heard, late]);
    return `room ${room}: ${packets} packets of speech went from one client to the other`;
  } finally {
    for (const client of clients) client.close();
  }
}

try {
  console.log(await call());
  process.exit(0);
} catch (error) {
  console.error(`${codeOf(error)}: ${messageOf(error)}`);
  process.exit(1);
}
