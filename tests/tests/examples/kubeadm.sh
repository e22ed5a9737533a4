#!/bin/sh
# Stands in for kubeadm and kubectl, which Debian does not have: the same commands, files, refusals and slowness, no
# Kubernetes. What the API server would know is in /shared/kubernetes.
set -eu
api=/shared/kubernetes etc=/etc/kubernetes
fail() { echo "error: $*" >&2; exit 1; }
pin() { openssl x509 -in "$1" -pubkey -noout | openssl pkey -pubin -outform der | sha256sum | cut -d' ' -f1; }

case "${0##*/} $1 ${2:-}" in
"kubeadm init --skip-token-print")
  [ ! -e $etc/admin.conf ] || fail "$etc/admin.conf already exists"
  [ ! -e $api ] || fail "there is a cluster already"
  mkdir -p $etc/pki $api/tokens $api/nodes
  openssl req -x509 -newkey rsa:2048 -nodes -keyout $etc/pki/ca.key -out $etc/pki/ca.crt -days 10 -subj /CN=kubernetes 2>&1
  cp $etc/pki/ca.crt $api/ca.crt
  echo "kind: Config" >$etc/admin.conf
  ;;
"kubeadm token create")
  [ -e $etc/admin.conf ] || fail "$etc/admin.conf is not there"
  token=$(openssl rand -hex 3).$(openssl rand -hex 8)
  : >"$api/tokens/$token"
  echo "$token"
  ;;
"kubeadm join --config")
  [ ! -e $etc/kubelet.conf ] || fail "$etc/kubelet.conf already exists"
  config=$(cat "$3")
  says() { echo "$config" | sed -n "s/^ *$1: //p"; }
  [ "$(says kind)" = JoinConfiguration ] || fail "no JoinConfiguration"
  [ "$(says apiServerEndpoint)" = h1:6443 ] || fail "no answer from the API server"
  token=$(says token)
  { [ -n "$token" ] && [ -e "$api/tokens/$token" ]; } || fail "the token is not known"
  [ "$(says caCertHashes)" = "[\"sha256:$(pin $api/ca.crt)\"]" ] || fail "the cluster's CA is not the pinned one"
  mkdir -p $etc
  echo "kind: Config" >$etc/kubelet.conf
  echo False >"$api/nodes/$(hostname)"
  ;;
"kubectl --kubeconfig="*" get")
  node=${3#node/}
  cat "$api/nodes/$node" || fail "nodes \"$node\" not found"
  echo True >"$api/nodes/$node" # by the next time somebody looks
  ;;
*) fail "${0##*/} $*" ;;
esac
