import { LeaveRequest, LeaveRequest_Action, SignalResponse, type DisconnectReason } from '@livekit/protocol';

/** Ends the client's session for good. */
export function leaveForGood(reason: DisconnectReason): SignalResponse {
  return leave(reason, LeaveRequest_Action.DISCONNECT, false);
}

/** Sends the client through a new join, to whichever node serves its room by then. */
export function leaveAndReconnect(reason: DisconnectReason): SignalResponse {
  return leave(reason, LeaveRequest_Action.RECONNECT, true);
}

function leave(reason: DisconnectReason, action: LeaveRequest_Action, canReconnect: boolean): SignalResponse {
  return new SignalResponse({ message: { case: 'leave', value: new LeaveRequest({ reason, action, canReconnect }) } });
}

/** WebSocket close codes in use here (RFC 6455 7.4.1). */
export const closeCodes = {
  normal: 1000,
  goingAway: 1001,
  unsupportedData: 1003,
  policyViolation: 1008,
  tooBig: 1009,
  internal: 1011,
  /** Service restart: come back. */
  restart: 1012,
  tryLater: 1013,
} as const;
