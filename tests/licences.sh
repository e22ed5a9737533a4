#!/usr/bin/env bash
# cargo-deny over all dependencies. Its advisories need a database from outside: where that cannot be had it is said.
set -euo pipefail
cd "$(dirname "$0")/.."
deny=target/tools/bin/cargo-deny
if [[ ! -x $deny ]]; then
  echo "building cargo-deny, once"
  # Speed of the tool does not matter, speed of its build does.
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
    cargo install --quiet --locked cargo-deny --version 0.20.2 --no-default-features --root target/tools --target-dir target/tools-build
  rm -rf target/tools-build
fi
"$deny" --locked check licenses bans sources
if timeout 60 "$deny" --locked fetch db 2>/dev/null; then
  "$deny" --locked check --disable-fetch advisories
else
  echo "advisories: their database cannot be had from here; not checked"
fi
