import { join } from 'node:path';
import { build } from 'esbuild';
import { Browser, type BrowserParticipant } from '#test/e2e/browser.ts';
import type { BenchPageApi, JoinTimes } from './page/api.ts';

declare const weirBench: BenchPageApi;

/** A real Chromium whose windows hold the SDK and a stopwatch. */
export class BenchBrowser {
  readonly #browser: Browser;
  readonly #script: string;

  private constructor(browser: Browser, script: string) {
    this.#browser = browser;
    this.#script = script;
  }

  static async launch(): Promise<BenchBrowser> {
    const bundle = await build({
      entryPoints: [join(import.meta.dirname, 'page/bench-page.ts')],
      bundle: true,
      write: false,
      format: 'iife',
      logLevel: 'error',
    });
    return new BenchBrowser(await Browser.launch(), bundle.outputFiles[0]?.text ?? '');
  }

  /** A window, in front of the others. */
  async window(): Promise<BenchWindow> {
    const participant = await this.#browser.participant();
    await participant.page.addScriptTag({ content: this.#script });
    await participant.page.bringToFront();
    return new BenchWindow(participant);
  }

  async close(): Promise<void> {
    await this.#browser.close();
  }
}

/** One window; its calls are those of {@link BenchPageApi}. */
export class BenchWindow {
  readonly #participant: BrowserParticipant;

  constructor(participant: BrowserParticipant) {
    this.#participant = participant;
  }

  publish(url: string, token: string): Promise<string> {
    return this.#participant.page.evaluate(([to, jwt]) => weirBench.publish(to, jwt), [url, token] as const);
  }

  measureJoin(url: string, token: string): Promise<JoinTimes> {
    return this.#participant.page.evaluate(([to, jwt]) => weirBench.measureJoin(to, jwt), [url, token] as const);
  }

  joinMany(url: string, tokens: readonly string[]): Promise<void> {
    return this.#participant.page.evaluate(([to, jwts]) => weirBench.joinMany(to, jwts), [url, tokens] as const);
  }

  async close(): Promise<void> {
    await this.#participant.close();
  }
}
