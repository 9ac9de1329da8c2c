# `make` alone lists the commands.

CARGO ?= cargo
# For `make run`.
CONFIG ?= conf/minimal.yaml
# Every target builds into the same directory; cargo's own lock keeps parallel targets apart.
SHELL_FILES := $(addprefix scripts/,setup system test-apps test-stores test-stores-java test-prometheus test-systemd deny bench-tools check-counts release-pgo fuzz \
	build-program package package-files package-tools release test-package) $(addprefix conf/debian/,postinst prerm postrm) \
	conf/examples/rolling-deploy.sh
# For `make bench-load`: which cases (all), how many rounds of how many seconds, which contenders (all that are installed).
CASES ?=
ROUNDS ?= 3
SECONDS ?= 2
ONLY ?=
# Set: with the programs of `make release-pgo`.
PGO ?=
# For `make bench-shared` and `make bench-table`: which parts (all); for the former: which stores (all).
PARTS ?=
STORES ?=
# For `make fuzz`: minutes for each target, which targets (all); set MINIMIZE to renew the corpora.
MINUTES ?= 10
TARGETS ?=
MINIMIZE ?=
# For `make chaos`.
DURATION ?= 3600
SEED ?= 1
CLIENTS ?= 2000
# For `make release-pgo`: a profile of an earlier run replaces training.
PROFILE ?=
# For `make deb`, `make release` and `make test-package`: a program that is built already.
PROGRAM ?=

# For `make test-full-path`: themes of tests/it whose traffic takes the fast path otherwise; empty: all of them, 20 minutes.
SUBJECTS ?= cookies:: cookie_modes:: stickiness:: failover:: retries:: forwarding:: header_names:: request_forms:: response_forms:: \
	pipelining:: slow_bodies:: limits:: learned:: token_header:: routes_match:: early_responses:: removed_servers:: fast_path

.DEFAULT_GOAL := help
.PHONY: help demo run check fmt-check lint doc deny advisories shell-check test test-full-path test-apps test-stores test-prometheus test-systemd test-package deb release screenshots \
	bench bench-table bench-load bench-idle bench-http2 bench-listing bench-reload bench-shared counts counts-check counts-write release-pgo fuzz chaos fmt setup clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## three sample shops, the proxy in front of them, and commands to try
	$(CARGO) run --profile demo -- demo

run: setup ## the proxy with CONFIG=conf/minimal.yaml
	$(CARGO) run --profile demo -- run --config $(CONFIG)

check: fmt-check lint doc deny shell-check counts-check ## format, lints, docs, dependency rules, and the counts of a request's instructions and allocations

fmt-check:
	$(CARGO) fmt --check

lint: setup
	$(CARGO) clippy --all-targets -- -D warnings

doc: setup
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

deny:
	@scripts/deny

advisories: ## known vulnerabilities of the dependencies; needs cargo-deny, fetches its database
	$(CARGO) deny check advisories

shell-check:
	@for file in $(SHELL_FILES); do sh -n "$$file" || exit 1; done
	@if command -v bash >/dev/null 2>&1; then bash -n .ci/run; fi
	@if command -v shellcheck >/dev/null 2>&1; then shellcheck $(SHELL_FILES) .ci/run; fi
	@if command -v hadolint >/dev/null 2>&1; then hadolint Dockerfile; fi

test: setup test-apps test-stores test-prometheus test-systemd ## every test: unit, property, model, simulation, integration with real sockets
	$(CARGO) test

test-full-path: setup ## black-box tests with proxy.fast_path: off (all of them: SUBJECTS=)
	HOMING_TEST_FAST_PATH=off $(CARGO) test --test it -- $(SUBJECTS)

test-apps: setup ## install the packages of the applications that the tests start
	@scripts/test-apps

test-stores: setup ## fetch the stores that the tests start: Redis, Valkey, memcached, Hazelcast, Ignite
	@scripts/test-stores

screenshots: setup test-apps ## make the pictures of the dashboard in docs/images anew
	HOMING_SCREENSHOTS=docs/images $(CARGO) test --test it -- dashboard::every_view_fits

test-prometheus: setup ## fetch Prometheus and promtool, by which the tests run the rules of conf/observability
	@scripts/test-prometheus

