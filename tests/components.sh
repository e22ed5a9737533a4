#!/usr/bin/env bash
# The system's components that the tests use. As root on a Debian machine: installs what is missing. Else: names it.
set -euo pipefail

# program:package
wanted=(
  etcd:etcd-server
  etcdctl:etcd-client
  mmdebstrap:mmdebstrap
  nft:nftables
  ip:iproute2
  strace:strace
  unshare:util-linux
  python3:python3
  g++:g++
  git:git
  dnf:dnf
  rpmbuild:rpm
  createrepo_c:createrepo-c
  sshd:openssh-server
)
missing=()
for pair in "${wanted[@]}"; do
  command -v "${pair%%:*}" >/dev/null || PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
((${#missing[@]})) || exit 0

if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  echo "installing: ${missing[*]}"
  apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "The tests need these packages, and only root can install them: ${missing[*]}" >&2
  echo "Install them (Debian: apt-get install ${missing[*]}), or run \`make unit\`, which needs none." >&2
  exit 1
fi
