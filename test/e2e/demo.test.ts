import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Page } from 'playwright-core';
import { eventually, temporaryDirectory } from '#test/fleet/mod.ts';
import { locateBinaries } from '#tools/local/binaries.ts';
import { Kubectl } from '#tools/local/kubectl.ts';
import { projectRoot, startTimeOf, stateDirectory } from '#tools/local/leftovers.ts';
import { Browser } from './browser.ts';
import { looks, sitBeforeCamera } from './people.ts';

/** `.weir/demo.json`, as scripts read it. */
interface DemoFile {
  url: string;
  apiKey: string;
  apiSecret: string;
  kubeconfig: string;
  page: string;
  nodes: { name: string; pid: number; region: string; url: string }[];
  operators: { pid: number; leader: boolean }[];
  nats: { pid: number };
  apiserver: { pid: number };
}

const directory = temporaryDirectory('demo');
const screenshots = join(stateDirectory, 'screenshots');
let demo: ChildProcess;
let output = '';
let browser: Browser;

/** Starts the demo and waits until it has said that all is ready. */
async function startDemo(): Promise<DemoFile> {
  output = '';
  demo = spawn(process.execPath, ['tools/demo/demo.ts'], {
    cwd: projectRoot,
    env: { ...process.env, NODE_TEST_CONTEXT: undefined, WEIR_DEMO_DIRECTORY: directory },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  for (const stream of [demo.stdout, demo.stderr]) {
    stream?.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
  }
  await eventually(
    () => {
      if (demo.exitCode !== null) throw new Error(output);
      return output.includes('Ctrl-C ends everything');
    },
    { timeoutMs: 90_000, what: `the demo (it said: ${output})` },
  );
  return JSON.parse(await readFile(join(directory, 'demo.json'), 'utf8')) as DemoFile;
}

function pidsOf(file: DemoFile): number[] {
  return [file.nats, file.apiserver, ...file.nodes, ...file.operators].map(({ pid }) => pid);
}

/** A page that has joined from a region through the demo's own page; from the first region when none is named. */
async function openPage(file: DemoFile, identity: keyof typeof looks, region?: string): Promise<Page> {
  const page = await browser.context.newPage();
  await page.setViewportSize({ width: 1280, height: 640 });
  await sitBeforeCamera(page, looks[identity]);
  const where = region === undefined ? '' : `&region=${region}`;
  await page.goto(`${file.page}?identity=${identity}${where}&join=1`);
  return page;
}

/** Sum of the colours in the middle of a tile's picture, and how many frames it has shown; text, as it is the browser's. */
const lookAt = (name: string) => `(() => {
  const video = document.querySelector('[data-identity="${name}"] video');
  if (!video || video.videoWidth === 0) return { colours: 0, frames: 0 };
  const pen = Object.assign(document.createElement('canvas'), { width: 32, height: 18 }).getContext('2d');
  pen.drawImage(video, 0, 0, 32, 18);
  const colours = pen.getImageData(0, 0, 32, 18).data.reduce((sum, value, i) => (i % 4 === 3 ? sum : sum + value), 0);
  return { colours, frames: video.getVideoPlaybackQuality().totalVideoFrames };
})()`;

/** Waits until every tile of the page shows moving pictures that are not black. */
async function seesEverybody(page: Page, names: string[]): Promise<void> {
  for (const name of names) {
    const look = async () => await page.evaluate<{ colours: number; frames: number }>(lookAt(name));
    const seen = await eventually(
      async () => {
        const now = await look();
        return now.colours > 20_000 && now;
      },
      { timeoutMs: 30_000, what: `${name}'s picture` },
    );
    const more = async () => (await look()).frames > seen.frames + 5;
    await eventually(more, { timeoutMs: 20_000, what: `${name}'s moving picture` });
  }
}

/** Where the tile of a participant says that they are served. */
async function servedAt(page: Page, name: string): Promise<string> {
  return (await page.textContent(`[data-identity="${name}"] .node`)) ?? '';
}

/** Waits until the page shows the two nodes of the room and that their link is up; answers the nodes. */
async function seesLink(page: Page): Promise<[string, string]> {
  const wire = await page.waitForSelector('.wire[data-state="Up"] >> text=/Up · (< 1|[0-9]+) ms/', { timeout: 30_000 });
  assert.ok(wire);
  const chips = await Promise.all((await page.$$('.placed')).map(async (chip) => (await chip.textContent()) ?? ''));
  const [first = '', second = '', ...more] = chips;
  assert.deepEqual(more, []);
  return [first, second];
}

before(async () => {
  browser = await Browser.launch();
});

after(async () => {
  await browser?.close();
  demo?.kill('SIGKILL');
});

test('the demo makes a call over two regions, and ends with everything it started', { timeout: 240_000 }, async () => {
  const file = await startDemo();
  assert.match(file.url, /^ws:\/\/127\.0\.0\.1:\d+$/);
  assert.deepEqual(
    file.nodes.map(({ name, region }) => [name, region]),
    [
      ['sfu-1', 'eu-west'],
      ['sfu-2', 'eu-west'],
      ['sfu-3', 'us-east'],
    ],
  );
  assert.equal(file.operators.filter(({ leader }) => leader).length, 1);
  assert.equal(file.operators.length, 2);
  for (const pid of pidsOf(file)) assert.notEqual(startTimeOf(pid), undefined);
  const kubectl = new Kubectl({ command: locateBinaries().kubectl, kubeconfig: file.kubeconfig });
  assert.match(await kubectl.run('get', 'rooms'), /^all-hands +True/m);

  // Ada says nothing of where she is.
  const ada = await openPage(file, 'ada');
  const grace = await openPage(file, 'grace', 'us-east');
  await Promise.all([seesEverybody(ada, ['ada', 'grace']), seesEverybody(grace, ['ada', 'grace'])]);
  const { status } = await kubectl.json<{ status: { placement: { node: string; region: string }[] } }>(
    ...['get', 'room', 'all-hands'],
  );
  const nodes = new Map(status.placement.map(({ node, region }) => [region, node]));
  assert.deepEqual([...nodes.keys()].sort(), ['eu-west', 'us-east']);
  assert.equal(nodes.get('us-east'), 'sfu-3');
  for (const page of [ada, grace]) {
    await eventually(async () => (await servedAt(page, 'ada')) === `${nodes.get('eu-west')} · eu-west`, {
      what: "ada's node and region on her tile",
    });
    await eventually(async () => (await servedAt(page, 'grace')) === 'sfu-3 · us-east', {
      what: "grace's node and region on her tile",
    });
    assert.deepEqual(await seesLink(page), [`${nodes.get('eu-west')}eu-west`, 'sfu-3us-east']);
  }
  assert.equal(await grace.textContent('#served-by'), 'served by sfu-3 · us-east');
  await mkdir(screenshots, { recursive: true });
  await ada.bringToFront();
  await seesEverybody(ada, ['ada', 'grace']);
  await eventually(() => ada.$('.tile.speaking'), { timeoutMs: 20_000, what: 'somebody who speaks' });
  await ada.screenshot({ path: join(screenshots, 'call.png') });
  await grace.click('#toggle-chat');
  await grace.fill('#text', 'Good morning!');
  await grace.click('#say button');
  await ada.waitForSelector('#messages >> text=Good morning!');
  await ada.screenshot({ path: join(screenshots, 'chat.png') });
  await ada.setViewportSize({ width: 390, height: 780 });
  await seesEverybody(ada, ['ada', 'grace']);
  await ada.screenshot({ path: join(screenshots, 'phone.png') });
  await grace.click('#microphone');
  await ada.waitForSelector('[data-identity="grace"] .muted:not([hidden])');

  // The page names the node that serves from then on, and the other region is not disturbed.
  await grace.evaluate(`weir.room.on('reconnecting', () => (weir.disturbed = true))`);
  const served = file.nodes.find(({ name }) => name === nodes.get('eu-west'));
  assert.ok(served);
  process.kill(served.pid, 'SIGKILL');
  const other = served.name === 'sfu-1' ? 'sfu-2 · eu-west' : 'sfu-1 · eu-west';
  for (const page of [ada, grace]) {
    await eventually(async () => (await servedAt(page, 'ada')) === other, {
      timeoutMs: 30_000,
      what: `ada on ${other}`,
    });
  }
  await Promise.all([seesEverybody(ada, ['ada', 'grace']), seesEverybody(grace, ['ada', 'grace'])]);
  assert.equal(await grace.evaluate(`weir.disturbed === true`), false);

  await grace.click('#leave');
  await ada.waitForSelector('[data-identity="grace"]', { state: 'detached' });
  await Promise.all([ada.close(), grace.close()]);

  demo.kill('SIGINT');
  await once(demo, 'exit');
  for (const pid of pidsOf(file)) assert.equal(startTimeOf(pid), undefined, output);
  assert.equal(existsSync(join(directory, 'demo.json')), false);
});

test(
  'a killed demo leaves nothing behind, and taken ports do not stop the next one',
  { timeout: 240_000 },
  async () => {
    const killed = await startDemo();
    demo.kill('SIGKILL');
    await once(demo, 'exit');
    const server = createServer();
    server.listen(7880, '127.0.0.1');
    await once(server, 'listening');
    try {
      const next = await startDemo();
      assert.match(output, /port 7880 is in use; the fleet listens on \d+ instead/);
      assert.notEqual(next.url, 'ws://127.0.0.1:7880');
      for (const pid of pidsOf(killed)) assert.equal(startTimeOf(pid), undefined);
      demo.kill('SIGTERM');
      await once(demo, 'exit');
      for (const pid of pidsOf(next)) assert.equal(startTimeOf(pid), undefined, output);
    } finally {
      server.close();
    }
  },
);
