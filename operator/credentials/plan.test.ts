import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { planAuthority, whyRenew, type AuthorityFacts, type CertificateFacts } from './plan.ts';

const day = 24 * 3600 * 1000;
const now = 1_800_000_000_000;

function authority(from: number, to: number): AuthorityFacts {
  return { notBefore: now + from * day, notAfter: now + to * day, fingerprint: 'a' };
}

void describe('the authority', () => {
  const young = authority(-1, 3650);
  const old = authority(-3000, 600);
  void it('is made when there is none, or when it has ended', () => {
    assert.equal(planAuthority(undefined, undefined, now).do, 'create');
    assert.equal(planAuthority(authority(-3650, -1), undefined, now).do, 'create');
  });
  void it('stays while more than a third of its life is left', () => {
    assert.equal(planAuthority(young, undefined, now).do, 'keep');
  });
  void it('gets a successor, which signs nothing before everybody trusts it', () => {
    assert.equal(planAuthority(old, undefined, now).do, 'announce');
    // Certificates are dated a day back: this one was made a minute ago.
    assert.equal(planAuthority(old, authority(-1, 3650), now + 60_000).do, 'keep');
    assert.equal(planAuthority(old, authority(-1, 3650), now + day).do, 'promote');
  });
});

void describe('a certificate', () => {
  const wanted = { subject: 'CN=nats,OU=nats', names: ['nats.a.svc', 'nats'] };
  const present: CertificateFacts = {
    notBefore: now - 10 * day,
    notAfter: now + 80 * day,
    subject: 'OU=nats,CN=nats',
    names: ['nats', 'nats.a.svc'],
    signedBy: 'a',
  };
  void it('stays while it is what is wanted, in whatever order its parts are', () => {
    assert.equal(whyRenew(wanted, present, 'a', now), undefined);
  });
  const rows: [string, Partial<CertificateFacts>, RegExp][] = [
    ['is made anew when a third of its life is left', { notAfter: now + 5 * day }, /third/],
    ['is made anew when it has ended', { notAfter: now - day }, /third/],
    ['is made anew for other names', { names: ['nats'] }, /names/],
    ['is made anew for another subject', { subject: 'CN=nats' }, /subject/],
    ['is made anew when another authority signed it', { signedBy: 'b' }, /signed/],
    ['is made anew when no authority that is trusted signed it', { signedBy: undefined }, /signed/],
  ];
  for (const [title, change, why] of rows) {
    void it(title, () => assert.match(whyRenew(wanted, { ...present, ...change }, 'a', now) ?? '', why));
  }
  void it('is made when there is none', () => {
    assert.match(whyRenew(wanted, undefined, 'a', now) ?? '', /none/);
  });
});
