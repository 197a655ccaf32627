/** `make demo`: a fleet on this machine, a Room, and a page to call on. Ends with Ctrl-C. */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { WeirError, messageOf } from '#platform/errors.ts';
import { locateBinaries } from '#tools/local/binaries.ts';
import { Fleet } from '#tools/local/fleet.ts';
import { endLeftovers, projectRoot, startTimeOf, stateDirectory } from '#tools/local/leftovers.ts';
import { freePort, hostPort, isPortFree } from '#tools/local/ports.ts';
import { Balancer } from './balancer.ts';
import { PageServer } from './page-server.ts';
import { RoomWatch } from './room-watch.ts';
import { supervise } from './supervise.ts';

const began = Date.now();
/** Where demo.json and the data go; tests have one of their own. */
const base = process.env['WEIR_DEMO_DIRECTORY'] || stateDirectory;
const demoFile = join(base, 'demo.json');
const roomName = 'all-hands';
const roomFile = 'examples/room-two-regions.yaml';
const say = (text: string) => console.log(`demo: ${text}`);
const seconds = () => `${((Date.now() - began) / 1000).toFixed(1)} s`;

/** A directory that no running demo of this checkout uses: .weir/demo, .weir/demo-2, ... */
function takeDirectory(): string {
  for (let number = 1; ; number += 1) {
    const directory = join(base, number === 1 ? 'demo' : `demo-${number}`);
    const ownerFile = join(directory, 'owner');
    try {
      const [pid, started] = readFileSync(ownerFile, 'utf8').split(' ').map(Number);
      if (pid !== undefined && startTimeOf(pid) === started) {
        say(`another demo is running (process ${pid}); this one stands beside it`);
        continue;
      }
    } catch {
      // Nobody's.
    }
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(directory, { recursive: true });
    writeFileSync(ownerFile, `${process.pid} ${startTimeOf(process.pid) ?? 0}`);
    return directory;
  }
}

/** The port that is wanted, or another one when it is taken. */
async function choosePort(address: string, wanted: number, what: string): Promise<number> {
  if (await isPortFree(address, wanted)) return wanted;
  const port = await freePort(address);
  say(`port ${wanted} is in use; ${what} listens on ${port} instead`);
  return port;
}

/** @throws WeirError BadAddress when this machine does not have the address. */
async function checkAddress(address: string): Promise<void> {
  try {
    await freePort(address);
  } catch (error) {
    const own = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map((entry) => entry.address));
    throw new WeirError(
      'BadAddress',
      `ADDRESS=${address} is not an address of this machine (here: ${own.join(', ')})`,
      {
        cause: error,
      },
    );
  }
}

