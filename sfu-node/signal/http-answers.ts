import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { messageOf } from '#platform/errors.ts';
import { statusOf } from './refusal.ts';

/** Browsers may call from any page: the token is what admits. */
export const corsHeaders = {
  'access-control-allow-origin': '*',
  'access-control-allow-headers': '*',
  'access-control-allow-methods': 'GET, OPTIONS',
  'access-control-max-age': '86400',
} as const;

const phrases: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
};

/** Status, headers and body of a refusal; the body is for a person. */
function refusal(error: unknown): { status: number; headers: Record<string, string>; body: string } {
  const status = statusOf(error);
  const body = status === 500 ? 'this node failed to handle the request; see its log' : messageOf(error);
  const headers: Record<string, string> = { ...corsHeaders, 'content-type': 'text/plain; charset=utf-8' };
  if (status === 503 || status === 429) headers['retry-after'] = '1';
  if (status === 401) headers['www-authenticate'] = 'Bearer';
  return { status, headers, body };
}

/** Answers a plain request. */
export function answer(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { ...corsHeaders, 'content-type': 'text/plain; charset=utf-8' });
  response.end(body);
}

/** Refuses a plain request. */
export function refuse(response: ServerResponse, error: unknown): void {
  const { status, headers, body } = refusal(error);
  response.writeHead(status, headers);
  response.end(body);
}

/** Refuses an upgrade, in HTTP, and ends the connection. */
export function refuseUpgrade(socket: Duplex, error: unknown): void {
  if (socket.destroyed || !socket.writable) return;
  const { status, headers, body } = refusal(error);
  const lines = Object.entries({ ...headers, connection: 'close', 'content-length': String(Buffer.byteLength(body)) });
  const head = [`HTTP/1.1 ${status} ${phrases[status] ?? ''}`, ...lines.map(([name, value]) => `${name}: ${value}`)];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
}

/** Path and query of a request; undefined when they cannot be read. */
export function urlOf(request: IncomingMessage): URL | undefined {
  return URL.parse(request.url ?? '/', 'http://node') ?? undefined;
}

/** The access token of a request, from the query (browsers) or the Authorization header; '' when there is none. */
export function tokenOf(request: IncomingMessage, url: URL): string {
  const bearer = /^Bearer\s+(.+)$/i.exec(request.headers.authorization ?? '')?.[1];
  return url.searchParams.get('access_token') ?? bearer?.trim() ?? '';
}
