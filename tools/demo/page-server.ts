import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from 'esbuild';
import { AccessToken } from 'livekit-server-sdk';
import { messageOf } from '#platform/errors.ts';
import { regionAttribute } from '#sfu-node/signal/region.ts';
import type { RoomState, Setup } from './page/room-state.ts';

/** Options of {@link PageServer.listen}. */
export interface PageServerOptions {
  host: string;
  port: number;
  /** WebSocket URL of the fleet, told to the page with each token. */
  url: string;
  apiKey: string;
  apiSecret: string;
  setup: Setup;
  /** What is known of the room of this name; undefined when there is none. */
  roomState: (roomName: string) => RoomState | undefined;
}

const directory = join(import.meta.dirname, 'page');

/** Serves the demo page, and tokens for it. For a demo: whoever reaches it may join any room. */
export class PageServer {
  readonly port: number;
  readonly #server: Server;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  static async listen(options: PageServerOptions): Promise<PageServer> {
    const bundle = await build({
      entryPoints: [join(directory, 'page.ts')],
      bundle: true,
      format: 'esm',
      target: 'es2022',
      minify: true,
      write: false,
      logLevel: 'silent',
    });
    const script = Buffer.from(bundle.outputFiles[0]?.contents ?? []);
    const server = createServer((request, response) => {
      answer(request, response, options, script).catch((error: unknown) => {
        if (!response.headersSent) send(response, 500, 'text/plain', `${messageOf(error)}\n`);
      });
    });
    server.listen({ host: options.host, port: options.port });
    await once(server, 'listening');
    const bound = server.address();
    return new PageServer(server, typeof bound === 'object' && bound ? bound.port : options.port);
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}

function send(response: ServerResponse, status: number, type: string, body: string | Buffer): void {
  response.writeHead(status, { 'content-type': `${type}; charset=utf-8`, 'cache-control': 'no-store' }).end(body);
}

function sendJson(response: ServerResponse, body: unknown): void {
  send(response, 200, 'application/json', JSON.stringify(body));
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  options: PageServerOptions,
  script: Buffer,
): Promise<void> {
  if (request.method !== 'GET') return send(response, 405, 'text/plain', 'only GET is served here\n');
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://page');
  switch (pathname) {
    case '/':
      return send(response, 200, 'text/html', await readFile(join(directory, 'index.html')));
    case '/page.css':
      return send(response, 200, 'text/css', await readFile(join(directory, 'page.css')));
    case '/page.js':
      return send(response, 200, 'text/javascript', script);
    case '/setup':
      return sendJson(response, options.setup);
    case '/room':
      return sendJson(response, options.roomState(searchParams.get('room') ?? '') ?? null);
    case '/token':
      return await answerToken(searchParams, response, options);
    default:
      return send(response, 404, 'text/plain', 'try /\n');
  }
}

/** A token for a room, whose bearer is in a region of the fleet. */
async function answerToken(
  query: URLSearchParams,
  response: ServerResponse,
  options: PageServerOptions,
): Promise<void> {
  const { setup, url, apiKey, apiSecret } = options;
  const room = query.get('room') ?? '';
  const identity = query.get('identity') ?? '';
  const region = query.get('region') || setup.regions[0] || '';
  if (room === '' || identity === '' || room.length > 128 || identity.length > 128) {
    return send(response, 400, 'text/plain', 'write /token?room=NAME&identity=NAME, each of 1 to 128 characters\n');
  }
  if (!setup.regions.includes(region)) {
    const regions = setup.regions.join(', ');
    return send(response, 400, 'text/plain', `no node is in region "${region}"; write one of: ${regions}\n`);
  }
  const attributes = { [regionAttribute]: region };
  const token = new AccessToken(apiKey, apiSecret, { identity, name: identity, attributes, ttl: '6h' });
  token.addGrant({ room, roomJoin: true, canPublish: true, canSubscribe: true, canPublishData: true });
  return sendJson(response, { url, token: await token.toJwt() });
}
