/** What the page offers to benchmarks: plain data and calls, so that both sides of the browser can name it. */

/** A join: milliseconds from the call of connect() to each step, on the page's own clock. */
export interface JoinTimes {
  /** Node that media came from. */
  node: string;
  /** connect() answered: signalling is done and the media connection stands. */
  connected: number;
  /** The SDK says that it is subscribed to the publisher's camera. */
  subscribed: number;
  /** The first frame was decoded and handed to the video element. */
  firstFrame: number;
  /** What the browser itself noted of that frame, where it does: arrival of its last packet, and time in the decoder. */
  received: number | undefined;
  decodeMillis: number | undefined;
}

export interface BenchPageApi {
  /** Joins and publishes a camera of 640x360 with the SDK's own choice of layers; answers the node's name. */
  publish(url: string, token: string): Promise<string>;
  /** Joins, waits for the first frame of a camera, and leaves. */
  measureJoin(url: string, token: string): Promise<JoinTimes>;
  /** Several participants in one page, each with connections of its own; resolves when each has decoded a frame. */
  joinMany(url: string, tokens: readonly string[]): Promise<void>;
}
