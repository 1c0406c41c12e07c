"""Event streams, read by httpx-sse."""

import unittest

from httpx_sse import connect_sse

from speak import Server


class EventStream(unittest.TestCase):
    def setUp(self):
        self.server = Server("--history", "3", "--heartbeat", "50ms")
        self.addCleanup(self.server.stop)

    def read(self, count, last_event_id=None, **parameters):
        """Returns the next events of a new stream."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        with connect_sse(
            self.server.http, "GET", "/read", params=parameters, headers=headers
        ) as source:
            stream = source.iter_sse()
            ready = next(stream)
            self.assertEqual((ready.event, ready.data, ready.retry), ("ready", "{}", 1000))
            events = []
            for event in stream:
                self.assertNotEqual(event.data, "")
                events.append(event)
                if len(events) == count:
                    return events
        self.fail("the stream ended")

    def write(self, channel, *texts):
        for text in texts:
            self.server.call("write", channel=channel, message=text)

    def test_written_messages_are_read(self):
        texts = ["", "a\nb\r\nc\rd", "data: x\n\nevent: y", "\u2028\u2029\u0085\0", '😀é\t"\\']
        for text in texts:
            self.write("c", text)
            [event] = self.read(1, channel="c", from_id="-1")
            self.assertEqual(event.json()["message"], text)
            self.assertEqual((event.event, event.retry), ("message", None))

    def test_a_lost_stream_continues_at_its_cursor(self):
        self.write("a", "1", "2")
        self.write("b", "3")
        parameters = {"channel": ["a", "b"], "from_id": ["1", "1"]}
        first = self.read(3, **parameters)
        self.assertEqual([event.json()["channel"] for event in first], ["a", "a", "b"])
        for place, event in enumerate(first[:-1]):
            rest = self.read(2 - place, last_event_id=event.id, **parameters)
            self.assertEqual(
                [event.data for event in rest], [event.data for event in first[place + 1 :]]
            )
        self.write("a", "4")
        [news] = self.read(1, last_event_id=first[-1].id, **parameters)
        self.assertEqual(news.json()["message"], "4")

    def test_gaps_are_separate_events(self):
        self.write("c", "1", "2", "3", "4", "5")
        events = self.read(4, channel="c", from_id="1")
        self.assertEqual(
            [event.event for event in events], ["missed", "message", "message", "message"]
        )
        self.assertEqual((events[0].data, events[0].id), ("{}", events[0].id))
        events = self.read(4, last_event_id="elsewhere:3", channel="c")
        self.assertEqual(
            [event.event for event in events], ["reset", "message", "message", "message"]
        )
