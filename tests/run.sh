#!/usr/bin/env bash
# All tests. The suites that need isolated hosts need root; without it they fail and say so, they are not skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --locked --workspace