test-systemd: ## install systemd-analyze, by which the tests check the units of conf/systemd
	@scripts/test-systemd

test-package: setup ## install, upgrade and remove the Debian package in a Debian of its own; root, some minutes: PROGRAM=file
	@scripts/test-package $(if $(PROGRAM),--program $(PROGRAM))

deb: setup ## the Debian package, in target/debian: PROGRAM=file
	@scripts/package $(if $(PROGRAM),--program $(PROGRAM))

release: setup ## archives, Debian package, SBOM and checksums, in target/release-VERSION: PROGRAM=file
	@scripts/release $(if $(PROGRAM),--program $(PROGRAM))

bench: setup ## the benches; docs/performance.md has results
	$(CARGO) bench

# Without huge pages, as `homing run`.
bench-table: setup ## the table from a thousand to ten million sessions, with a chart: PARTS=visits,start ROUNDS=3
	MIMALLOC_ALLOW_THP=0 $(CARGO) bench --bench table -- --scale "$(ROUNDS)" "$(PARTS)"
	python3 benches/table/report.py "$${CARGO_TARGET_DIR:-target}/bench-table/table.json"

bench-load: setup ## compare the proxy with a bare Pingora and other proxies: CASES=hit,new ROUNDS=3 SECONDS=2 ONLY=floor,homing-cookie PGO=1
	@scripts/bench-tools haproxy
	python3 benches/load/bench.py --cases "$(CASES)" --rounds "$(ROUNDS)" --seconds "$(SECONDS)" --only "$(ONLY)" $(if $(PGO),--pgo)

bench-idle: setup ## compare the memory of idle client connections with HAProxy and nginx: ARGS="--tls --http2 --connections 3000"
	@scripts/bench-tools haproxy nginx
	python3 benches/load/idle.py $(ARGS)

bench-http2: setup ## compare HTTP/2 with HAProxy and nginx, by h2load: ARGS="--tls --rounds 5 --streams 8"
	@scripts/bench-tools haproxy nginx h2load
	python3 benches/load/http2.py $(ARGS)

bench-listing: setup ## what listing a million sessions through the admin API costs traffic: ARGS="--rounds 5 --sessions 1000000"
	python3 benches/load/listing.py $(ARGS)

bench-reload: setup ## what reloads of 10,000 routes and 2,000 servers take, cost traffic and leave: ARGS="--reloads 100 --servers 2000"
	python3 benches/load/reload.py $(ARGS)

bench-shared: setup test-stores ## compare shared stores (Redis, Valkey, memcached, Hazelcast, Ignite) with the local table: PARTS=returning,first STORES=redis ROUNDS=3
	python3 benches/load/shared.py --parts "$(PARTS)" --stores "$(STORES)" --rounds "$(ROUNDS)" --seconds "$(SECONDS)"

counts: setup ## instructions, allocations and system calls per request, and in which functions
	@scripts/bench-tools valgrind strace
	python3 benches/load/counts.py --functions

counts-check: setup ## fail when a request takes over 2 % more instructions, or one more allocation, than benches/load/counts.txt allows
	@scripts/check-counts

counts-write: setup ## count, and write the result to benches/load/counts.txt
	@scripts/bench-tools valgrind strace
	python3 benches/load/counts.py --write

release-pgo: setup ## a PGO build in target/release-pgo, and its gain; three builds and training: PROFILE=file
	@scripts/bench-tools valgrind
	@scripts/release-pgo $(PROFILE)

fuzz: setup ## run the fuzz targets, ten minutes each; needs a nightly toolchain: MINUTES=1 TARGETS=token,cookie
	@MINUTES="$(MINUTES)" TARGETS="$(TARGETS)" MINIMIZE="$(MINIMIZE)" scripts/fuzz

chaos: setup test-stores ## an hour of kills, partitions, clock jumps, slow disks, upgrades …: DURATION=600 SEED=2 CLIENTS=500; as root with all faults
	$(CARGO) build --profile demo
	python3 scripts/chaos/run.py --duration "$(DURATION)" --seed "$(SEED)" --clients "$(CLIENTS)"

fmt: ## format the sources
	$(CARGO) fmt

setup: ## install what building needs, or say what is missing
	@scripts/setup

clean: ## remove all build output
	$(CARGO) clean
