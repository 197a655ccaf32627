import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { chromium, type BrowserContext, type Page } from 'playwright-core';
import type { MediaReceived } from './media-gaps.ts';
import type { JoinOptions, PageApi, Publishing, Received, SentLayer, Source, View } from './page/api.ts';

export type { JoinOptions, Source } from './page/api.ts';

declare const weir: PageApi;

const flags = [
  '--allow-loopback-in-peer-connection',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--use-fake-ui-for-media-stream',
  '--use-fake-device-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
];

/** A real Chromium with a page that holds the unmodified LiveKit SDK. Each participant has a window of its own. */
export class Browser {
  readonly #context: BrowserContext;
  readonly #server: Server;
  readonly #profile: string;

  private constructor(context: BrowserContext, server: Server, profile: string) {
    this.#context = context;
    this.#server = server;
    this.#profile = profile;
  }

  static async launch(): Promise<Browser> {
    const bundle = await build({
      entryPoints: [join(import.meta.dirname, 'page/client.ts')],
      bundle: true,
      write: false,
      format: 'iife',
      logLevel: 'error',
    });
    const script = bundle.outputFiles[0]?.text ?? '';
    const server = createServer((request, response) => {
      const isScript = request.url === '/client.js';
      response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
      response.end(
        isScript ? script : '<!doctype html><title>Weir test</title><body><script src="/client.js"></script>',
      );
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const profile = await mkdtemp(join(tmpdir(), 'weir-chromium-'));
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: process.env['WEIR_CHROMIUM'] ?? '/usr/bin/chromium',
      headless: true,
      args: flags,
    });
    return new Browser(context, server, profile);
  }

  /** A window of its own, as hidden tabs are throttled. */
  async participant(): Promise<BrowserParticipant> {
    const page = await this.#context.newPage();
    const { port } = this.#server.address() as AddressInfo;
    await page.goto(`http://127.0.0.1:${port}/`);
    return new BrowserParticipant(page);
  }

  get context(): BrowserContext {
    return this.#context;
  }

  async close(): Promise<void> {
    await this.#context.close();
    this.#server.close();
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

/** One participant in the browser. */
export class BrowserParticipant {
  readonly page: Page;
  readonly #browser: Browser | undefined;

  /** @param browser its own, which ends with it */
  constructor(page: Page, browser?: Browser) {
    this.page = page;
    this.#browser = browser;
  }

  /** One in a browser of its own: of two that take up the one fake camera of a browser again at once neither gets a picture. */
  static async alone(): Promise<BrowserParticipant> {
    const browser = await Browser.launch();
    try {
      return new BrowserParticipant((await browser.participant()).page, browser);
    } catch (error) {
      await browser.close();
      throw error;
    }
  }

  /** Joins; answers how long connect() took, in milliseconds. */
  connect(url: string, token: string, options: JoinOptions = {}): Promise<number> {
    return this.page.evaluate(([u, t, o]) => weir.connect(u, t, o), [url, token, options] as const);
  }

  publish(publishing: Publishing): Promise<void> {
    return this.page.evaluate((what) => weir.publish(what), publishing);
  }

  /** Mutes or unmutes the camera. */
  setCamera(enabled: boolean): Promise<void> {
    return this.page.evaluate((on) => weir.setCamera(on), enabled);
  }

  unpublish(source: Source): Promise<void> {
    return this.page.evaluate((what) => weir.unpublish(what), source);
  }

  setQuality(identity: string, source: Source, quality: 'LOW' | 'MEDIUM' | 'HIGH'): Promise<void> {
    return this.page.evaluate(([i, s, q]) => weir.setQuality(i, s, q), [identity, source, quality] as const);
  }

  /** Asks for a track or not, staying subscribed. */
  setEnabled(identity: string, source: Source, enabled: boolean): Promise<void> {
    return this.page.evaluate(([i, s, e]) => weir.setEnabled(i, s, e), [identity, source, enabled] as const);
  }

  setSubscribed(identity: string, source: Source, subscribed: boolean): Promise<void> {
    return this.page.evaluate(([i, s, w]) => weir.setSubscribed(i, s, w), [identity, source, subscribed] as const);
  }

  send(text: string, options: { reliable: boolean; to?: string[] }): Promise<void> {
    return this.page.evaluate(([t, o]) => weir.send(t, o), [text, options] as const);
  }

  received(identity: string, source: Source): Promise<Received> {
    return this.page.evaluate(([i, s]) => weir.received(i, s), [identity, source] as const);
  }

  /** Layers that are sent of an own source, lowest first. */
  sending(source: Source): Promise<SentLayer[]> {
    return this.page.evaluate((what) => weir.sending(what), source);
  }

  view(): Promise<View> {
    return this.page.evaluate(() => weir.view());
  }

  /** Measures {@link BrowserParticipant.gaps} anew from now on. */
  restartGaps(): Promise<void> {
    return this.page.evaluate(() => weir.restartGaps());
  }

  /** Video frames that came, and how long none did, by whose they are. */
  gaps(): Promise<Record<string, MediaReceived>> {
    return this.page.evaluate(() => weir.gaps());
  }

  leave(): Promise<void> {
    return this.page.evaluate(() => weir.leave());
  }

  async close(): Promise<void> {
    await this.page.close().finally(() => this.#browser?.close());
  }
}
