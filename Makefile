# Targets of this project: `make` lists them.

# Debian packages that the tests need, as PROGRAM:PACKAGE.
TEST_TOOLS := strace:strace curl:curl python3:python3 venv:python3-venv nginx:nginx-light
TEST_TOOLS += openssl:openssl haproxy:haproxy caddy:caddy systemd-analyze:systemd ip:iproute2
TEST_TOOLS += redis-server:redis-server gnutls-cli:gnutls-bin pebble:pebble uacme:uacme lego:lego
TEST_TOOLS += certbot:certbot unshare:util-linux /etc/ssl/certs/ca-certificates.crt:ca-certificates
TEST_TOOLS += chromium:chromium firefox-esr:firefox-esr node:nodejs npm:npm
TEST_TOOLS += nft:nftables WebKitWebDriver:webkit2gtk-driver Xvfb:xvfb
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
# Settings: `make fuzz SECONDS=600` changes one.
#
# Argument of .ci/audit. `where-it-can`: no failure if the database of known faults is unreachable.
AUDIT ?=
# Processor of the static program: this machine's, or x86_64-, aarch64- or
# i686-unknown-linux-musl.
MUSL ?= $(shell uname -m)-unknown-linux-musl
STATIC := target/$(MUSL)/release/speak
# 1: `make musl` makes the program without the parts that few need, as speak-small.
SMALL ?=
# Number of seeds of `make sim`. SPEAK_SIM_SEED=7 in the environment replays one.
SEEDS ?= 10000
# Name in tests/fuzz/bin, for `make fuzz` and `make fuzz-keep`.
TARGET ?= session
# Duration of `make fuzz` and `make stress`.
SECONDS ?= 60
# Users and upgrades of `make stress`.
USERS ?= 1000
UPGRADES ?= 10
# `always` or `os`: the servers of `make stress` keep a journal, and are killed often.
JOURNAL ?=
# Number of servers in `make stress` that share a Redis.
NODES ?= 1
# 1: the users of `make stress` speak TLS.
TLS ?=
# Directory on the disk that `make bench-journal` measures.
DISK ?= target
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

help: ## use: print this list
	@for group in use develop measure; do \
	    echo "$$group:"; \
	    sed -nE "s/^([a-z-]+):[^#]*## $$group: (.*)/  make \1\t\2/p" $(MAKEFILE_LIST) | \
	    expand -t 22; done
	@echo 'More is in CONTRIBUTING.md. The Makefile has the settings of a target, with defaults.'

run: ## use: build the server and start it with its demo, on ports 8080 and 7732
	cargo run --release --locked

test: deps ## develop: run all tests; installs what they need first
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

deps: ## develop: install what the tests need: Debian packages (with sudo), npm and Python packages
	@.ci/deps $(TEST_TOOLS)
	@.ci/venv target/conformance tests/conformance/requirements.txt
	@.ci/venv target/openapi tests/conformance/openapi/requirements.txt
	@.ci/npm tests/browser

lint: check-style ## develop: check format, style and documentation, without a warning
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --no-default-features -- -D warnings
	for package in bench tests/support tests/stress tests/fuzz; do \
	    cargo fmt --check --manifest-path $$package/Cargo.toml || exit; done
	cargo clippy $(SUPPORT) --all-targets -- -D warnings
	cargo clippy --locked --all-targets --manifest-path bench/Cargo.toml -- -D warnings
	cargo clippy --locked --all-targets --manifest-path tests/stress/Cargo.toml -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

check-style: ## develop: check imports, words and columns: a part of lint
	.ci/cycles
	.ci/style

audit: ## develop: check licences and known faults of the dependencies
	@.ci/deps $(AUDIT_TOOLS)
	.ci/audit $(AUDIT)

musl: ## use: build one static program that runs on any Linux
	dist/musl.sh $(MUSL) $(if $(SMALL),small,full)

musl-both:
	dist/musl.sh $(MUSL) small
	dist/musl.sh $(MUSL) full

musl-test: musl-both ## develop: check the static program: size, memory, container, tests
	dist/check.sh $(STATIC)-small small
	dist/check.sh $(STATIC) full
	dist/container-check.sh $(STATIC)
	SPEAK_BIN=$(CURDIR)/$(STATIC)-small cargo test --locked --test conversation
	SPEAK_BIN=$(CURDIR)/$(STATIC) cargo test --locked $(addprefix --test ,$(MUSL_TESTS))

