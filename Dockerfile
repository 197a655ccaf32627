# Operator and SFU node in one image: `docker build .`, or `make image` where there is neither an engine nor a registry.
# The entry points are operator and sfu-node; the others are the chart's.
ARG BASE=docker.io/library/node:24-bookworm-slim

FROM ${BASE} AS packages
WORKDIR /build
ARG NODE_EXTRA_CA_CERTS
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund \
  && npm sbom --omit=dev --package-lock-only --sbom-format=spdx > sbom.spdx.json \
  && npm install --prefix bundler --ignore-scripts --no-audit --no-fund \
    "esbuild@$(node -p 'require("./package.json").devDependencies.esbuild')"
# A mediasoup-worker that was built here before goes before the official one.
COPY package.json .weir/image/mediasoup-worke[r] ./worker/
RUN if [ ! -x worker/mediasoup-worker ]; then \
      (cd node_modules/mediasoup && PYTHON=/bin/false node npm-scripts.mjs postinstall) \
      && cp node_modules/mediasoup/worker/out/Release/mediasoup-worker worker/; \
    fi

# Each program as one file with what it uses of its packages: it starts in half the time and takes two thirds of the
# memory. Names are kept, so stack traces can be read without source maps, which would take 20 MiB more.
FROM packages AS programs
COPY core ./core
COPY crds/generated ./crds/generated
COPY proto/generated ./proto/generated
COPY platform ./platform
COPY operator ./operator
COPY sfu-node ./sfu-node
# The call of `helm test`.
COPY tools/check ./tools/check
COPY tools/bench/rtp.ts ./tools/bench/
COPY tools/bench/load ./tools/bench/load
COPY test/fleet/token.ts ./test/fleet/
RUN bundler/node_modules/.bin/esbuild --bundle --platform=node --target=node24 --format=esm --outdir=programs \
      --legal-comments=linked --external:node-datachannel --log-level=warning --outbase=. \
      --out-extension:.js=.mjs \
      "--banner:js=import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" \
      operator/main.ts operator/credentials/main.ts operator/place/main.ts operator/reload/main.ts \
      operator/uninstall/main.ts sfu-node/main.ts tools/check/call.ts
# What has native code stays a package.
RUN mkdir native && cp -r --parents node_modules/node-datachannel node_modules/@node-datachannel native/

FROM ${BASE}
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG BASE
LABEL org.opencontainers.image.title="Weir" \
  org.opencontainers.image.description="Operator and SFU node of Weir" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}" \
  org.opencontainers.image.base.name="${BASE}" \
  dev.weir.sbom="/weir/sbom.spdx.json"
WORKDIR /weir
COPY --from=packages /build/worker/mediasoup-worker /usr/local/bin/
COPY --from=packages /build/sbom.spdx.json ./
COPY package.json LICENSE ./
COPY tools/image/bin/ /usr/local/bin/
COPY --from=programs /build/native/ ./
COPY --from=programs /build/programs/ ./
ENV MEDIASOUP_WORKER_BIN=/usr/local/bin/mediasoup-worker NODE_ENV=production
USER 65532:65532
ENTRYPOINT []
CMD ["operator"]
