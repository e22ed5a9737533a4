#!/usr/bin/env bash
# dev-cluster.sh up|down embedded|etcd FOLDER [NODES]: nodes on this machine (three), for the demo and the benchmarks.
# With etcd: a real etcd of three members with mutual TLS, and three servers.
set -euo pipefail
action=$1 store=$2 folder=$3 nodes=${4:-3}

wait_for() { # FILE PID
  for _ in {1..600}; do
    [[ ! -e $1 ]] || return 0
    kill -0 "$2" 2>/dev/null || break
    sleep 0.1
  done
  echo "etcd did not start; its words are in $folder/etcd.log" >&2
  return 1
}

case $action in
up)
  mkdir -p "$folder"
  options=()
  if [[ $store == etcd ]]; then
    mkdir -p "$folder/etcd"
    lockstep-etcd "$folder/etcd" >"$folder/etcd.log" 2>&1 </dev/null &
    echo $! >"$folder/etcd.pid"
    wait_for "$folder/etcd/endpoints" "$(<"$folder/etcd.pid")"
    options=(--etcd "$(<"$folder/etcd/endpoints")" --etcd-identity "$folder/etcd/client")
  fi
  lockstep dev up --nodes "$nodes" --folder "$folder" "${options[@]}"
  ;;
down)
  lockstep dev down --folder "$folder"
  if [[ -e $folder/etcd.pid ]]; then
    pid=$(<"$folder/etcd.pid")
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    rm -rf "$folder/etcd" "$folder/etcd.pid" "$folder/etcd.log"
  fi
  ;;
esac
