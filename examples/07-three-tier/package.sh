#!/bin/sh
# package.sh VERSION FOLDER: makes the package `notes` of that version, a small web service that keeps notes in PostgreSQL.
set -eu
version=$1 folder=$2
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
mkdir -p "$tree/DEBIAN" "$tree/usr/bin" "$tree/lib/systemd/system" "$folder"
cat >"$tree/DEBIAN/control" <<END
Package: notes
Version: $version
Architecture: all
Maintainer: notes <notes@example.org>
Depends: python3, python3-psycopg2
Description: notes
END
cat >"$tree/usr/bin/notes" <<END
#!/usr/bin/python3
"""notes serve | migrate; DATABASE_URL is in /etc/notes.conf."""
import http.server, os, sys
import psycopg2

VERSION = "$version"
MIGRATIONS = ["CREATE TABLE note (id serial PRIMARY KEY, text text NOT NULL)"]
END
cat >>"$tree/usr/bin/notes" <<'END'


def connect():
    with open("/etc/notes.conf") as file:
        settings = dict(line.strip().split("=", 1) for line in file)
    return psycopg2.connect(settings["DATABASE_URL"], connect_timeout=2)


def ask(sql, *values):
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


def migrate():
    ask("CREATE TABLE IF NOT EXISTS migration (number int PRIMARY KEY)")
    done = len(ask("SELECT number FROM migration"))
    for number, sql in enumerate(MIGRATIONS[done:], start=done):
        ask(sql + "; INSERT INTO migration VALUES (%s)", number)
        print(f"applied {number}")


class Notes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        notes = [text for (text,) in ask("SELECT text FROM note ORDER BY id")]
        self.answer(VERSION if self.path == "/health" else "\n".join([f"notes {VERSION}", *notes]) + "\n")

    def do_POST(self):
        ask("INSERT INTO note (text) VALUES (%s)", self.rfile.read(int(self.headers["content-length"])).decode())
        self.answer("kept\n")

    def answer(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())


if sys.argv[1:] == ["migrate"]:
    migrate()
else:
    http.server.ThreadingHTTPServer(("", 8080), Notes).serve_forever()
END
chmod 755 "$tree/usr/bin/notes"
cat >"$tree/lib/systemd/system/notes.service" <<END
[Unit]
Description=Notes
After=network.target
[Service]
ExecStart=/usr/bin/notes serve
[Install]
WantedBy=multi-user.target
END
dpkg-deb --root-owner-group --build "$tree" "$folder/notes_${version}_all.deb" >/dev/null
