# Targets of this project: `make` lists them.

# Debian packages that the tests need, as PROGRAM:PACKAGE.
TEST_TOOLS := strace:strace curl:curl python3:python3 venv:python3-venv nginx:nginx-light
TEST_TOOLS += openssl:openssl haproxy:haproxy caddy:caddy systemd-analyze:systemd ip:iproute2
TEST_TOOLS += redis-server:redis-server gnutls-cli:gnutls-bin pebble:pebble uacme:uacme lego:lego
TEST_TOOLS += certbot:certbot unshare:util-linux /etc/ssl/certs/ca-certificates.crt:ca-certificates
TEST_TOOLS += chromium:chromium firefox-esr:firefox-esr node:nodejs npm:npm
TEST_TOOLS += WebKitWebDriver:webkit2gtk-driver Xvfb:xvfb
AUDIT_TOOLS := python3:python3 venv:python3-venv git:git
CHECK_TOOLS := valgrind:valgrind strace:strace
BENCH_TOOLS := wrk:wrk nginx:nginx-light
BENCH_TOOLS += /usr/lib/nginx/modules/ngx_nchan_module.so:libnginx-mod-nchan
PEER_TOOLS := node:nodejs npm:npm pushpin:pushpin condure:condure zurl:zurl

# Black-box tests in which a journal changes the way of a call.
JOURNAL_TESTS := calls connections conversation crowd endings event_streams history hostile http
JOURNAL_TESTS += limits malformed metrics parameters reading slow stopping story
JOURNAL_TESTS += transports upgrade websockets feeds rooms moderation
# Those in which another C library, allocator or kind of program could matter, for the static build.
MUSL_TESTS := calls conversation hostile limits memory operating overload sandbox slow starting
MUSL_TESTS += state stopping transports upgrade https
# Those that run over TLS as well, without tests that have clients of their own or look at the bytes
# of the socket, and those in which a client above a limit is told so: it gets no handshake.
TLS_TESTS := calls conversation history http limits parameters reading story transports upgrade
TLS_SKIP := of_curl clients_per_address incomplete_requests_stay only_new_messages slow_consumer
# Those in which several nodes have to be like one. Of the others with calls, `slow`, `hostile`,
# `overload` and `metrics` measure one process (memory, descriptors, turns), and `stopping`, `state`
# and `upgrade` are about its end.
CLUSTER_TESTS := calls connections crowd endings event_streams files history http jsonp_cors limits
CLUSTER_TESTS += malformed parameters reading security story transports websockets
CLUSTER_TESTS += feeds rooms moderation
# Those that run through nginx and HAProxy in front of three nodes as well, without tests of what a
# proxy does by itself: it sends requests one by one, takes half a close for a close, answers
# `Expect`, and decides about upgrades.
PROXY_TESTS := calls connections conversation endings history jsonp_cors reading story websockets
PROXY_SKIP := one_turn half_close no_100_continue invalid_handshake upgrade_header before_a_fin
BENCH := bench/target/release/speak-bench
STRESS := tests/stress/target/release/speak-stress
SUPPORT := --locked --manifest-path tests/support/Cargo.toml --target-dir target
# Argument of .ci/audit. `where-it-can`: no failure if the database of known faults is unreachable.
AUDIT ?=
# This machine's processor, or x86_64-, aarch64- or i686-unknown-linux-musl.
MUSL ?= $(shell uname -m)-unknown-linux-musl
STATIC := target/$(MUSL)/release/speak
# 1: `make musl` makes the program without the parts that few need, as speak-small.
SMALL ?=
SEEDS ?= 10000
TARGET ?= session
SECONDS ?= 60
USERS ?= 1000
# Directory on the disk that `make bench-journal` measures.
DISK ?= target
UPGRADES ?= 10
# `always` or `os`: the servers of the stress run keep a journal, and are killed often.
JOURNAL ?=
# Number of servers in the stress run that share a Redis.
NODES ?= 1
# Works with the stable compiler: only an address sanitizer would need a nightly one.
FUZZ := tests/fuzz
CARGO_FUZZ := cargo fuzz run --fuzz-dir $(FUZZ) --sanitizer none
FUZZ_LIMITS := -rss_limit_mb=1024 -timeout=10 -max_len=4096 -len_control=20 -print_final_stats=1

# More threads than cores: the tests mostly wait.
export RUST_TEST_THREADS ?= 4

