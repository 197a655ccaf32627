import { createServer } from 'node:http';
import type { Registry } from 'prom-client';
import type { ListenAddress } from './config.ts';
import { messageOf } from './errors.ts';
import { listenOn } from './listen.ts';
import type { Logger } from './log.ts';

/** What the probes ask. Each answers undefined when all is well, else what is wrong, in words. */
export interface Health {
  /** Liveness: a restart would help. */
  live?: () => string | undefined;
  /** Readiness: traffic may come. */
  ready?: () => string | undefined;
}

export interface HttpServerOptions {
  listen: ListenAddress;
  /** Name of the setting behind `listen`, for errors. Default WEIR_HTTP_LISTEN. */
  variable?: string;
  registry: Registry;
  health: Health;
  log: Logger;
}

export interface HttpServer {
  /** The port that it listens on. */
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Serves /startupz, /livez, /readyz and /metrics of one process.
 * @throws WeirError PortInUse and its kin
 */
export async function startHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const { registry, health, log } = options;
  const probe = (ask: (() => string | undefined) | undefined) => {
    const wrong = ask?.();
    return wrong === undefined ? { status: 200, body: 'ok\n' } : { status: 503, body: `${wrong}\n` };
  };
  const server = createServer((request, response) => {
    const path = (request.url ?? '/').split('?')[0];
    const answer = (status: number, body: string, type = 'text/plain; charset=utf-8') => {
      response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
      response.end(request.method === 'HEAD' ? undefined : body);
    };
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(405, 'only GET is served here\n');
    // The process opens this port when it has come up: until then nobody answers here.
    if (path === '/startupz') return answer(200, 'ok\n');
    if (path === '/healthz' || path === '/livez') return answer(...entries(probe(health.live)));
    if (path === '/readyz') return answer(...entries(probe(health.ready)));
    if (path !== '/metrics') return answer(404, 'try /startupz, /livez, /readyz or /metrics\n');
    registry.metrics().then(
      (text) => answer(200, text, registry.contentType),
      (error: unknown) => {
        log.error({ err: error }, 'metrics could not be collected');
        answer(500, `${messageOf(error)}\n`);
      },
    );
  });
  const port = await listenOn(server, options.listen, options.variable ?? 'WEIR_HTTP_LISTEN');
  return {
    port,
    close: async () => {
      if (!server.listening) return;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

function entries(answer: { status: number; body: string }): [number, string] {
  return [answer.status, answer.body];
}
