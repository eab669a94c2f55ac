# make demo      the main job, shown: sets the machine up, builds, runs a mesh of five hosts and one instance
# make test      sets the machine up and runs all tests
# make verify    formats, lints, docs, licences and bans: changes nothing, runs no tests
# make fix       writes what verify only checks
# make bench     puts and reads beside etcd, beacons and CPU at committees of 3 to 21
# make sim       a long random search for faults in simulation (SEEDS=2000)
# make testnet   the scenarios on real daemons at length (ROUNDS=20)

SEEDS ?= 2000
ROUNDS ?= 20
TARGET := $(or $(CARGO_TARGET_DIR),target)
RUNNER := $(shell command -v cargo-nextest >/dev/null 2>&1 && echo nextest run || echo test)

.PHONY: demo test verify fix setup build bench sim testnet

setup:
	@scripts/setup

build: setup
	cargo build --workspace --locked

demo: setup
	cargo build --release --locked -p vouchsafe -p vouchsafe-testnet
	@$(TARGET)/release/testnet demo $(if $(KEEP),--keep) $(if $(CREDENTIAL),--credential '$(CREDENTIAL)')

test: build
	cargo $(RUNNER) --workspace --locked

verify: setup
	@scripts/setup-deny
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --locked
	cargo fetch --locked
	cargo deny --offline check bans licenses sources

fix: setup
	cargo fmt --all
	cargo clippy --workspace --all-targets --locked --fix --allow-dirty --allow-staged

bench:
	@scripts/setup etcd-server etcd-client
	cargo build --release --locked -p vouchsafe -p vouchsafe-testnet
	@$(TARGET)/release/testnet bench

sim: build
	$(TARGET)/debug/sim swarm crash --seeds $(SEEDS)
	$(TARGET)/debug/sim swarm partition --seeds $(SEEDS)
	$(TARGET)/debug/sim swarm registers --seeds $(SEEDS)
	$(TARGET)/debug/sim swarm boundaries --hosts 5 --seeds $(SEEDS)
	$(TARGET)/debug/sim swarm seats --hosts 8 --seeds $$(( $(SEEDS) / 10 ))

testnet: build
	$(TARGET)/debug/testnet run keep
	$(TARGET)/debug/testnet run heads
	$(TARGET)/debug/testnet run restart --rounds $(ROUNDS)
	$(TARGET)/debug/testnet run powercut --rounds $(ROUNDS)
	$(TARGET)/debug/testnet run failover --rounds $(ROUNDS)
	$(TARGET)/debug/testnet run partition --rounds $(ROUNDS)
	$(TARGET)/debug/testnet run restart-one --rounds 5
	$(TARGET)/debug/testnet run registers --rounds 125
	$(TARGET)/debug/testnet run grow
	$(TARGET)/debug/testnet run outside
	$(TARGET)/debug/testnet run chips
