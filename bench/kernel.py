#!/usr/bin/env python3
"""What the kernel holds for clients that wait: bench/kernel.py [SPEAK] [READERS]

Opens long polls over loopback and looks at the kernel's caches (/proc/slabinfo, which root alone may read) before and
after. Each connection has both of its ends on this machine, and a client here has the same socket as the server. So what
there are two of for each connection counts half; what belongs to the poll is the server's alone, since the clients here
do not poll. Other programs that open sockets meanwhile spoil the figures: the number of objects of each connection,
which has to be near 2 or 1, shows it.
"""

import os
import re
import resource
import socket
import subprocess
import sys

# Caches of which a socket has one, at each end; then those that only the end with the poll has. The kernel may put these
# small ones together with others of their size, so of them the size alone is asked for.
BOTH_ENDS = ("TCP", "sock_inode_cache", "filp", "dentry", "lsm_inode_cache", "lsm_file_cache")
SERVER = ("eventpoll_epi", "eventpoll_pwq")


def caches():
    """Objects in use and the size of one, by the name of the cache."""
    with open("/proc/slabinfo") as lines:
        rows = [line.split() for line in lines if not line.startswith(("#", "slabinfo"))]
    # Of a page of objects, all count as in use by a processor that took it: with thousands that is no matter.
    return {row[0]: (int(row[1]), int(row[3])) for row in rows}


def sockets_kib():
    """Buffers of TCP, in KiB: what waits in them, not what they may grow to."""
    with open("/proc/net/sockstat") as lines:
        return int(re.search(r"TCP:.* mem (\d+)", lines.read())[1]) * resource.getpagesize() // 1024


def main():
    speak = sys.argv[1] if len(sys.argv) > 1 else "target/release/speak"
    readers = int(sys.argv[2]) if len(sys.argv) > 2 else 8000
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    options = ["--listen", "127.0.0.1:0", "--poll-timeout", "10m"]
    server = subprocess.Popen([speak, *options], stderr=subprocess.PIPE, text=True)
    try:
        port = int(re.search(r":(\d+)$", server.stderr.readline().strip())[1])
        before, buffers_before = caches(), sockets_kib()
        clients = []
        for _ in range(readers):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(b"GET /read?channel=test HTTP/1.1\r\nHost: x\r\n\r\n")
            clients.append(client)
        call = b"GET /members?channel=test HTTP/1.1\r\nHost: x\r\n\r\n"
        waiting = b'"readers":%d}' % readers
        # An answer of this call fits into one segment.
        with socket.create_connection(("127.0.0.1", port)) as asking:
            answer = b""
            while not answer.endswith(waiting):
                asking.sendall(call)
                answer = asking.recv(65536)
        after, buffers_after = caches(), sockets_kib()
    finally:
        server.terminate()
        server.wait()
    total = 0
    print(f"{readers} readers, {os.uname().release}")
    for name in BOTH_ENDS:
        # Without a module of security those of it are not there.
        if name not in after:
            continue
        each = (after[name][0] - before[name][0]) / readers
        size = after[name][1]
        total += size * each / 2
        print(f"{name:18} {each:5.2f} of {size:5} bytes a connection, half of them the server's")
    for name in SERVER:
        with open(f"/sys/kernel/slab/{name}/slab_size") as lines:
            size = int(lines.read())
        total += size
        print(f"{name:18}     1 of {size:5} bytes, the server's")
    print(f"{'together':18} {total:6.0f} bytes; buffers {buffers_before} KiB before, {buffers_after} KiB after")
    others = [
        (size * (count - before.get(name, (0, 0))[0]) / readers, name)
        for name, (count, size) in after.items()
        if name not in BOTH_ENDS
    ]
    grown = ", ".join(f"{name} {share:.0f}" for share, name in sorted(others, reverse=True)[:6] if share >= 8)
    print(f"others that grew, bytes a connection, both ends and whatever else runs here: {grown or 'none'}")


if __name__ == "__main__":
    main()