# Logs of the servers that tests start. tests/secrets.py looks for secrets in them.
LOGS := $(CURDIR)/target/logs
test: export SPEAK_TEST_LOGS := $(LOGS)

.PHONY: help run test rust-tests other-tests deps lint check-style
.PHONY: audit musl musl-both musl-test processors dist client
.PHONY: npm client-tools sim fuzz fuzz-keep fuzz-tools overload stress bench bench-full wrk
.PHONY: bench-check bench-musl bench-journal bench-cluster bench-peers bench-tools bench-build
.PHONY: stress-build journal-test cluster-test tls-test fmt clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
	    sed -E 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/' | expand -t 18

run: ## build and run the server with its demo, on ports 8080 and 7732
	cargo run --release --locked

test: deps ## all tests; first installs what they need, see `make deps`
	rm -rf $(LOGS) && mkdir -p $(LOGS)
	cargo test --locked --no-run
	cargo build --locked
	$(MAKE) --no-print-directory --jobs=2 rust-tests other-tests
	python3 tests/secrets.py $(LOGS)

# Two parts of `make test`, which run side by side.
rust-tests:
	cargo test --locked
	cargo test $(SUPPORT)

other-tests:
	tests/conformance/run.sh target/debug/speak
	tests/conformance/openapi/run.sh target/debug/speak
	cd tests/browser && SPEAK_BIN=$(CURDIR)/target/debug/speak npm test

deps: ## install what the tests need: Debian packages (with sudo), npm and Python packages
	@.ci/deps $(TEST_TOOLS)
	@.ci/venv target/conformance tests/conformance/requirements.txt
	@.ci/venv target/openapi tests/conformance/openapi/requirements.txt
	@.ci/npm tests/browser

lint: check-style ## formatting, clippy, documentation and style, without a warning
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --no-default-features -- -D warnings
	for package in bench tests/support tests/stress tests/fuzz; do \
	    cargo fmt --check --manifest-path $$package/Cargo.toml || exit; done
	cargo clippy $(SUPPORT) --all-targets -- -D warnings
	cargo clippy --locked --all-targets --manifest-path bench/Cargo.toml -- -D warnings
	cargo clippy --locked --all-targets --manifest-path tests/stress/Cargo.toml -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

check-style: ## circles of imports, system calls in pure folders, words, columns
	.ci/cycles
	.ci/style

audit: ## licences, sources, build scripts and known faults of the dependencies
	@.ci/deps $(AUDIT_TOOLS)
	.ci/audit $(AUDIT)

musl: ## static program, in target/*-linux-musl/release: SMALL=1, MUSL=aarch64-unknown-linux-musl
	dist/musl.sh $(MUSL) $(if $(SMALL),small,full)

musl-both:
	dist/musl.sh $(MUSL) small
	dist/musl.sh $(MUSL) full

musl-test: musl-both ## checks of the static programs: size, memory, container; black-box tests
	dist/check.sh $(STATIC)-small small
	dist/check.sh $(STATIC) full
	dist/container-check.sh $(STATIC)
	SPEAK_BIN=$(CURDIR)/$(STATIC)-small cargo test --locked --test conversation
	SPEAK_BIN=$(CURDIR)/$(STATIC) cargo test --locked $(addprefix --test ,$(MUSL_TESTS))

journal-test: ## black-box tests again, with a journal in each server
	SPEAK_TEST_JOURNAL=always cargo test --locked $(addprefix --test ,$(JOURNAL_TESTS))

tls-test: ## black-box tests again, over TLS
	SPEAK_TEST_TLS=1 cargo test --locked $(addprefix --test ,$(TLS_TESTS)) -- \
	    $(addprefix --skip ,$(TLS_SKIP))

cluster-test: ## black-box tests again: each client at a random one of three nodes; behind proxies
	SPEAK_TEST_CLUSTER=3 cargo test --locked $(addprefix --test ,$(CLUSTER_TESTS))
	for proxy in nginx.conf haproxy.cfg; do \
	    SPEAK_TEST_CLUSTER=3 SPEAK_TEST_PROXY=$$proxy cargo test --locked \
	        $(addprefix --test ,$(PROXY_TESTS)) -- $(addprefix --skip ,$(PROXY_SKIP)) || exit; done

processors: ## builds for i686, aarch64 and riscv64, each tested with a conversation
	dist/processors.sh

