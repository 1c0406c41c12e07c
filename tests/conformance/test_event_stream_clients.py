"""Event streams, read by clients that others wrote: each gets each event at once, and no other."""

import asyncio
import contextlib
import json
import queue
import socket
import threading
import unittest
from datetime import timedelta

import aiohttp
import httpx_sse
import requests
import sseclient
from aiohttp_sse_client.client import EventSource

from speak import GUARD, Server

ACCEPT = {"Accept": "text/event-stream"}


def open_by_requests(url):
    session = requests.Session()
    session.trust_env = False
    return session.get(url, headers=ACCEPT, stream=True, timeout=GUARD)


def requests_by_lines(_, url):
    """Parses as simply as many scripts do: each empty line ends an event."""
    fields = {}
    with open_by_requests(url) as answer:
        # requests takes a text without a charset for ISO 8859-1.
        answer.encoding = "utf-8"
        for line in answer.iter_lines(decode_unicode=True):
            if not line:
                yield fields.get("event", "message"), fields.get("data", "")
                fields = {}
            elif not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value


def sseclient_py(_, url):
    with open_by_requests(url) as answer:
        for event in sseclient.SSEClient(answer).events():
            yield event.event, event.data


def httpx_by_sse(server, url):
    with httpx_sse.connect_sse(server.http, "GET", url) as source:
        for event in source.iter_sse():
            yield event.event, event.data


async def aiohttp_sse(url, events):
    # After the end of the stream it comes back, and finds no server.
    with contextlib.suppress(aiohttp.ClientConnectionError):
        async with EventSource(url, reconnection_time=timedelta(0)) as source:
            async for event in source:
                events.put((event.type or "message", event.data))


class Stream:
    """A client that reads in a thread of its own, and what it returned so far."""

    def __init__(self, client, server):
        self.events = queue.Queue()
        url = f"http://127.0.0.1:{server.port}/read?channel=c"
        self.thread = threading.Thread(target=self.read, args=(client, server, url), daemon=True)
        self.thread.start()

    def read(self, client, server, url):
        try:
            if client is aiohttp_sse:
                asyncio.run(aiohttp_sse(url, self.events))
            else:
                for event in client(server, url):
                    self.events.put(event)
            self.events.put("end")
        except Exception as error:  # the test compares it with what it expects
            self.events.put(repr(error))

    def next(self):
        return self.events.get(timeout=GUARD)


def wait_for_heartbeat(server):
    """Waits until a stream that begins now has got a heartbeat: so have all that began earlier."""
    with socket.create_connection(("127.0.0.1", server.port), GUARD) as witness:
        witness.sendall(b"GET /read?channel=c HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n")
        with witness.makefile("rb") as lines:
            while lines.readline() != b":\n":
                pass


CLIENTS = [requests_by_lines, sseclient_py, httpx_by_sse, aiohttp_sse]
TEXTS = ["one", "two", "", "é" * 1000, "last"]


class EventStreamClients(unittest.TestCase):
    def check(self, client, heartbeat, silence):
        with self.subTest(client.__name__):
            server = Server("--heartbeat", heartbeat)
            self.addCleanup(server.stop)
            stream = Stream(client, server)
            self.assertEqual(stream.next(), ("ready", "{}"))
            for text in TEXTS:
                silence(server)
                server.call("write", channel="c", message=text)
                kind, data = stream.next()
                self.assertEqual((kind, json.loads(data)["message"]), ("message", text))
            silence(server)
            server.end()
            self.assertEqual(stream.next(), "end")
            stream.thread.join(GUARD)

    def test_each_event_arrives_at_once(self):
        # Without heartbeats: nothing but the event itself can make the client look.
        for client in CLIENTS:
            self.check(client, "1h", lambda server: None)

    def test_no_heartbeat_is_an_event(self):
        for client in CLIENTS:
            self.check(client, "50ms", wait_for_heartbeat)
