#!/bin/bash
# What an idle agent costs: `idle.sh BIN-FOLDER SECONDS`. One server, one agent beside it, nothing to do; prints the agent's
# memory, and the processor time that it took in so many seconds.
set -euo pipefail
bin=$1 seconds=$2
folder=$(mktemp -d)
started=()
end() { for pid in "${started[@]}"; do kill "$pid" || true; done; wait; rm -rf "$folder"; }
trap end EXIT
place() { mkdir -p "$folder/$1/root"; echo --config "$folder/$1/yaml" --state-folder "$folder/$1/state" --root "$folder/$1/root"; }
ctl() { "$bin/lockstep" --context "$folder/context.yaml" "$@"; }
ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }
port=${PORT:-17411}
# shellcheck disable=SC2046
"$bin/lockstepd" init --name s1 --listen "127.0.0.1:$port" $(place s) --context-file "$folder/context.yaml" >/dev/null
"$bin/lockstepd" serve $(place s) >"$folder/s/log" 2>&1 & started+=($!)
for _ in $(seq 100); do ctl status >/dev/null 2>&1 && break; sleep 0.2; done
"$bin/lockstepd" join --name a1 --server-address "127.0.0.1:$port" $(place a) "$(ctl token create --node a1)" >/dev/null
"$bin/lockstepd" serve $(place a) >"$folder/a/log" 2>&1 & started+=($!)
agent=$!
sleep 10
before=$(ticks "$agent")
sleep "$seconds"
after=$(ticks "$agent")
grep -E 'VmRSS|RssAnon|RssFile' "/proc/$agent/status"
echo "processor: $((after - before)) of $((seconds * 100)) hundredths of a second"
