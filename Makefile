# Everything here calls scripts/; `make help` lists it.
.DEFAULT_GOAL := build
.PHONY: build run page test test-long test-agents test-deb bench bench-cache soak load fuzz format install deb clean help

build: ## set up and build build/release/bin/trellis
	@scripts/setup run
	@scripts/build release

run: ## the same, then serve the default model; PORT=, MODEL=, ARGS=
	@exec scripts/run

page: ## build web/dist from web/src, for the next build to embed; needs Node 18
	@scripts/build_page

test: ## set up and run every test
	@scripts/test

test-long: ## the runs of hours: 10^7 operations on the cache, perplexity beside libllama
	@scripts/test long

test-agents: ## coding agents of npm (OpenCode, Codex, Claude Code, Qwen Code) with a model of 1.5B
	@scripts/test agents

bench: ## measure beside llama.cpp and OpenVINO GenAI, for hours; BENCH_ARGS=--quick for minutes
	@scripts/bench $(BENCH_ARGS)

bench-cache: ## the same of prompts that share their beginnings, also beside a Trellis that keeps nothing
	@scripts/bench --set cache $(BENCH_ARGS)

soak: ## 300 clients on a cache far too small; SOAK_MINUTES=20, SOAK_PRESET=dev with sanitizers
	@scripts/soak

load: ## 1,000 idle connections and 1,000 streams at once: what they cost
	@scripts/load

fuzz: ## run each libFuzzer target for FUZZ_SECONDS (60)
	@scripts/fuzz

format: ## clang-format every source
	@scripts/format

install: build ## install into PREFIX (/usr/local)
	@cmake --install build/release --prefix "$(or $(PREFIX),/usr/local)"

deb: ## make a Debian package of it, with a service
	@scripts/deb

test-deb: ## install, start, upgrade and purge it in a container with systemd, as root
	@scripts/test_deb

clean: ## remove build/; what was fetched stays in ~/.cache/trellis
	@rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile
