#!/usr/bin/env bash
# Fuzzes each target for SECONDS_EACH, as many at once as there are processors. What breaks a target is left in
# target/fuzz/found/TARGET and fails the run; `target/fuzz/…/TARGET FILE` replays it.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SECONDS_EACH:-60}
targets=(manifest selector expression template)
host=$(rustc -vV | sed -n 's/^host: //p')
# The counters of the compiler's own coverage pass: no nightly compiler is needed.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code"
CARGO_TARGET_DIR=target/fuzz cargo build --quiet --locked --release --target "$host" --manifest-path tests/fuzz/Cargo.toml

fuzz() { # TARGET
  local found=target/fuzz/found/$1 corpus=target/fuzz/corpus/$1
  mkdir -p "$found" "$corpus"
  "target/fuzz/$host/release/$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 \
    -artifact_prefix="$found/" -print_final_stats=1 "$corpus" "tests/fuzz/seeds/$1" >"target/fuzz/$1.log" 2>&1 ||
    { tail -40 "target/fuzz/$1.log"; echo "fuzz $1: FAILED; the input is in $found" >&2; return 1; }
  echo "fuzz $1: $(sed -n 's/^stat::number_of_executed_units: *//p' "target/fuzz/$1.log") inputs, nothing found"
}
export -f fuzz
export seconds host
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'fuzz {}'
