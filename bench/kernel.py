#!/usr/bin/env python3
"""Measures the kernel memory of pending reads: bench/kernel.py [SPEAK] [READERS]

Opens long polls over loopback and compares the kernel's caches before and after (/proc/slabinfo,
for root only). Both ends of each connection are on this machine and have the same kind of socket.
So an object that each connection has twice counts half. Objects of the poll belong to the server
only, since the clients of this script do not poll. Other programs that open sockets meanwhile
distort the figures: the number of objects per connection, which has to be near 2 or 1, shows that.
"""

import os
import re
import resource
import socket
import subprocess
import sys

# Caches with one object per socket, at each end; then caches with objects for the end with the poll
# only. The kernel may merge these small ones with others of their size, so only their size is used.
BOTH_ENDS = ("TCP", "sock_inode_cache", "filp", "dentry", "lsm_inode_cache", "lsm_file_cache")
SERVER = ("eventpoll_epi", "eventpoll_pwq")


def caches():
    """Returns the objects in use and the size of one, by the name of the cache."""
    with open("/proc/slabinfo") as lines:
        rows = [line.split() for line in lines if not line.startswith(("#", "slabinfo"))]
    # All objects of a page that a processor has taken count as in use. With thousands of clients
    # this does not matter.
    return {row[0]: (int(row[1]), int(row[3])) for row in rows}


def sockets_kib():
    """Returns the bytes in TCP buffers, in KiB: their content, not their limit."""
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
        pending = b'"readers":%d}' % readers
        # A response to this call fits into one segment.
        with socket.create_connection(("127.0.0.1", port)) as observer:
            response = b""
            while not response.endswith(pending):
                observer.sendall(call)
                response = observer.recv(65536)
        after, buffers_after = caches(), sockets_kib()
    finally:
        server.terminate()
        server.wait()
    total = 0
    print(f"{readers} readers, {os.uname().release}")
    for name in BOTH_ENDS:
        # Without a security module, its caches do not exist.
        if name not in after:
            continue
        each = (after[name][0] - before[name][0]) / readers
        size = after[name][1]
        total += size * each / 2
        print(f"{name:18} {each:5.2f} of {size:5} bytes per connection, half of them the server's")
    for name in SERVER:
        with open(f"/sys/kernel/slab/{name}/slab_size") as lines:
            size = int(lines.read())
        total += size
        print(f"{name:18}     1 of {size:5} bytes, the server's")
    buffers = f"buffers {buffers_before} KiB before, {buffers_after} KiB after"
    print(f"{'together':18} {total:6.0f} bytes; {buffers}")
    others = [
        (size * (count - before.get(name, (0, 0))[0]) / readers, name)
        for name, (count, size) in after.items()
        if name not in BOTH_ENDS
    ]
    largest = sorted(others, reverse=True)[:6]
    grown = ", ".join(f"{name} {share:.0f}" for share, name in largest if share >= 8)
    print(f"other caches that grew, bytes per connection, all programs: {grown or 'none'}")


if __name__ == "__main__":
    main()
