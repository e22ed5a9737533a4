#!/usr/bin/env bash
# What `make demo` shows: three daemons on this machine take a book through in lockstep, twice. Cleans up behind itself.
set -euo pipefail
cd "$(dirname "$0")/.."
store=${STORE:-embedded}
export PATH="${LOCKSTEP_PROGRAMS:-$PWD/target/debug}:$PATH"
folder=$(mktemp -d "${TMPDIR:-/tmp}/lockstep-demo-XXXXXX")
trap 'tests/dev-cluster.sh down "$store" "$folder" >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
show() { say "$@"; "$@"; }

say "lockstep dev up --nodes 3    # store: $store"
tests/dev-cluster.sh up "$store" "$folder"
export LOCKSTEP_CONTEXT=$folder/context.yaml

show lockstep get nodes
show lockstep apply -f examples/01-lockstep/book.yaml
show lockstep plan web
show lockstep run web --wait
for node in n1 n2 n3; do
  say "cat /etc/web.conf    # on $node"
  # The token is a secret: shown here by its first letters only.
  sed 's/^\(token ....\).*/\1…/' "$folder/$node/root/etc/web.conf"
done
say "cat /run/web.started    # on each node: one after another"
cat "$folder"/n?/root/run/web.started
[[ $(grep -h '^token' "$folder"/n?/root/etc/web.conf | sort -u | wc -l) == 1 ]] || { echo "the nodes do not have the same token" >&2; exit 1; }

printf '\nThe same again: nothing changes.\n'
say lockstep run web --wait
again=$(lockstep run web --wait 2>&1) || { printf '%s\n' "$again"; exit 1; }
printf '%s\n' "$again"
grep -q '3 nodes: 3 ok' <<<"$again" || { echo "the second run changed something" >&2; exit 1; }
