# The way around here: `make` lists what there is.

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Packages of Debian that the tests use, as PROGRAM:PACKAGE.
TEST_TOOLS := strace:strace curl:curl python3:python3 nginx:nginx-light openssl:openssl haproxy:haproxy caddy:caddy systemd-analyze:systemd chromium:chromium node:nodejs npm:npm
BLACK_BOX := $(shell grep -l '^mod common;' tests/*.rs)
WRK_TOOLS := wrk:wrk nginx:nginx-light
CHECK_TOOLS := valgrind:valgrind strace:strace
BENCH := bench/target/release/speak-bench
STRESS := tests/stress/target/release/speak-stress
SUPPORT := --locked --manifest-path tests/support/Cargo.toml --target-dir target
# Debian's python3 comes without what `python3 -m venv` needs.
VENV := python3 -c 'import ensurepip, venv' || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -yq --no-install-recommends python3-venv; }
# `where-it-can`: known faults are looked for only where the database can be had.
AUDIT ?=
# This machine's processor, or x86_64-unknown-linux-musl or aarch64-unknown-linux-musl.
MUSL ?= $(shell uname -m)-unknown-linux-musl
STATIC := target/$(MUSL)/release/speak
SEEDS ?= 10000
TARGET ?= session
SECONDS ?= 60
USERS ?= 1000
UPGRADES ?= 10
# On the stable compiler: the fuzzer's instrumentation needs no nightly one, only an address sanitizer would.
FUZZ := tests/fuzz
CARGO_FUZZ := cargo fuzz run --fuzz-dir $(FUZZ) --sanitizer none
FUZZ_LIMITS := -rss_limit_mb=1024 -timeout=10 -max_len=4096 -len_control=20 -print_final_stats=1

# Tests mostly wait for something.
export RUST_TEST_THREADS ?= 4

# What the servers of the tests log, and what must not be in it.
LOGS := $(CURDIR)/target/logs
test: export SPEAK_TEST_LOGS := $(LOGS)

.PHONY: help run test lint audit musl musl-test dist sim fuzz fuzz-keep fuzz-tools overload stress bench bench-full wrk bench-check bench-musl bench-tools bench-build fmt clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/' | expand -t 18

run: ## build and run the server with its demo, on ports 8080 and 7732
	cargo run --release --locked

test: ## all tests; installs what they need, from Debian, and from npm and PyPI into folders of its own
	@$(call install,$(TEST_TOOLS))
	@$(VENV)
	rm -rf $(LOGS) && mkdir -p $(LOGS)
	cargo test --locked
	cargo test $(SUPPORT)
	cargo build --locked
	tests/conformance/run.sh target/debug/speak
	tests/conformance/openapi/run.sh target/debug/speak
	cd tests/browser && npm ci --no-audit --no-fund && SPEAK_BIN=$(CURDIR)/target/debug/speak npm test
	python3 tests/secrets.py $(LOGS)

lint: ## formatting, clippy and documentation, all without a warning
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	for package in bench tests/support tests/stress tests/fuzz; do cargo fmt --check --manifest-path $$package/Cargo.toml || exit; done
	cargo clippy $(SUPPORT) --all-targets -- -D warnings
	cargo clippy --locked --all-targets --manifest-path bench/Cargo.toml -- -D warnings
	cargo clippy --locked --all-targets --manifest-path tests/stress/Cargo.toml -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

audit: ## the dependencies: licences, sources, build scripts, and known faults by RustSec's database, which is on GitHub
	@$(call install,python3:python3 git:git)
	@$(VENV)
	.ci/audit $(AUDIT)

musl: ## one static program, in target/$(MUSL)/release; MUSL=aarch64-unknown-linux-musl for another processor
	dist/musl.sh $(MUSL)

musl-test: musl ## is it static, small, does it run alone, and as in a container; and the black-box tests against it
	dist/check.sh $(STATIC)
	dist/container-check.sh $(STATIC)
	SPEAK_BIN=$(CURDIR)/$(STATIC) cargo test --locked $(patsubst tests/%.rs,--test %,$(BLACK_BOX))

dist: musl ## the static program packed: target/dist/speak-VERSION-….tar.gz and .deb; the same bytes each time
	dist/pack.sh $(MUSL)

sim: ## the simulations, of the hub beside its model and of the network: SEEDS=10000, or SPEAK_SIM_SEED=7 to replay one
	SPEAK_SIM_SEEDS=$(SEEDS) cargo test --locked --release --test sim --test net_sim -- --nocapture

fuzz: fuzz-tools ## look for faults: TARGET=request (chunked, form, frame, session), SECONDS=60; installs cargo-fuzz
	mkdir -p $(FUZZ)/found/$(TARGET)
	$(CARGO_FUZZ) $(TARGET) $(FUZZ)/found/$(TARGET) $(FUZZ)/corpus/$(TARGET) -- $(FUZZ_LIMITS) -max_total_time=$(SECONDS)

fuzz-keep: fuzz-tools ## add to the corpus of TARGET what `make fuzz` found, as little of it as reaches as much
	$(CARGO_FUZZ) $(TARGET) $(FUZZ)/corpus/$(TARGET) $(FUZZ)/found/$(TARGET) -- $(FUZZ_LIMITS) -merge=1 -use_counters=0

fuzz-tools:
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz

overload: ## slow peers by the thousand, 20,000 connects at once, 18,000 readers: what is served meanwhile, and what it costs
	SPEAK_OVERLOAD=1 cargo test --release --locked --test slow --test overload -- --nocapture --test-threads 1

stress: ## users who come, talk and leave in all ways, and a server that is upgraded and killed: SECONDS=60 USERS=1000 UPGRADES=10
	cargo build --release --locked
	cargo build --release --locked --manifest-path tests/stress/Cargo.toml
	$(STRESS) --speak target/release/speak --seconds $(SECONDS) --users $(USERS) --upgrades $(UPGRADES) $(if $(SEED),--seed $(SEED))

bench: bench-tools ## Speak beside nchan, nginx and the floor, in under two minutes; installs what it needs from Debian
	$(BENCH) run --quick --speak target/release/speak

bench-full: bench-tools ## the same for long: up to 18,000 readers
	$(BENCH) run --full --speak target/release/speak

wrk: bench-tools ## CPU time per request under wrk, beside nginx
	bench/wrk/run.sh target/release/speak

bench-check: bench-build ## what depends on no machine: system calls, memory and instructions, each within its limit
	@$(call install,$(CHECK_TOOLS))
	bench/syscalls.sh target/release/speak
	bench/instructions.sh target/release/speak

bench-musl: bench-build musl ## the static build beside the one for glibc: CPU time, memory, instructions
	@$(call install,$(CHECK_TOOLS))
	$(BENCH) run --quick --speak $(STATIC) --beside target/release/speak --results bench/results/musl
	bench/instructions.sh --beside target/release/speak $(STATIC)

bench-tools: bench-build
	@$(call install,$(WRK_TOOLS))
	@[ -e /usr/lib/nginx/modules/ngx_nchan_module.so ] || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -yq libnginx-mod-nchan; }

bench-build:
	cargo build --release --locked
	cargo build --release --locked --manifest-path bench/Cargo.toml

fmt: ## format the code
	cargo fmt

clean: ## remove what was built
	cargo clean

# Installs those packages of a list whose programs are missing.
define install
missing=; for tool in $(1); do command -v $${tool%%:*} >/dev/null || missing="$$missing $${tool##*:}"; done; \
if [ -n "$$missing" ]; then $(SUDO) apt-get update -q && $(SUDO) apt-get install -yq --no-install-recommends $$missing; fi
endef
