import {
  Metadata,
  Server,
  ServerCredentials,
  status,
  type handleUnaryCall,
  type ServerWritableStream,
} from '@grpc/grpc-js';
import type { Clock } from '#platform/clock.ts';
import type { ListenAddress } from '#platform/config.ts';
import { codeOf, messageOf, WeirError } from '#platform/errors.ts';
import { listenError, printAddress } from '#platform/listen.ts';
import type { Logger } from '#platform/log.ts';
import {
  ExternalScalerService,
  type ExternalScalerServer,
  type IsActiveResponse,
  type ScaledObjectRef,
} from '#proto/externalscaler/externalscaler.ts';
import type { AutoscalingMetrics } from '../metrics.ts';
import type { PodFacts } from './metrics-api.ts';
import { demandOf, isActive, triggerOf } from './scaler.ts';

const metricName = 'sfu_streams';
/** How often it is looked whether a ScaledObject that is followed is still active, milliseconds. */
const lookMs = 1000;
const maxMessageBytes = 64 * 1024;

export interface ExternalScalerOptions {
  listen: ListenAddress;
  facts: PodFacts;
  /** How many Rooms there are. */
  rooms: () => number;
  metrics: AutoscalingMetrics;
  clock: Clock;
  log: Logger;
}

/** KEDA's external scaler: the streams of all pods of a ScaledObject, over plain gRPC. */
export class ExternalScaler {
  /** The port that it listens on. */
  readonly port: number;
  readonly #server: Server;

  /** @throws WeirError PortInUse and its kin naming WEIR_SCALER_LISTEN */
  static async create(options: ExternalScalerOptions): Promise<ExternalScaler> {
    const server = new Server({ 'grpc.max_receive_message_length': maxMessageBytes });
    server.addService(ExternalScalerService, implementation(options));
    const { listen } = options;
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(printAddress(listen), ServerCredentials.createInsecure(), (error, bound) => {
        if (!error) return resolve(bound);
        // gRPC keeps the system's code in the words alone.
        const code = /E[A-Z]{4,}/.exec(error.message)?.[0];
        reject(listenError(Object.assign(error, { code }), listen, 'WEIR_SCALER_LISTEN'));
      });
    });
    return new ExternalScaler(server, port);
  }

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  /** Ends every call. */
  close(): void {
    this.#server.forceShutdown();
  }
}

function implementation(options: ExternalScalerOptions): ExternalScalerServer {
  const { facts, rooms } = options;
  const demand = (ref: ScaledObjectRef) => {
    const trigger = triggerOf(ref);
    const samples = facts.samples();
    if (!samples) throw new WeirError('PodsUnknown', 'pods were not listed from the API server yet; try again');
    return demandOf(trigger, samples, (namespace, name) => facts.pod(namespace, name));
  };
  const active = (ref: ScaledObjectRef): IsActiveResponse => ({ result: isActive(demand(ref), rooms()) });
  const named = (ref: ScaledObjectRef | undefined) => ref ?? { name: '', namespace: '', scalerMetadata: {} };
  return {
    isActive: unary('IsActive', options, active),
    getMetricSpec: unary('GetMetricSpec', options, (ref: ScaledObjectRef) => {
      const { streamsPerPod } = triggerOf(ref);
      return { metricSpecs: [{ metricName, targetSize: streamsPerPod, targetSizeFloat: streamsPerPod }] };
    }),
    getMetrics: unary('GetMetrics', options, ({ scaledObjectRef }) => {
      const { streams } = demand(named(scaledObjectRef));
      return { metricValues: [{ metricName, metricValue: streams, metricValueFloat: streams }] };
    }),
    streamIsActive: (call) => follow(call, () => active(call.request), options),
  };
}

/** Tells whether a ScaledObject is active, now and whenever it changes, until the caller ends it. */
function follow(
  call: ServerWritableStream<ScaledObjectRef, IsActiveResponse>,
  look: () => IsActiveResponse,
  options: ExternalScalerOptions,
): void {
  let told: boolean | undefined;
  let cancel: () => void = () => undefined;
  const tell = () => {
    cancel = options.clock.after(lookMs, tell);
    try {
      const { result } = look();
      if (result !== told) call.write({ result });
      told = result;
    } catch (error) {
      cancel();
      call.emit('error', callError('StreamIsActive', error, options));
    }
  };
  const end = () => cancel();
  call.on('cancelled', end).on('close', end).on('error', end);
  options.metrics.scalerCalls.inc({ method: 'StreamIsActive', result: 'ok' });
  tell();
}

function unary<Request, Response>(
  method: string,
  options: ExternalScalerOptions,
  handle: (request: Request) => Response,
): handleUnaryCall<Request, Response> {
  return ({ request }, callback) => {
    try {
      const response = handle(request);
      options.metrics.scalerCalls.inc({ method, result: 'ok' });
      callback(null, response);
    } catch (error) {
      callback(callError(method, error, options));
    }
  };
}

const statuses: Readonly<Record<string, status>> = {
  BadScalerMetadata: status.INVALID_ARGUMENT,
  PodsUnknown: status.UNAVAILABLE,
};

function callError(method: string, error: unknown, { metrics, log }: ExternalScalerOptions) {
  const code = codeOf(error);
  metrics.scalerCalls.inc({ method, result: code });
  if (code === 'Internal') log.error({ err: error }, 'A call of the external scaler failed');
  else log.info({ code }, `A call of the external scaler was refused: ${messageOf(error)}`);
  const metadata = new Metadata();
  metadata.set('weir-error-code', code);
  const details = `${code}: ${messageOf(error)}`;
  return Object.assign(new Error(details), { code: statuses[code] ?? status.INTERNAL, details, metadata });
}
