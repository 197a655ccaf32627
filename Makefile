# What a person types. Everything else is in tools/.
NODE := node_modules/.bin/node
# Only what is written after `make demo` counts: a KUBECONFIG that happens to be set must not choose the cluster.
ifeq ($(origin KUBECONFIG),command line)
export WEIR_DEMO_KUBECONFIG := $(KUBECONFIG)
endif
ifeq ($(origin ADDRESS),command line)
export WEIR_DEMO_ADDRESS := $(ADDRESS)
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo cluster cluster-down image test bench lint generate clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo "  make demo KUBECONFIG=~/.kube/config   on a cluster that exists"
	@echo "  make demo ADDRESS=192.168.1.20        for others on this network"
	@echo "  make image BASE=docker.io/library/node:24-bookworm-slim   on an official base image"

setup: ## find or build everything that the other targets need
	@sh tools/setup/bootstrap.sh all

demo: ## a fleet on this machine, and a page to call on; Ctrl-C ends it
	@sh tools/setup/bootstrap.sh demo
	@WEIR_UNDER_MAKE=1 exec $(NODE) tools/demo/demo.ts

cluster: ## a Kubernetes of three nodes in two regions on this machine, in the background
	@sh tools/setup/bootstrap.sh cluster
	@exec $(NODE) tools/cluster/up.ts

cluster-down: ## ends it
	@exec $(NODE) tools/cluster/down.ts

image: ## images of Weir and NATS in .weir/*.tar, and in the cluster of `make cluster`
	@sh tools/setup/bootstrap.sh demo
	@exec $(NODE) tools/image/build.ts $(BASE)

test: ## lint, types, generated code, unit, integration and end-to-end tests
	@sh tools/setup/bootstrap.sh test
	@exec $(NODE) tools/test/run.ts

bench: ## the figures of docs/benchmarks.md
	@sh tools/setup/bootstrap.sh bench
	@exec $(NODE) tools/bench/run.ts

lint: ## eslint, prettier and the type checker
	@sh tools/setup/bootstrap.sh demo
	@PATH="$(CURDIR)/node_modules/.bin:$$PATH" npm run --silent lint
	@PATH="$(CURDIR)/node_modules/.bin:$$PATH" npm run --silent typecheck

generate: ## types from crds/ and proto/
	@sh tools/setup/bootstrap.sh demo
	@exec $(NODE) tools/codegen/generate.ts

clean: ## what the tools wrote into the checkout (built binaries stay in the cache)
	@[ ! -e .weir/cluster.json ] || $(NODE) tools/cluster/down.ts
	@rm -rf .weir dist
