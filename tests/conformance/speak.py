"""A running server and the calls of the tests."""

import contextlib
import json
import os
import pathlib
import random
import re
import subprocess
import tempfile
import threading
import time

import httpx

# Longest wait for any event. It has to exceed the delays of a loaded machine.
GUARD = 15


class Process:
    """The binary named by SPEAK_BIN, on a free port."""

    def __init__(self, *options):
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SPEAK_")
        }
        # All logs in this folder are searched for secrets: see tests/secrets.py.
        self.logs = os.environ.get("SPEAK_TEST_LOGS")
        if self.logs:
            environment["SPEAK_LOG"] = "debug"
        # As tests/common/server.rs does, here and in Server.
        self.journal = None
        if sync := os.environ.get("SPEAK_TEST_JOURNAL"):
            self.journal = tempfile.TemporaryDirectory()
            options += ("--journal", f"{self.journal.name}/journal", "--journal-sync", sync)
        self.process = subprocess.Popen(
            [os.environ["SPEAK_BIN"], "--listen", "127.0.0.1:0", *options],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.has_ended = False
        self.port = self.next_port()
        self.admin_port = self.next_port() if "--admin-listen" in options else None
        # No reader takes this log, which must not fill the pipe.
        self.reader = threading.Thread(target=self.read_log, daemon=True)
        self.reader.start()
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=GUARD, trust_env=False
        )

    def next_port(self):
        greeting = self.process.stderr.readline()
        form = r"speak \S+ listening on http://127\.0\.0\.1:(\d+)( \(admin\))?\n"
        return int(re.fullmatch(form, greeting)[1])

    def read_log(self):
        log = self.process.stderr.read()
        if self.logs:
            pathlib.Path(self.logs, f"{self.process.pid}.log").write_text(log)

    def call(self, name, **parameters):
        if self.logs:
            with pathlib.Path(self.logs, f"{os.getpid()}.secrets").open("a") as secrets:
                secrets.writelines(json.dumps(str(value)) + "\n" for value in parameters.values())
        answer = self.http.get(f"/{name}", params=parameters)
        answer.raise_for_status()
        return answer.json()

    def end(self):
        """Stops the server politely, as an operator does."""
        self.process.terminate()
        assert self.process.wait(GUARD) == 0
        self.has_ended = True

    def stop(self):
        self.http.close()
        ended = None if self.has_ended else self.process.poll()
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stderr.close()
        if self.journal:
            self.journal.cleanup()
        assert ended is None, f"the server ended by itself: {ended}"


class Server:
    """A process or, with SPEAK_TEST_CLUSTER=3, three nodes: each use takes a random one."""

    def __init__(self, *options):
        self.redis = None
        count = int(os.environ.get("SPEAK_TEST_CLUSTER", 0))
        if count:
            self.redis = Redis()
            options += ("--cluster", self.redis.url)
        # The admin listener tells of one node.
        count = 1 if "--admin-listen" in options else max(count, 1)
        self.nodes = [Process(*options) for _ in range(count)]
        self.admin_port = self.nodes[0].admin_port
        for node in self.nodes:
            deadline = time.monotonic() + GUARD
            while node.http.get("/health").status_code != 200:
                assert time.monotonic() < deadline, "a node does not join"
                time.sleep(0.01)

    @property
    def port(self):
        return random.choice(self.nodes).port

    @property
    def http(self):
        return random.choice(self.nodes).http

    def call(self, name, **parameters):
        return random.choice(self.nodes).call(name, **parameters)

    def end(self):
        """Stops the nodes politely, as an operator does."""
        for node in self.nodes:
            node.end()

    def stop(self):
        for node in self.nodes:
            node.stop()
        if self.redis:
            self.redis.stop()


class Redis:
    """A redis-server on a Unix socket and no port."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        socket = f"{self.folder.name}/socket"
        self.url = f"redis+unix:{socket}"
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", socket, "--save", ""],
            stdout=subprocess.DEVNULL,
            cwd=self.folder.name,
        )
        deadline = time.monotonic() + GUARD
        while not os.path.exists(socket):
            assert time.monotonic() < deadline, "redis-server does not start"
            time.sleep(0.01)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


@contextlib.contextmanager
def scratch(name, text):
    """A temporary file with this name and text."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / name
        path.write_text(text)
        yield path
