/** Run by the watchdog when a starter of processes has died. See leftovers.ts. */
import { endLeftovers } from '#tools/local/leftovers.ts';

await endLeftovers();
