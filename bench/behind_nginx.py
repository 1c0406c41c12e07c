#!/usr/bin/env python3
"""Measures pending reads behind nginx: bench/behind_nginx.py [SPEAK] [READERS]

Starts Speak, and nginx with dist/proxies/nginx.conf and one worker process. Opens long polls, event
streams or WebSockets through nginx. Prints the memory of both processes per reader (Pss), and the
CPU time of both per delivery of a short message, by the scheduler's clock.
Needs two files per reader for nginx: `ulimit -Hn`.
"""

import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(__file__), "..")
ROUNDS = 10
KINDS = {
    "long polls": "",
    "event streams": "Accept: text/event-stream\r\n",
    "WebSockets": "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
}


def pss_kib(pid):
    """Returns the memory of a process; what it shares counts in part."""
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return int(re.search(r"Pss:\s+(\d+)", lines.read())[1])


def cpu_us(pid):
    with open(f"/proc/{pid}/schedstat") as line:
        return int(line.read().split()[0]) / 1000


def start_nginx(folder, speak_port, port):
    """Returns nginx and the id of its worker process."""
    with open(os.path.join(ROOT, "dist/proxies/nginx.conf")) as file:
        text = file.read()
    main = re.findall(r"^#     (.*)$", text, re.M)
    text = text.replace("127.0.0.1:8080;", f"127.0.0.1:{speak_port};")
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port} backlog=4096;")
    user = "user root;" if os.getuid() == 0 else ""
    lines = [f"{user} daemon off; pid {folder}/pid;", *main, "http {", text, "}"]
    path = f"{folder}/nginx.conf"
    with open(path, "w") as file:
        file.write("\n".join(lines).replace("/var/log/nginx", folder))
    command = ["nginx", "-e", "stderr", "-p", folder, "-c", path]
    nginx = subprocess.Popen(command, env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"})
    children = f"/proc/{nginx.pid}/task/{nginx.pid}/children"
    while True:
        with open(children) as file:
            if pids := file.read().split():
                return nginx, int(pids[0])
        time.sleep(0.1)


def call(port, target):
    """Makes a call to Speak itself and returns the response."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        with client.makefile("rb") as file:
            return file.read()


def wait_for(port, readers):
    while b'"readers":%d}' % readers not in call(port, "/members?channel=test"):
        time.sleep(0.1)


def measure(speak, readers, kind):
    request = f"GET /read?channel=test HTTP/1.1\r\nHost: x\r\n{KINDS[kind]}\r\n".encode()
    options = ["--listen", "127.0.0.1:0", "--trust-proxy", "127.0.0.1", "--poll-timeout", "10m"]
    server = subprocess.Popen([speak, *options], stderr=subprocess.PIPE, text=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        speak_port = int(re.search(r":(\d+)$", server.stderr.readline().strip())[1])
        nginx, worker = start_nginx(folder, speak_port, port)
        try:
            pids = {"nginx": worker, "speak": server.pid}
            before = {name: pss_kib(pid) for name, pid in pids.items()}
            clients = []
            for number in range(readers):
                client = socket.socket()
                # 50 clients per address: nginx limits them.
                client.bind((f"127.0.{number // 50 // 200}.{number // 50 % 200 + 1}", 0))
                client.connect(("127.0.0.1", port))
                client.sendall(request)
                clients.append(client)
            wait_for(speak_port, readers)
            for name, pid in pids.items():
                each = (pss_kib(pid) - before[name]) * 1024 / readers
                print(f"{readers} {kind}: {name} {each:.0f} bytes each, {before[name]} KiB before")
            spent = {name: cpu_us(pid) for name, pid in pids.items()}
            for number in range(ROUNDS):
                call(speak_port, "/write?channel=test&message=howdy")
                for client in clients:
                    text = b""
                    while b"howdy" not in text:
                        text += client.recv(65536)
                    if kind == "long polls" and number + 1 < ROUNDS:
                        client.sendall(request)
                if kind != "long polls" or number + 1 < ROUNDS:
                    wait_for(speak_port, readers)
            for name, pid in pids.items():
                each = (cpu_us(pid) - spent[name]) / ROUNDS / readers
                print(f"{readers} {kind}: {name} {each:.1f} µs per delivery")
        finally:
            for process in (nginx, server):
                process.terminate()
                process.wait()


def main():
    speak = sys.argv[1] if len(sys.argv) > 1 else "target/release/speak"
    readers = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    for kind in KINDS:
        measure(speak, readers, kind)


if __name__ == "__main__":
    main()