function writeDemoFile(content: unknown): void {
  writeFileSync(`${demoFile}.tmp`, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${demoFile}.tmp`, demoFile);
}

/** Runs `cleanup` once, on the first signal; a second signal ends at once. */
function onEnd(cleanup: () => Promise<void>): void {
  let ending = false;
  const end = (why: string) => {
    if (ending) process.exit(130);
    ending = true;
    say(`${why}: ending everything (again to end at once)`);
    void cleanup()
      .catch((error: unknown) => console.error(`demo: ${messageOf(error)}`))
      .finally(() => process.exit(0));
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => end(signal));
  if (process.env['WEIR_UNDER_MAKE'] !== undefined) {
    // A make that was killed cannot pass the signal on.
    const parent = process.ppid;
    setInterval(() => process.ppid !== parent && !ending && end('make is gone'), 500).unref();
  }
}

async function main(): Promise<void> {
  const address = process.env['WEIR_DEMO_ADDRESS'] || '127.0.0.1';
  const kubeconfig = process.env['WEIR_DEMO_KUBECONFIG'] || undefined;
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  onEnd(close);
  try {
    const left = await endLeftovers();
    if (left.length > 0) say(`ended what a killed demo had left: ${left.join(', ')}`);
    if (process.env['KUBECONFIG'] && kubeconfig === undefined) {
      say(`a local cluster is made; to use yours: make demo KUBECONFIG=${process.env['KUBECONFIG']}`);
    }
    await checkAddress(address);
    const dir = takeDirectory();
    rmSync(demoFile, { force: true });
    const port = await choosePort(address, 7880, 'the fleet');
    const url = `ws://${hostPort(address, port)}`;
    const fleet = await Fleet.start({
      dir,
      address,
      kubeconfig,
      controllerManager: true,
      operators: 2,
      logFormat: 'text',
      publicUrl: url,
      nodes: [
        { name: 'sfu-1', region: 'eu-west', zone: 'eu-west-a' },
        { name: 'sfu-2', region: 'eu-west', zone: 'eu-west-b' },
        { name: 'sfu-3', region: 'us-east', zone: 'us-east-a' },
      ],
      progress: (what) => say(`starting ${what} (${seconds()})`),
    });
    closers.push(() => fleet.stop());
    const targets = () =>
      fleet.nodes
        .filter((node) => node.process.running)
        .map((node) => ({ host: address, port: Number(node.signal.split(':').at(-1)) }));
    const balancer = await Balancer.listen(address, port, targets);
    closers.push(() => balancer.close());
    const pagePort = await choosePort(address, 7800, 'the page');
    const { apiKey, apiSecret } = fleet;
    const watch = RoomWatch.start(fleet.kubeconfigPath);
    closers.push(() => watch.close());
    const setup = { room: roomName, regions: [...new Set(fleet.nodes.map(({ region }) => region))] };
    const roomState = (name: string) => watch.state(name);
    const page = await PageServer.listen({ host: address, port: pagePort, url, apiKey, apiSecret, setup, roomState });
    closers.push(() => page.close());
    const pageUrl = `http://${address === '127.0.0.1' ? 'localhost' : hostPort(address, 0).replace(/:0$/, '')}:${page.port}/`;

    const write = async () => {
      const leader = await fleet.leader().catch(() => undefined);
      writeDemoFile({
        url,
        apiKey,
        apiSecret,
        kubeconfig: fleet.kubeconfigPath,
        page: pageUrl,
        nodes: fleet.nodes.map(({ name, pid, region, url }) => ({ name, pid, region, url })),
        operators: fleet.operators.map((operator) => ({ pid: operator.pid, leader: operator === leader })),
        nats: { pid: fleet.nats.pid },
        apiserver: { pid: fleet.plane?.apiserver.pid ?? null },
      });
    };
    closers.push(() => Promise.resolve(rmSync(demoFile, { force: true })));
    say(`waiting for a leader (${seconds()})`);
    await fleet.leader();
    say(`applying ${roomFile} (${seconds()})`);
    await fleet.kubectl.run('apply', '--server-side', '--force-conflicts', '-f', roomFile);
    if (kubeconfig !== undefined) closers.push(() => forgetInCluster(fleet));
    await fleet.roomReady(roomName).catch(async (error: unknown) => {
      const room = await fleet.kubectl.run('get', 'room', roomName, '-o', 'wide').catch(() => '');
      throw new WeirError('RoomNotReady', `the Room did not become Ready: ${messageOf(error)}\n${room}`);
    });
    await write();
    closers.push(supervise(fleet, say, write));
    console.log(await fleet.kubectl.run('get', 'rooms,sfunodes', '-A'));
    await printWelcome(fleet, pageUrl, setup.regions, address, dir);
  } catch (error) {
    await close();
    throw error;
  }
}

/** Takes out of a cluster that is not ours what the demo has put there; the CRDs stay. */
async function forgetInCluster(fleet: Fleet): Promise<void> {
  await fleet.kubectl.run('delete', '-f', roomFile, '--ignore-not-found', '--timeout=10s').catch(() => undefined);
  await Promise.all(fleet.operators.map((operator) => operator.process.stop()));
  const names = fleet.nodes.map((node) => node.name);
  await fleet.kubectl
    .run('delete', 'sfunodes', '-n', 'weir-system', '--ignore-not-found', ...names)
    .catch(() => undefined);
}

async function printWelcome(
  fleet: Fleet,
  page: string,
  regions: readonly string[],
  address: string,
  dir: string,
): Promise<void> {
  const logs = relative(projectRoot, join(dir, 'logs'));
  const serving = await fleet.kubectl.run('get', 'room', roomName, '-o', 'jsonpath={.status.primaryNode}');
  const node = fleet.nodes.find((candidate) => candidate.name === serving) ?? fleet.nodes[0];
  const loopback = address === '127.0.0.1' || address === '::1';
  console.log(`The room is Ready (${seconds()}). Make a call over two regions: open both of these.

${regions.map((region) => `  ${page}?region=${region}`).join('\n')}
${loopback ? '' : `\n  Browsers give camera and microphone to https and localhost only. For a trial over plain http start Chromium with\n  --unsafely-treat-insecure-origin-as-secure=${page.replace(/\/$/, '')}\n`}
Kubeconfig: ${fleet.kubeconfigPath}
Logs:       ${logs}/

Try next, in another terminal:
  export KUBECONFIG=${fleet.kubeconfigPath} PATH=${dirname(locateBinaries().kubectl)}:$PATH
  kubectl get rooms,sfunodes -A
  kubectl get room ${roomName} -o yaml   # nodes, topology and links are in its status
  kubectl apply -f ${relative('', join(projectRoot, 'examples/room-audio-only.yaml'))}
  kill -9 ${node?.pid ?? ''}   # ${node?.name ?? ''} dies; who is on it comes back on another node, the others stay

Ctrl-C ends everything.`);
}

try {
  await main();
  // The fleet runs until a signal comes.
  for (;;) await delay(2 ** 30);
} catch (error) {
  console.error(`demo: ${messageOf(error)}`);
  process.exit(1);
}
