import type { Router, WebRtcServer, WebRtcTransport } from 'mediasoup/types';
import type { Logger } from '#platform/log.ts';

/** Largest data message in bytes, both ways. LiveKit clients keep below 16 KB a packet; streams are cut up by them. */
export const maxMessageBytes = 65_536;

/**
 * Requests for a key frame within this time of the last one are gathered into one, milliseconds, on each hop: whoever comes
 * in a crowd costs the publisher one key frame. libwebrtc drops a request that comes within 300 ms of the key frame before,
 * and mediasoup asks again only after a second: without this, whoever joins right behind another sees nothing for that
 * second.
 */
export const keyFrameRequestDelayMs = 350;

/** Until a sender's bandwidth is estimated, bits a second. High enough for a first key frame at once. */
const initialOutgoingBitrate = 1_000_000;

/** A WebRTC transport towards one client, on the worker's one UDP and one TCP port. */
export async function createClientTransport(router: Router, webRtcServer: WebRtcServer): Promise<WebRtcTransport> {
  return router.createWebRtcTransport({
    webRtcServer,
    enableUdp: true,
    enableTcp: true,
    preferUdp: true,
    enableSctp: true,
    initialAvailableOutgoingBitrate: initialOutgoingBitrate,
    maxSendMessageSize: maxMessageBytes,
    maxReceiveMessageSize: maxMessageBytes,
  });
}

/** For who has to find out why a client has no media: how far its connection is. */
export function logStates(transport: WebRtcTransport, of: 'publisher' | 'subscriber', log: Logger): void {
  transport.on('icestatechange', (ice) => log.debug({ of, ice }, 'Media connection'));
  transport.on('dtlsstatechange', (dtls) => log.debug({ of, dtls }, 'Media connection'));
}
