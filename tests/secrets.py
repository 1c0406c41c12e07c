#!/usr/bin/env python3
"""Looks for secrets in everything that the servers of the tests have logged: secrets.py FOLDER

The folder holds what the tests leave where SPEAK_TEST_LOGS names it: logs at `debug`, and beside them the secrets that were
sent and told meanwhile, each a line of JSON. A secret is a channel's name, a message, a code, or a query string.
"""

import json
import pathlib
import re
import sys

# Shorter ones are in every text by chance.
LENGTH_MIN = 5

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")

# What one request may leave in a log: the call, the status, the error's name.
REQUEST = re.compile(
    r"DEBUG ((read|write|introduce|goodbye|members|create|health|image-test|file|preflight|none) \d{3}( [a-z_]+)?"
    r"|admin (/metrics|/health|none) \d{3})"
)

# What only a query has.
QUERY = re.compile(r"\b(channel|message|auth|connection|from_id|callback|epoch)=|%[0-9A-Fa-f]{2}|~[rw]")


def lines_of(folder):
    """The lines of all logs without their times, each once, and how many there were."""
    lines, count = set(), 0
    for path in folder.glob("*.log"):
        for line in path.read_text(errors="replace").splitlines():
            lines.add(TIME.sub("", line))
            count += 1
    return lines, count


def secrets_of(folder):
    secrets = set()
    for path in folder.glob("*.secrets"):
        secrets.update(json.loads(line) for line in path.read_text().splitlines())
    return secrets


def is_telling(secret, vocabulary):
    """Whether a log that holds it must have it from a client: it is no number, and none of the log's own words."""
    text = secret.strip()
    return len(text) >= LENGTH_MIN and not re.fullmatch(r"[-+.:\d]+", text) and text not in vocabulary


def found(lines, secrets):
    """The secrets that stand in a line, and lines that are none of ours."""
    text = "\n".join(lines)
    faults = [f"the secret {secret!r}" for secret in secrets if secret.strip() in text]
    for line in lines:
        if QUERY.search(line):
            faults.append(f"a query: {line}")
        if line.startswith("DEBUG ") and not REQUEST.fullmatch(line):
            faults.append(f"no line about a request: {line}")
    return faults


# Lines that a server writes by itself, whoever calls: a secret that is a part of these tells nothing.
VOCABULARY = "\n".join(
    [
        "speak listening on http://127.0.0.1 unix:/tmp/",
        "INFO started, for up to clients",
        "INFO stopping stopped at once",
        "WARN cannot accept more clients watch a new client: raise the limit on open files, or set --max-clients",
        "DEBUG read write introduce goodbye members create health image-test file preflight none admin /metrics",
        "bad_request missing_parameter bad_parameter bad_channel bad_callback bad_encoding bad_origin bad_auth",
        "not_readable not_writable not_found method_not_allowed request_timeout connection_ended message_too_large",
        "uri_too_long headers_too_large too_many_requests not_implemented over_capacity version_not_supported",
        "lines were lost here",
    ]
)


def main():
    folder = pathlib.Path(sys.argv[1])
    lines, count = lines_of(folder)
    secrets = {secret for secret in secrets_of(folder) if is_telling(secret, VOCABULARY)}
    requests = sum(1 for line in lines if line.startswith("DEBUG "))
    assert requests >= 10 and len(secrets) >= 100, f"{requests} kinds of lines and {len(secrets)} secrets: not all was kept"
    # A search that finds nothing proves something only if it would find what is there.
    some = sorted(secrets)[:: max(1, len(secrets) // 20)]
    for secret in some:
        assert found(lines | {f"WARN trouble with {secret} today"}, secrets), f"{secret!r} was planted, and not found"
    faults = found(lines, secrets)
    for fault in faults[:20]:
        print(f"a log holds {fault}", file=sys.stderr)
    print(f"{count} lines of logs ({len(lines)} kinds) hold {len(faults)} of {len(secrets)} secrets")
    sys.exit(1 if faults else 0)


main()