dist: musl-both ## the static programs as .tar.gz and .deb in target/dist, reproducible
	dist/pack.sh $(MUSL)

client: client-tools ## bundle the scripts of src/web, speak.js and demo.js: commit the result
	cd tests/browser && node bundle.mjs

npm: client-tools ## the client as a package for npm in target/dist, reproducible
	node dist/npm.mjs

client-tools:
	@.ci/deps node:nodejs npm:npm
	@.ci/npm tests/browser

sim: ## simulations of hub, network and cluster: SEEDS=10000, or SPEAK_SIM_SEED=7 to replay one seed
	SPEAK_SIM_SEEDS=$(SEEDS) \
	    cargo test --locked --release --test sim --test net_sim --test cluster_sim -- --nocapture

fuzz: fuzz-tools ## fuzzing: TARGET=session, or another name in tests/fuzz/bin; SECONDS=60
	mkdir -p $(FUZZ)/found/$(TARGET)
	$(CARGO_FUZZ) $(TARGET) $(FUZZ)/found/$(TARGET) $(FUZZ)/corpus/$(TARGET) -- \
	    $(FUZZ_LIMITS) -max_total_time=$(SECONDS)

fuzz-keep: fuzz-tools ## add inputs of `make fuzz` that reach new code to the corpus of TARGET
	$(CARGO_FUZZ) $(TARGET) $(FUZZ)/corpus/$(TARGET) $(FUZZ)/found/$(TARGET) -- \
	    $(FUZZ_LIMITS) -merge=1 -use_counters=0

fuzz-tools:
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz

overload: ## thousands of slow clients, 20,000 connects at once, 18,000 readers
	SPEAK_OVERLOAD=1 cargo test --release --locked --test slow --test overload --test hostile -- \
	    --nocapture --test-threads 1

stress: stress-build ## upgrades, kills: SECONDS=60 USERS=1000 UPGRADES=10 JOURNAL=always NODES=3
	$(STRESS) --speak target/release/speak --seconds $(SECONDS) --users $(USERS) \
	    --upgrades $(UPGRADES) $(if $(SEED),--seed $(SEED)) \
	    $(if $(JOURNAL),--journal $(JOURNAL)) --nodes $(NODES)

stress-build:
	cargo build --release --locked
	cargo build --release --locked --manifest-path tests/stress/Cargo.toml

bench: bench-tools ## Speak against nchan, nginx and a baseline, in under two minutes
	$(BENCH) run --quick --speak target/release/speak

bench-full: bench-tools ## the same with up to 18,000 readers; takes long
	$(BENCH) run --full --speak target/release/speak

wrk: bench-tools ## CPU time per request under wrk, against nginx
	bench/wrk/run.sh target/release/speak

bench-check: bench-build ## limits on system calls, memory and instructions, on any machine
	@.ci/deps $(CHECK_TOOLS)
	bench/syscalls.sh target/release/speak
	bench/instructions.sh target/release/speak

bench-musl: bench-build musl ## the static build against that for glibc: CPU, memory, instructions
	@.ci/deps $(CHECK_TOOLS)
	$(BENCH) run --quick --speak $(STATIC) --against target/release/speak \
	    --results bench/results/musl
	bench/instructions.sh --against target/release/speak $(STATIC)

bench-journal: bench-build ## costs of the journal on a disk, in under two minutes: DISK=target
	$(BENCH) journal --speak target/release/speak $(DISK)

bench-cluster: bench-build ## costs of a cluster, with a Redis of its own, in under two minutes
	$(BENCH) cluster --speak target/release/speak

bench-peers: bench-tools ## against Socket.IO, ws, Pushpin, nchan: ten minutes, into the docs
	@.ci/deps $(PEER_TOOLS)
	@.ci/npm bench/peers
	@echo "this takes eleven to twelve minutes, on a machine that does nothing else"
	rm -f bench/results/peers.json
	$(BENCH) run --peers --speak target/release/speak; status=$$?; \
	    bench/report.py bench/results/peers.json && exit $$status

bench-tools: bench-build
	@.ci/deps $(BENCH_TOOLS)

bench-build:
	cargo build --release --locked
	cargo build --release --locked --manifest-path bench/Cargo.toml

fmt: ## format the code
	cargo fmt

clean: ## remove all builds
	cargo clean
