#!/usr/bin/env bash
# dev-cluster.sh up|down embedded|etcd FOLDER: three nodes on this machine, for the demo and the benchmarks.
# With etcd: a real etcd of three members with mutual TLS, and three servers.
set -euo pipefail
action=$1 store=$2 folder=$3

case $action in
up)
  mkdir -p "$folder"
  if [[ $store == etcd ]]; then
    command -v etcd >/dev/null || { echo "etcd is missing: install Debian's etcd-server, or run tests/components.sh as root" >&2; exit 1; }
    endpoints=$(lockstep-etcd up "$folder/etcd")
    lockstep dev up --nodes 3 --folder "$folder" --etcd "$endpoints" --etcd-identity "$folder/etcd/client"
  else
    lockstep dev up --nodes 3 --folder "$folder"
  fi
  ;;
down)
  lockstep dev down --folder "$folder"
  [[ $store != etcd ]] || lockstep-etcd down "$folder/etcd"
  ;;
esac
