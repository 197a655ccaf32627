/**
 * When certificates are made anew, as decisions over what is there.
 *
 * The authority changes in two steps, so that everybody trusts the new one before anything is signed by it:
 *
 *     current ──(a third of its life is left)──> current + next ──(a day later)──> next is current
 *                                                trusted: both                     trusted: both, until the old one ends
 */

/** Whoever mounts a Secret has its new content after so long, milliseconds; the kubelet takes a minute or two. */
const spreadMs = 12 * 3600 * 1000;

/** A certificate, as far as decisions need it. Times are milliseconds since the epoch. */
export interface CertificateFacts {
  notBefore: number;
  notAfter: number;
  /** Subject in RFC 4514 form, its parts in order of name. */
  subject: string;
  /** DNS names in order. */
  names: readonly string[];
  /** Fingerprint of the authority that signed it; undefined when none of those that are trusted did. */
  signedBy: string | undefined;
}

/** An authority, as far as decisions need it. */
export interface AuthorityFacts {
  notBefore: number;
  notAfter: number;
  fingerprint: string;
}

/** What a certificate should be. */
export interface WantedCertificate {
  subject: string;
  names: readonly string[];
}

/** What is done with the authority, and why. */
export type AuthorityStep = { do: 'create' | 'announce' | 'promote'; reason: string } | { do: 'keep' };

/** @param current undefined when there is none, or none that can be read */
export function planAuthority(
  current: AuthorityFacts | undefined,
  next: AuthorityFacts | undefined,
  now: number,
): AuthorityStep {
  if (!current) return { do: 'create', reason: 'there is none' };
  if (current.notAfter <= now) return { do: 'create', reason: 'it has ended' };
  if (!isOld(current, now)) return { do: 'keep' };
  if (!next) return { do: 'announce', reason: 'a third of its life is left' };
  // Certificates are dated a day back, for clocks that are behind.
  const announcedAt = next.notBefore + 24 * 3600 * 1000;
  if (now - announcedAt < spreadMs) return { do: 'keep' };
  return { do: 'promote', reason: 'everybody trusts the next one by now' };
}

/** Why a certificate is made anew; undefined when it stays. */
export function whyRenew(
  wanted: WantedCertificate,
  present: CertificateFacts | undefined,
  authority: string,
  now: number,
): string | undefined {
  if (!present) return 'there is none';
  if (sorted(wanted.subject.split(',')) !== sorted(present.subject.split(','))) return 'its subject has changed';
  if (sorted(wanted.names) !== sorted(present.names)) return 'its names have changed';
  if (present.signedBy !== authority) return 'another authority signed it';
  if (isOld(present, now)) return 'a third of its life is left';
  return undefined;
}

function isOld({ notBefore, notAfter }: { notBefore: number; notAfter: number }, now: number): boolean {
  return notAfter - now <= (notAfter - notBefore) / 3;
}

function sorted(parts: readonly string[]): string {
  return parts
    .map((part) => part.trim())
    .sort()
    .join(',');
}
