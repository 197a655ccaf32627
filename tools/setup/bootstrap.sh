#!/bin/sh
# Makes node_modules what package-lock.json says, then hands over to setup.ts on the Node that comes with it.
# usage: bootstrap.sh [demo|test|bench|cluster|all]
set -eu
cd "$(dirname "$0")/../.."
for tool in node npm; do
  if ! command -v "$tool" >/dev/null 2>&1; then
    echo "setup: $tool is missing. Install Node.js 20 or newer with npm: apt-get install nodejs npm, or https://nodejs.org/en/download" >&2
    exit 1
  fi
done
mkdir -p .weir
# One set-up at a time in a checkout. A lock whose owner is dead is taken over.
lock=.weir/setup.lock
while ! mkdir "$lock" 2>/dev/null; do
  owner=$(cat "$lock/pid" 2>/dev/null || true)
  if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then rm -rf "$lock"; continue; fi
  [ -n "${said-}" ] || echo "setup: waiting for another set-up (process ${owner:-starting})"
  said=1
  sleep 1
done
echo $$ >"$lock/pid"
trap 'rm -rf "$lock"' EXIT
trap 'exit 130' INT TERM HUP
if ! node tools/setup/installed.mjs; then
  began=$(date +%s)
  echo "setup: npm ci (packages of package-lock.json) ..."
  # mediasoup would build its worker now if it cannot download one; setup.ts sees to the worker with more care.
  if ! MEDIASOUP_WORKER_BIN="${MEDIASOUP_WORKER_BIN:-found-by-setup}" npm ci --no-audit --no-fund --loglevel=error >.weir/npm-ci.log 2>&1; then
    tail -n 30 .weir/npm-ci.log >&2
    echo "setup: npm ci failed, as above; the whole log is .weir/npm-ci.log" >&2
    exit 1
  fi
  echo "setup: npm ci done ($(($(date +%s) - began)) s)"
fi
# Not exec: the lock is held until the set-up ends.
node_modules/.bin/node tools/setup/setup.ts "$@"
