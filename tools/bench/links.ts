import type { PipeTransport, PlainTransport, Producer, Router, TransportListenInfo } from 'mediasoup/types';
import { receiveTrack, TrackSender } from '#sfu-node/media/track-sender.ts';

/**
 * How a link carries streams: `selective` is what nodes do (a PlainTransport at each end, layers by what is wanted),
 * `pipe` is mediasoup's PipeTransport, which carries every layer always.
 */
export type LinkForm = 'selective' | 'pipe';

/** One stream that crosses a link. */
export interface CarriedStream {
  /** The producer at the far end. */
  readonly producer: Producer;
  /** Lets these layers cross and no others; a pipe has no choice. */
  want(layers: readonly number[]): void;
}

/** A media link between routers of two workers, encrypted, over loopback. */
export interface MeasuredLink {
  readonly far: PlainTransport | PipeTransport;
  /** Lets a stream cross. In the selective form no layer does before it is wanted. */
  carry(producer: Producer): Promise<CarriedStream>;
}

const listenInfo: TransportListenInfo = { protocol: 'udp', ip: '127.0.0.1' };
const plainOptions = {
  listenInfo,
  rtcpMux: true,
  enableSrtp: true,
  srtpCryptoSuite: 'AEAD_AES_256_GCM',
} as const;

/** Opens both ends of a link. It ends with its routers. */
export function openLink(form: LinkForm, nearRouter: Router, farRouter: Router): Promise<MeasuredLink> {
  return form === 'pipe' ? openPipe(nearRouter, farRouter) : openSelective(nearRouter, farRouter);
}

async function openSelective(nearRouter: Router, farRouter: Router): Promise<MeasuredLink> {
  const near = await nearRouter.createPlainTransport(plainOptions);
  const far = await farRouter.createPlainTransport(plainOptions);
  await tie(near, far);
  return {
    far,
    async carry(source) {
      const sender = await TrackSender.create(near, nearRouter, source, (error) => {
        throw error;
      });
      const producer = await receiveTrack(far, sender.supply);
      const want = (layers: readonly number[]) =>
        sender.setDemand({ paused: false, layers: layers.reduce((bits, layer) => bits | (1 << layer), 0) });
      return { producer, want };
    },
  };
}

async function openPipe(nearRouter: Router, farRouter: Router): Promise<MeasuredLink> {
  const options = { listenInfo, enableSrtp: true, enableRtx: true };
  const near = await nearRouter.createPipeTransport(options);
  const far = await farRouter.createPipeTransport(options);
  await tie(near, far);
  return {
    far,
    async carry({ id, kind }) {
      const { rtpParameters } = await near.consume({ producerId: id });
      return { producer: await far.produce({ kind, rtpParameters }), want: () => undefined };
    },
  };
}

async function tie<T extends PlainTransport | PipeTransport>(near: T, far: T): Promise<void> {
  const connect = (end: T, { tuple, srtpParameters }: T) =>
    end.connect({ ip: tuple.localAddress, port: tuple.localPort, srtpParameters });
  await Promise.all([connect(near, far), connect(far, near)]);
}
