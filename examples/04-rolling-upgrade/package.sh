#!/bin/sh
# package.sh VERSION FOLDER [STATUS]: makes the package `shop` of that version, a small web service. Its health answers
# with STATUS (200); 500 is a version that is broken.
set -eu
version=$1 folder=$2 status=${3:-200}
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
mkdir -p "$tree/DEBIAN" "$tree/usr/lib/shop" "$tree/lib/systemd/system" "$folder"
cat >"$tree/DEBIAN/control" <<END
Package: shop
Version: $version
Architecture: all
Maintainer: shop <shop@example.org>
Depends: nginx-light
Description: the shop
END
cat >"$tree/usr/lib/shop/nginx.conf" <<END
pid /run/shop.pid;
events {}
http {
  access_log off;
  server {
    listen 8080;
    default_type text/plain;
    location / { return 200 "shop $version\n"; }
    location /health { return $status "$version"; }
  }
}
END
cat >"$tree/lib/systemd/system/shop.service" <<END
[Unit]
Description=The shop
After=network.target
[Service]
ExecStart=/usr/sbin/nginx -c /usr/lib/shop/nginx.conf -g "daemon off;"
KillSignal=SIGQUIT
TimeoutStopSec=5
[Install]
WantedBy=multi-user.target
END
dpkg-deb --root-owner-group --build "$tree" "$folder/shop_${version}_all.deb" >/dev/null
