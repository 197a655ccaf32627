import { Gauge, type Registry } from 'prom-client';

/** Adds the metric that says when a process's certificate ends. @param endsAt milliseconds since the epoch */
export function trackCertificate(registry: Registry, endsAt: () => number): void {
  new Gauge({
    name: 'weir_certificate_not_after_timestamp_seconds',
    help: 'When the certificate of this process ends, seconds since the epoch.',
    registers: [registry],
    collect() {
      this.set(endsAt() / 1000);
    },
  });
}