journal-test: ## develop: run the tests of the calls again, with a journal on the disk
	SPEAK_TEST_JOURNAL=always cargo test --locked $(addprefix --test ,$(JOURNAL_TESTS))

tls-test: ## develop: the same with TLS
	SPEAK_TEST_TLS=1 cargo test --locked $(addprefix --test ,$(TLS_TESTS)) -- \
	    $(addprefix --skip ,$(TLS_SKIP))

cluster-test: ## develop: the same with three servers that share a Redis, and behind proxies
	SPEAK_TEST_CLUSTER=3 cargo test --locked $(addprefix --test ,$(CLUSTER_TESTS))
	for proxy in nginx.conf haproxy.cfg; do \
	    SPEAK_TEST_CLUSTER=3 SPEAK_TEST_PROXY=$$proxy cargo test --locked \
	        $(addprefix --test ,$(PROXY_TESTS)) -- $(addprefix --skip ,$(PROXY_SKIP)) || exit; done

processors: ## develop: build for other processors, and try each build
	dist/processors.sh

dist: musl-both ## use: pack it as .tar.gz and as a Debian package, into target/dist
	dist/pack.sh $(MUSL)

client: client-tools ## develop: bundle the scripts for browsers after an edit; commit the result
	cd tests/browser && node bundle.mjs

npm: client-tools ## use: pack the browser client for npm, into target/dist
	node dist/npm.mjs

client-tools:
	@.ci/deps node:nodejs npm:npm
	@.ci/npm tests/browser

sim: ## develop: simulate many thousand random runs, each repeatable by its seed
	SPEAK_SIM_SEEDS=$(SEEDS) \
	    cargo test --locked --release --test sim --test net_sim --test cluster_sim -- --nocapture

fuzz: fuzz-tools ## develop: feed random bytes to the parsers, for a minute
	mkdir -p $(FUZZ)/found/$(TARGET)
	$(CARGO_FUZZ) $(TARGET) $(FUZZ)/found/$(TARGET) $(FUZZ)/corpus/$(TARGET) -- \
	    $(FUZZ_LIMITS) -max_total_time=$(SECONDS)

fuzz-keep: fuzz-tools ## develop: keep the inputs of fuzz that reached new code
	$(CARGO_FUZZ) $(TARGET) $(FUZZ)/corpus/$(TARGET) $(FUZZ)/found/$(TARGET) -- \
	    $(FUZZ_LIMITS) -merge=1 -use_counters=0

fuzz-tools:
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz

overload: ## measure: try thousands of slow clients, and 20,000 connects at once
	SPEAK_OVERLOAD=1 cargo test --release --locked --test slow --test overload --test hostile -- \
	    --nocapture --test-threads 1

stress: stress-build ## measure: try upgrades and kills under load, for a minute
	$(STRESS) --speak target/release/speak --seconds $(SECONDS) --users $(USERS) \
	    --upgrades $(UPGRADES) $(if $(SEED),--seed $(SEED)) \
	    $(if $(JOURNAL),--journal $(JOURNAL)) --nodes $(NODES) $(if $(TLS),--tls)

stress-build:
	cargo build --release --locked
	cargo build --release --locked --manifest-path tests/stress/Cargo.toml

bench: bench-tools ## measure: compare the speed with nginx and nchan, in under two minutes
	$(BENCH) run --quick --speak target/release/speak

bench-full: bench-tools ## measure: the same with up to 18,000 waiting clients; takes long
	$(BENCH) run --full --speak target/release/speak

wrk: bench-tools ## measure: measure the CPU time of a request under load, against nginx
	bench/wrk/run.sh target/release/speak

bench-check: bench-build ## measure: check the limits on system calls, memory and instructions
	@.ci/deps $(CHECK_TOOLS)
	bench/syscalls.sh target/release/speak
	bench/instructions.sh target/release/speak

bench-musl: bench-build musl ## measure: compare the static program with a usual build
	@.ci/deps $(CHECK_TOOLS)
	$(BENCH) run --quick --speak $(STATIC) --against target/release/speak \
	    --results bench/results/musl
	bench/instructions.sh --against target/release/speak $(STATIC)

bench-journal: bench-build ## measure: measure what the journal costs on a disk
	$(BENCH) journal --speak target/release/speak $(DISK)

bench-cluster: bench-build ## measure: measure what a cluster costs
	$(BENCH) cluster --speak target/release/speak

bench-peers: bench-tools ## measure: compare with Socket.IO, ws, Pushpin and nchan; 12 minutes
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

fmt: ## develop: format the code
	cargo fmt

clean: ## develop: remove all builds
	cargo clean
