# Everything a person or CI does with this tree. `make help` lists it.
.DEFAULT_GOAL := build
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

TOOLS := target/tools
PROTOX := $(TOOLS)/bin/protox
MDBOOK := $(TOOLS)/bin/mdbook
STORE ?= embedded
PEERS ?= limit lockstep-local lockstep installed
WORKLOADS ?= files,commands,mixed
FANOUT ?= limit lockstep
FANOUT_NODES ?= 3,10,30
NODES ?= 1000

.PHONY: help build release demo test components unit fuzz lint docs licences bench fanout scale clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

# etcd-client compiles its protos with a protoc when it builds; this one needs nothing but Rust.
$(PROTOX):
	cargo install --quiet --locked protox --version 0.10.0 --features bin --root $(TOOLS) --target-dir $(TOOLS)-build
	rm -rf $(TOOLS)-build

# Its default features serve and watch; a book is only built here.
$(MDBOOK):
	CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	  cargo install --quiet --locked mdbook --version 0.5.4 --no-default-features --features search --root $(TOOLS) --target-dir $(TOOLS)-build
	rm -rf $(TOOLS)-build

build: $(PROTOX) ## build both programs
	cargo build --locked --workspace

release: $(PROTOX) ## build both programs as they are shipped
	cargo build --locked --profile dist -p lockstep-daemon -p lockstep-ctl

demo: build ## three daemons on this machine take a real book through in lockstep (STORE=etcd: on three etcd members)
	STORE=$(STORE) tests/demo.sh

test: components build ## everything; installs the system's components that tests use when root, else names them
	tests/run.sh

components: ## install, or name, the system's components that tests use
	tests/components.sh

unit: $(PROTOX) ## only what needs no component: seconds
	cargo test --locked -p lockstep-apis -p lockstep-core -p lockstep-modules -p lockstep-executor

fuzz: $(PROTOX) ## fuzz what reads text, a minute each (SECONDS_EACH=600: longer)
	tests/fuzz.sh

lint: $(PROTOX) ## format and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked -p lockstep-core -- -D warnings -D clippy::disallowed_methods -D clippy::disallowed_types

docs: $(PROTOX) $(MDBOOK) ## the book (target/book) and the API's documentation, without a broken link
	$(MDBOOK) build docs
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

.PHONY: reference
reference: $(PROTOX) ## write docs/reference from the protos; a test fails when it is stale
	cargo run --locked --quiet -p lockstep-ctl -- explain --markdown docs/reference

licences: ## licences, bans and sources of all dependencies; advisories where their database can be had
	tests/licences.sh

bench: $(PROTOX) ## workloads side by side with the limit program and every other tool that is installed (PEERS="limit lockstep-local": only these)
	cargo build --locked --release -p lockstep-daemon -p lockstep-ctl -p lockstep-tests --bins
	PATH="$(CURDIR)/target/release:$$PATH" python3 tests/bench/run.py --workloads $(WORKLOADS) $(PEERS)

fanout: $(PROTOX) ## a book of 20 tasks on FANOUT_NODES nodes, until all have reported (FANOUT="limit lockstep salt ansible-ssh")
	cargo build --locked --release -p lockstep-daemon -p lockstep-ctl -p lockstep-tests --bins
	PATH="$(CURDIR)/target/release:$$PATH" python3 tests/bench/fanout.py --nodes $(FANOUT_NODES) $(FANOUT)

scale: $(PROTOX) ## NODES simulated agents over the real protocol, against a real server and etcd
	cargo build --locked --release -p lockstep-daemon -p lockstep-tests --bins
	target/release/lockstep-scale --nodes $(NODES)

clean: ## remove what was built
	cargo clean
