"""WebSockets by the categories of the Autobahn test suite, whose cases are for echo servers.

Speak does not echo. A client that writes gets two frames: the response to the call, and the
message, since the socket subscribes to the channel to which it writes. So every text that Autobahn
would have echoed is the message of a `write`. The tests build the sent frames octet by octet, since
no client library sends invalid ones. PyPI's `websockets` parses and checks the received frames.
Numbers are those of Autobahn's categories.
"""

import json
import os
import socket
import struct
import unittest
import zlib

from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.sync.client import connect
from websockets.uri import parse_uri

from speak import GUARD, Server

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
BAD_REQUEST = "error bad_request"


def frame(opcode, payload=b"", fin=True, rsv=0):
    """Returns a masked frame, valid or not."""
    if isinstance(payload, str):
        payload = payload.encode()
    mask = os.urandom(4)
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if len(payload) < 126:
        head += struct.pack("!B", 0x80 | len(payload))
    elif len(payload) < 1 << 16:
        head += struct.pack("!BH", 0xFE, len(payload))
    else:
        head += struct.pack("!BQ", 0xFF, len(payload))
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return head + mask + masked.to_bytes(len(payload), "big")


def call(text):
    """Returns the call that writes a text; as bytes, so that invalid UTF-8 is possible."""
    if isinstance(text, str):
        text = text.encode()
    return b'{"call":"write","channel":"c","message":"' + text + b'"}'


def say(text):
    return frame(TEXT, call(text))


def parts(payload, size, between=b""):
    """Returns one message in frames of `size` bytes, with `between` between them."""
    cuts = range(0, len(payload), size)
    pieces = [payload[cut : cut + size] for cut in cuts]
    frames = [
        frame(CONTINUATION if place else TEXT, piece, fin=place == len(pieces) - 1)
        for place, piece in enumerate(pieces)
    ]
    return between.join(frames)


def close(code=None, reason=b""):
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def message(text):
    """Returns a received message, short enough to be printed."""
    return (
        "message",
        text if len(text) < 100 else f"{len(text)} characters, {zlib.crc32(text.encode()):x}",
    )


