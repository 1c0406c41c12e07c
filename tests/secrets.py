#!/usr/bin/env python3
"""Searches the logs of all test servers for secrets: secrets.py FOLDER

FOLDER is the one that the tests got in SPEAK_TEST_LOGS. It holds logs at level `debug`, and the
secrets that were sent and received meanwhile, each as a line of JSON. A secret is a channel's name,
a message, an auth code, or a query string.
"""

import json
import pathlib
import re
import sys

# Shorter strings occur in any text by chance.
LENGTH_MIN = 5

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")

# Words that a request may leave in a log: the call, the status, the error's name.
REQUEST = re.compile(
    r"DEBUG ((read|write|introduce|goodbye|members|create|remove|kick|health|image-test"
    r"|file|preflight|acme-challenge|redirect-https|none)"
    r" \d{3}( [a-z_]+)?"
    r"|admin (/metrics|/health|none) \d{3})"
)

# Characters that only a query has.
QUERY = re.compile(
    r"\b(channel|message|auth|connection|from_id|callback|epoch)=|%[0-9A-Fa-f]{2}|~[rw]"
)


def lines_of(folder):
    """Returns the distinct lines of all logs without their times, and the number of lines."""
    lines, count = set(), 0
    for path in folder.glob("*.log"):
        # Not splitlines(), which splits at more than line feeds.
        for line in path.read_text(errors="replace").split("\n"):
            lines.add(TIME.sub("", line))
            count += 1
    return lines, count


def secrets_of(folder):
    secrets = set()
    for path in folder.glob("*.secrets"):
        secrets.update(json.loads(line) for line in path.read_text().split("\n") if line)
    return secrets


def is_telling(secret):
    """Returns whether only a client can be the source: it is no number and no common word."""
    text = secret.strip()
    return len(text) >= LENGTH_MIN and not re.fullmatch(r"[-+.:\d]+|[A-Za-z]{1,9}", text)


def found(lines, secrets):
    """Returns the secrets found in a line, and lines of unknown origin."""
    text = "\n".join(lines)
    faults = [f"the secret {secret!r}" for secret in secrets if secret.strip() in text]
    for line in lines:
        if QUERY.search(line):
            faults.append(f"a query: {line}")
        if line.startswith("DEBUG ") and not REQUEST.fullmatch(line):
            faults.append(f"no line about a request: {line}")
    return faults


def main():
    folder = pathlib.Path(sys.argv[1])
    lines, count = lines_of(folder)
    secrets = {secret for secret in secrets_of(folder) if is_telling(secret)}
    requests = sum(1 for line in lines if line.startswith("DEBUG "))
    assert requests >= 10 and len(secrets) >= 100, (
        f"{requests} kinds of lines and {len(secrets)} secrets: not all was kept"
    )
    # A search without a hit proves something only if it would find a planted secret.
    some = sorted(secrets)[:: max(1, len(secrets) // 5)]
    for secret in some:
        assert found(lines | {f"WARN trouble with {secret} today"}, secrets), (
            f"{secret!r} was planted, and not found"
        )
    faults = found(lines, secrets)
    for fault in faults[:20]:
        print(f"a log holds {fault}", file=sys.stderr)
    print(
        f"{count} lines of logs ({len(lines)} kinds) hold {len(faults)} of {len(secrets)} secrets"
    )
    sys.exit(1 if faults else 0)


main()
