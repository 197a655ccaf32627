/** Who calls, as the API server's front proxy says. After Kubernetes' request header authentication. Pure. */
import { z } from 'zod';
import { messageOf } from '#platform/errors.ts';

/** Somebody who was authenticated. */
export interface User {
  readonly username: string;
  readonly uid?: string;
  readonly groups: readonly string[];
  readonly extra: Readonly<Record<string, readonly string[]>>;
}

/** By which certificates and headers the front proxy is believed. Header names in lower case. */
export interface RequestHeaderRules {
  /** Authorities of its certificate, PEM. */
  readonly ca: string;
  /** Common names of its certificate; any when there are none. */
  readonly allowedNames: readonly string[];
  readonly usernameHeaders: readonly string[];
  readonly uidHeaders: readonly string[];
  readonly groupHeaders: readonly string[];
  readonly extraPrefixes: readonly string[];
}

const list = z.preprocess(
  (text) => (typeof text === 'string' ? (JSON.parse(text) as unknown) : []),
  z.array(z.string()).nullable(),
);
const names = list.transform((values) => values ?? []);
const headers = list.transform((values) => (values ?? []).map((value) => value.toLowerCase()));

const rulesSchema = z.object({
  'requestheader-client-ca-file': z.string().min(1),
  'requestheader-allowed-names': names,
  'requestheader-username-headers': headers,
  'requestheader-uid-headers': headers,
  'requestheader-group-headers': headers,
  'requestheader-extra-headers-prefix': headers,
});

/**
 * Reads the data of ConfigMap kube-system/extension-apiserver-authentication.
 * @returns the rules, or what is wrong in words
 */
export function requestHeaderRules(data: Readonly<Record<string, string>> | undefined): RequestHeaderRules | string {
  if (!data?.['requestheader-client-ca-file']) {
    return 'The API server names no authority for front proxies: it runs without --requestheader-client-ca-file';
  }
  try {
    const rules = rulesSchema.parse(data);
    return {
      ca: rules['requestheader-client-ca-file'],
      allowedNames: rules['requestheader-allowed-names'],
      usernameHeaders: rules['requestheader-username-headers'],
      uidHeaders: rules['requestheader-uid-headers'],
      groupHeaders: rules['requestheader-group-headers'],
      extraPrefixes: rules['requestheader-extra-headers-prefix'],
    };
  } catch (error) {
    return `ConfigMap kube-system/extension-apiserver-authentication cannot be read: ${messageOf(error)}`;
  }
}

/**
 * The user that a front proxy speaks for.
 * @param commonName of its certificate, which was verified against the rules' authorities
 * @param headers all values of each header, by name in lower case
 * @returns undefined when it may not speak for others, or names nobody
 */
export function frontProxyUser(
  rules: RequestHeaderRules,
  commonName: string,
  headers: Readonly<Record<string, readonly string[] | undefined>>,
): User | undefined {
  if (rules.allowedNames.length > 0 && !rules.allowedNames.includes(commonName)) return undefined;
  const first = (wanted: readonly string[]) => wanted.map((name) => headers[name]?.[0]).find((value) => value);
  const username = first(rules.usernameHeaders);
  if (!username) return undefined;
  const groups = rules.groupHeaders.flatMap((name) => headers[name] ?? []);
  return { username, uid: first(rules.uidHeaders), groups: withAuthenticated(groups), extra: extraOf(rules, headers) };
}

/** Everybody who is authenticated is in this group, though the front proxy does not say so of itself. */
function withAuthenticated(groups: readonly string[]): readonly string[] {
  const isSaid = groups.includes('system:authenticated') || groups.includes('system:unauthenticated');
  return isSaid ? groups : [...groups, 'system:authenticated'];
}

function extraOf(
  { extraPrefixes }: RequestHeaderRules,
  headers: Readonly<Record<string, readonly string[] | undefined>>,
): Record<string, readonly string[]> {
  const found: [string, readonly string[]][] = [];
  for (const [name, values = []] of Object.entries(headers)) {
    const prefix = extraPrefixes.find((each) => name.startsWith(each));
    if (prefix !== undefined) found.push([unescape(name.slice(prefix.length)), values]);
  }
  return Object.fromEntries(found);
}

function unescape(key: string): string {
  try {
    return decodeURIComponent(key);
  } catch {
    return key;
  }
}
