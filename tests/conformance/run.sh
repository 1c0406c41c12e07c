#!/bin/sh
# Runs the tests of this directory against a binary of Speak: run.sh PATH
# What they need goes into a virtual environment, recreated when requirements.txt changes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binary=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
place=$here/../../target/conformance
"$here/../../.ci/venv" "$place" "$here/requirements.txt"
# promtool is part of Prometheus. Installing the package would take 330 MB and start a server, so
# only this program is extracted from it.
promtool=$(command -v promtool || true)
if [ -z "$promtool" ]; then
    promtool=$place/bin/promtool
    if [ ! -x "$promtool" ]; then
        mkdir -p "$place/package"
        cd "$place/package"
        if ! apt-get download -q prometheus; then
            $([ "$(id -u)" = 0 ] || echo sudo) apt-get update -q
            apt-get download -q prometheus
        fi
        dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xO ./usr/bin/promtool >promtool
        chmod +x promtool
        mv promtool "$promtool"
        rm -r "$place/package"
    fi
fi
cd "$here"
SPEAK_BIN=$binary PROMTOOL=$promtool PYTHONDONTWRITEBYTECODE=1 \
    exec "$place/bin/python" -W error::ResourceWarning -m unittest