class Client:
    """A WebSocket whose received frames are parsed by `websockets`."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=GUARD)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.protocol = ClientProtocol(
            parse_uri(f"ws://127.0.0.1:{port}/read?channel=c"), max_size=None
        )
        self.protocol.send_request(self.protocol.connect())
        self.send(b"".join(self.protocol.data_to_send()))
        self.frames = []
        answer = self.next()
        assert isinstance(answer, Response) and self.protocol.state is OPEN, (
            self.protocol.handshake_exc
        )

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            # The server closed; its close frame gives the reason.
            pass

    def next(self):
        """Returns the next frame, or None if the server closes."""
        while not self.frames:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.protocol.receive_data(data)
            self.frames = self.protocol.events_received()
            if self.protocol.parser_exc:
                raise self.protocol.parser_exc
        return self.frames.pop(0)

    def next_event(self):
        """Returns the next frame in the notation of the tables below."""
        event = self.next()
        match event:
            case None:
                return "end"
            case Frame(Opcode.PONG):
                return ("pong", bytes(event.data))
            case Frame(Opcode.CLOSE):
                return f"close {struct.unpack('!H', event.data[:2])[0]}"
            case Frame(Opcode.TEXT):
                answer = json.loads(bytes(event.data))
                if "error" in answer:
                    return f"error {answer['error']}"
                if "id" in answer:
                    return "written"
                [said] = answer["messages"]
                return message(said["message"])
        raise AssertionError(f"no such frame is expected: {event}")


class Verdicts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--max-message", "4m", "--heartbeat", "1h")
        cls.addClassCleanup(cls.server.stop)

    def check(self, name, sent, expected, chop=None):
        """Sends bytes, whole and in pieces, and expects these frames. Closes if still open."""
        is_last = str(expected[-1]).startswith("close")
        for size in [chop] if chop else [len(sent), 1] if len(sent) < 300 else [len(sent), 997]:
            with self.subTest(name, chop=size):
                client = Client(self.server.port)
                with client.socket:
                    for start in range(0, len(sent), size):
                        client.send(sent[start : start + size])
                    received = []
                    if is_last:
                        while not received or received[-1] != "end":
                            received.append(client.next_event())
                        # The order of an echo and a close reply depends on how the bytes arrived.
                        received = [it for it in received if it[0] != "message"]
                        self.assertEqual(
                            received, [it for it in expected if it[0] != "message"] + ["end"]
                        )
                        continue
                    received = [client.next_event() for _ in expected]
                    # So does the interleaving of messages and responses. Each kind is in order.
                    for its in [lambda it: it[0] == "message", lambda it: it[0] != "message"]:
                        self.assertEqual(list(filter(its, received)), list(filter(its, expected)))
                    client.send(close(1000))
                    self.assertEqual(
                        [client.next_event(), client.next_event()], ["close 1000", "end"]
                    )

    def echo(self, name, sent, *texts, before=(), after=(), chop=None):
        """Writes every text and expects it back."""
        said = [it for text in texts for it in ("written", message(text))]
        self.check(name, sent, [*before, *said, *after], chop)

    def test_1_framing(self):
        for length in [0, 1, 125, 126, 127, 128, 65_535 - len(call("")), 65_535, 65_536]:
            self.echo(f"a text of {length}", say("*" * length), "*" * length)
        self.check("an empty text", frame(TEXT), [BAD_REQUEST])
        for length in [0, 125, 126, 65_536]:
            # Autobahn expects an echo of binary frames; here they are no calls.
            self.check(f"binary of {length}", frame(BINARY, b"\xfe" * length), ["close 1003"])

    def test_2_pings(self):
        self.check("empty", frame(PING), [("pong", b"")])
        self.check("text", frame(PING, "Hello, world!"), [("pong", b"Hello, world!")])
        self.check(
            "no text",
            frame(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),
            [("pong", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")],
        )
        self.check("125 bytes", frame(PING, b"\xfe" * 125), [("pong", b"\xfe" * 125)])
        self.check("126 bytes", frame(PING, b"\xfe" * 126), ["close 1002"])
        self.check(
            "unsolicited pongs",
            frame(PONG) + frame(PONG, "x") + frame(PING, "y"),
            [("pong", b"y")],
        )
        many = [f"payload-{number}" for number in range(10)]
        self.check(
            "ten", b"".join(frame(PING, it) for it in many), [("pong", it.encode()) for it in many]
        )

    def test_3_reserved_bits(self):
        for rsv in range(1, 8):
            self.check(f"text, {rsv}", frame(TEXT, call("x"), rsv=rsv), ["close 1002"])
            self.echo(
                f"behind text, {rsv}",
                say("x") + frame(TEXT, "{}", rsv=rsv) + frame(PING),
                "x",
                after=["close 1002"],
            )
            self.check(f"ping, {rsv}", frame(PING, "x", rsv=rsv), ["close 1002"])
            self.check(f"close, {rsv}", frame(CLOSE, rsv=rsv), ["close 1002"])
            self.check(
                f"continuation, {rsv}",
                frame(TEXT, "{", fin=False) + frame(CONTINUATION, "}", rsv=rsv),
                ["close 1002"],
            )

    def test_4_opcodes(self):
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]:
            self.check(f"{opcode}", frame(opcode), ["close 1002"])
            self.check(f"{opcode} with payload", frame(opcode, "reserved"), ["close 1002"])
            self.echo(
                f"{opcode} behind text",
                say("x") + frame(opcode, "y") + frame(PING),
                "x",
                after=["close 1002"],
            )

    def test_5_fragmentation(self):
        half = call("fragmented")
        first, second = frame(TEXT, half[:20], fin=False), frame(CONTINUATION, half[20:])
        ping = frame(PING, "ping payload")
        pong = ("pong", b"ping payload")
        self.check(
            "5.1 ping in two",
            frame(PING, "x", fin=False) + frame(CONTINUATION, "y"),
            ["close 1002"],
        )
        self.check(
            "5.2 pong in two",
            frame(PONG, "x", fin=False) + frame(CONTINUATION, "y"),
            ["close 1002"],
        )
        self.check("a close in two", frame(CLOSE, fin=False), ["close 1002"])
        self.echo("5.3 text in two", first + second, "fragmented")
        self.echo("5.6 a ping between", first + ping + second, "fragmented", before=[pong])
        for what, last in [("5.9", True), ("5.11", False)]:
            nothing = frame(CONTINUATION, "non-continuation payload", fin=last)
            self.check(f"{what} a continuation of nothing", nothing + say("x"), ["close 1002"])
        self.echo(
            "5.12 it behind text",
            say("x") + frame(CONTINUATION, "y", fin=False),
            "x",
            after=["close 1002"],
        )
        self.echo(
            "5.15 two texts, then it",
            first + second + frame(CONTINUATION, "y", fin=False),
            "fragmented",
            after=["close 1002"],
        )
        self.check("5.18 a text in a text", first + frame(TEXT, "fragment2"), ["close 1002"])
        self.check("binary in a text", first + frame(BINARY, "fragment2"), ["close 1003"])
        self.echo(
            "5.19 pings all over",
            parts(half, 9, ping),
            "fragmented",
            before=[pong] * (-(-len(half) // 9) - 1),
        )
        self.echo("octets", parts(half, 1), "fragmented")
        empty = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 3
        self.echo("empty parts", empty + frame(CONTINUATION, half), "fragmented")
        self.check("nothing but empty parts", empty + frame(CONTINUATION), [BAD_REQUEST])

    def test_6_utf8(self):
        good = [
            "Hello-µ@ßöäüàá-UTF-8!!",
            "κόσμε",
            "\u07ff",
            "\u0800",
            "\uffff",
            "\U00010000",
            "\U0010ffff",
            "\ud7ff",
            "\ue000",
            "\ufffd",
            "\ufffe",
            "\U0001fffe",
            "\U0010fffe",
        ]
        for text in good:
            self.echo(f"whole, {text!r}", say(text), text)
            self.echo(f"in octets, {text!r}", parts(call(text), 1), text)
        bad = [
            # Lone and missing continuations.
            b"\x80",
            b"\xbf",
            b"\x80\xbf\x80",
            b"\xc0 ",
            b"\xe0 ",
            b"\xf0 ",
            b"\xf8 ",
            b"\xfc ",
            b"\xc3",
            b"\xe2\x82",
            b"\xf0\x90\x80",
            b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64",
            # Bytes that never occur in UTF-8.
            b"\xfe",
            b"\xff",
            b"\xfe\xfe\xff\xff",
            b"\xf8\x88\x80\x80\x80",
            b"\xfc\x84\x80\x80\x80\x80",
            # Overlong encodings.
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            b"\xf0\x80\x80\xaf",
            b"\xc1\xbf",
            b"\xe0\x9f\xbf",
            b"\xf0\x8f\xbf\xbf",
            b"\xc0\x80",
            # Surrogates, alone and in pairs; beyond Unicode.
            b"\xed\xa0\x80",
            b"\xed\xbf\xbf",
            b"\xed\xa0\x80\xed\xb0\x80",
            b"\xf4\x90\x80\x80",
            b"\xf7\xbf\xbf\xbf",
        ]
        for octets in bad:
            self.check(f"whole, {octets!r}", say(octets) + say("x"), ["close 1007"])
            self.check(f"in octets, {octets!r}", parts(call(octets), 1) + say("x"), ["close 1007"])
            self.check(f"alone, {octets!r}", frame(TEXT, octets), ["close 1007"])
        # Autobahn prefers a close at the first invalid octet; one at the end is "non-strict".
        self.check(
            "6.4 at the end", parts(call(b"\xce\xba\xf4\x90\x80\x80 and more"), 5), ["close 1007"]
        )

    def test_7_close(self):
        self.echo(
            "7.1.1 behind text",
            say("Hello World!") + close(1000),
            "Hello World!",
            after=["close 1000"],
        )
        self.check("7.1.2 twice", close(1000) + close(1000), ["close 1000"])
        self.check("7.1.3 a ping behind", close(1000) + frame(PING), ["close 1000"])
        self.check("7.1.4 a text behind", close(1000) + say("x"), ["close 1000"])
        self.check(
            "7.1.5 within a text",
            frame(TEXT, "{", fin=False) + close(1000) + frame(CONTINUATION),
            ["close 1000"],
        )
        self.check("7.3.1 empty", close(), ["close 1000"])
        self.check("7.3.2 one octet", frame(CLOSE, "a"), ["close 1002"])
        self.check("7.3.4 with a reason", close(1000, b"Hello World!"), ["close 1000"])
        self.check("7.3.5 of 123 octets", close(1000, b"*" * 123), ["close 1000"])
        self.check("7.3.6 of 124 octets", close(1000, b"*" * 124), ["close 1002"])
        self.check("7.5.1 no UTF-8", close(1000, b"\xce\xba\xed\xa0\x80"), ["close 1007"])
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]:
            self.check(f"7.7 {code}", close(code), ["close 1000"])
        for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535]:
            self.check(f"7.9 {code}", close(code), ["close 1002"])

    def test_9_limits(self):
        for length in [1 << 16, 1 << 18, 1 << 20, 4 << 20]:
            text = "BAsd7&jh23" * (length // 10)
            self.echo(f"9.1 {length}", say(text), text, chop=1 << 16)
            for size in [64, 1 << 10, 1 << 16] if length == 1 << 20 else []:
                self.echo(
                    f"9.3 {length} in frames of {size}", parts(call(text), size), text, chop=1 << 16
                )
        text = "x" * (1 << 18)
        for chop in [64, 128, 1024]:
            self.echo(f"9.5 {len(text)} in pieces of {chop}", say(text), text, chop=chop)
        self.check(
            "more than any call",
            frame(TEXT, b" " * (6 * (4 << 20) + (33 << 10))),
            ["close 1009"],
            chop=1 << 20,
        )
        for length in [0, 16, 64, 256, 1024]:
            many = ["*" * length] * 500
            client = Client(self.server.port)
            with self.subTest(f"9.7 {length}"), client.socket:
                for text in many:
                    client.send(say(text))
                    self.assertEqual(
                        [client.next_event(), client.next_event()], ["written", message(text)]
                    )

    def test_10_misc(self):
        text = "*" * 65_536
        self.echo("10.1.1 in frames of 1300", parts(call(text), 1300), text)

    def test_frames_of_an_independent_library(self):
        with connect(
            f"ws://127.0.0.1:{self.server.port}/read?channel=other", proxy=None, max_size=None
        ) as client:
            self.assertEqual(
                client.response.headers.get("Sec-WebSocket-Extensions"),
                None,
                "compression was offered",
            )
            for length in [0, 125, 126, 65_535, 65_536, 1 << 20]:
                text = "é" * (length // 2)
                client.send(
                    json.dumps(
                        {"call": "write", "channel": "other", "message": text, "ref": length}
                    )
                )
                self.assertEqual(json.loads(client.recv(GUARD))["ref"], length)
                client.ping().wait(GUARD)
                self.assertEqual(json.loads(client.recv(GUARD))["messages"][0]["message"], text)
            # In fragments that the library chooses.
            client.send(iter(['{"call":"wr', 'ite","channel":"other",', '"message":"cut"}']))
            self.assertIn("id", json.loads(client.recv(GUARD)))
            client.send(b"binary")
            with self.assertRaises(ConnectionClosedError) as end:
                while True:
                    client.recv(GUARD)
            self.assertEqual(end.exception.rcvd.code, 1003)
