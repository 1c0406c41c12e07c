#!/bin/sh
# Runs the tests of this directory against a binary of Speak: run.sh PATH
# What they need goes into a virtual environment, made anew when requirements.txt changes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binary=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
place=$here/../../target/conformance
if ! cmp -s "$here/requirements.txt" "$place/installed.txt"; then
    rm -rf "$place"
    python3 -m venv "$place"
    "$place/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$place/installed.txt"
fi
cd "$here"
SPEAK_BIN=$binary PYTHONDONTWRITEBYTECODE=1 exec "$place/bin/python" -W error::ResourceWarning -m unittest
