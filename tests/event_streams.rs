//! Event streams, sentence by sentence of the contract.

mod common;

use std::iter;
use std::time::{Duration, Instant};

use common::{
    Client, Event, EventStream, HANDSHAKE, Identity, Params, Response, Server, now_ms, request,
    target, until,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Returns the server's epoch.
fn epoch(server: &Server) -> String {
    server.read("epoch", "0").json()["epoch"].as_str().expect("an epoch").to_owned()
}

/// Returns the bytes with which a stream begins.
fn beginning(cursor: &str) -> String {
    format!("retry: 1000\nid: {cursor}\nevent: ready\ndata: {{}}\n\n")
}

/// Returns the head and the first bytes of a stream that is asked for in this way.
#[track_caller]
fn open_raw(server: &Server, version: &str, connection: &str) -> (Client, Response) {
    let mut client = server.client();
    client.send(format!(
        "GET /read?channel=c HTTP/{version}\r\nHost: x\r\n\
         Connection: {connection}\r\nAccept: text/event-stream\r\n\r\n"
    ));
    let head = client.head();
    (client, head)
}

/// Returns the bytes of one chunk.
fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// Claims that exactly these bytes come next, and none after them.
#[track_caller]
fn takes(client: &mut Client, expected: &str) {
    let came = client.take_maybe(expected.len()).expect("as many bytes");
    assert_eq!(String::from_utf8_lossy(&came), expected);
    assert!(!client.has_something());
}

#[test]
fn a_stream_begins_with_its_head_a_delay_and_a_cursor() {
    let server = Server::patient(&[]);
    let epoch = epoch(&server);
    for (version, connection, coding) in [
        ("1.1", "", Some("chunked")),
        ("1.1", "close", Some("chunked")),
        ("1.2", "", Some("chunked")),
        ("1.0", "", None),
        ("1.0", "keep-alive", None),
    ] {
        let (mut client, head) = open_raw(&server, version, connection);
        assert_eq!(head.status, 200);
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store, no-transform"),
            ("x-content-type-options", "nosniff"),
            ("access-control-allow-origin", "*"),
            ("x-accel-buffering", "no"),
            // A stream is the last response on its TCP connection.
            ("connection", "close"),
        ] {
            assert_eq!(head.header(name), Some(value), "HTTP/{version} {connection}: {head:?}");
        }
        assert!(head.header("date").is_some());
        assert_eq!(head.header("content-length"), None);
        assert_eq!(head.header("transfer-encoding"), coding, "HTTP/{version}");
        let beginning = beginning(&format!("{epoch}:1"));
        takes(&mut client, &if coding.is_some() { chunk(&beginning) } else { beginning });
    }
}

#[test]
fn in_http_1_1_each_event_is_one_chunk_and_the_end_the_last() {
    let mut server = Server::patient(&[]);
    let epoch = epoch(&server);
    let mut clients = ["1.1", "1.0"].map(|version| open_raw(&server, version, "").0);
    let mut all_take = |data: &[String], end: &str| {
        for (client, is_chunked) in clients.iter_mut().zip([true, false]) {
            let framed = data.iter().map(|it| if is_chunked { chunk(it) } else { it.clone() });
            takes(client, &(framed.collect::<String>() + if is_chunked { end } else { "" }));
        }
    };
    all_take(&[beginning(&format!("{epoch}:1"))], "");
    // Two messages of one turn are two events.
    let mut writer = server.client();
    writer.send(request("GET", "/write?channel=c&message=m", &[], None).repeat(2));
    for text in [r#"{"id":1}"#, r#"{"id":2}"#] {
        assert_eq!(writer.response().ok().text(), text);
    }
    let message = |id: u64| format!("id: {epoch}:{}\ndata: {}\n\n", id + 1, json_of(&server, id));
    all_take(&[message(1), message(2)], "");
    server.signal(Signal::TERM);
    for (mut client, end) in clients.into_iter().zip(["0\r\n\r\n", ""]) {
        let came = client.take_maybe(end.len()).expect("the end");
        assert_eq!(String::from_utf8_lossy(&came), end);
        client.is_closed();
    }
    assert_eq!(server.wait().code(), Some(0));
}

/// Returns the JSON of the message with this id.
#[track_caller]
fn json_of(server: &Server, id: u64) -> String {
    let answer = server.read("c", &id.to_string());
    let messages = answer.text().strip_prefix("{\"messages\":[").expect("messages");
    messages[..=messages.find('}').expect("the end of a message")].to_owned()
}

#[test]
fn a_heartbeat_is_one_chunk_without_an_empty_line() {
    let server = Server::with(&["--heartbeat", "100ms"]);
    for (version, heartbeat) in [("1.1", "2\r\n:\n\r\n"), ("1.0", ":\n")] {
        let (mut client, _) = open_raw(&server, version, "");
        client.take_until(b"event: ready\ndata: {}\n\n").expect("a beginning");
        let came = client.take_until(heartbeat.as_bytes()).expect("a heartbeat");
        assert_eq!(came, if version == "1.1" { &b"\r\n"[..] } else { b"" });
        let id = server.write("c", "m");
        let came = client.take_until(format!("id: {}:", epoch(&server)).as_bytes());
        let came = String::from_utf8(came.expect("a message")).expect("text");
        let rest = came.replace(heartbeat, "");
        let is_size = |rest: &str| rest.strip_suffix("\r\n").is_some_and(|it| it.len() == 2);
        assert!(if version == "1.1" { is_size(&rest) } else { rest.is_empty() }, "{id}: {came:?}");
    }
}

#[test]
fn a_stream_needs_an_accept_header() {
    let server = Server::patient(&[]);
    server.write("c", "m");
    let path = target("/read", &[("channel", "c"), ("from_id", "1")]);
    let ask = |method: &str, accept: &str| {
        let mut client = server.client();
        client.send(request(method, &path, &[("Accept", accept)], None));
        let head = client.head();
        (head.status, head.header("content-type").map(str::to_owned))
    };
    let events = (200, Some("text/event-stream".to_owned()));
    let json = (200, Some("application/json".to_owned()));
    for accept in [
        "text/event-stream",
        "TEXT/Event-Stream",
        "text/event-stream, */*",
        "application/json, text/event-stream",
        "text/html;q=0.9 , text/event-stream;q=0.1",
    ] {
        assert_eq!(ask("GET", accept), events, "{accept}");
    }
    for accept in [
        "",
        "*/*",
        "text/*",
        "application/json",
        "text/event-stream;q=0",
        "application/json, text/event-stream;q=0.5",
        "text/event-streams",
        "x/text/event-stream",
    ] {
        assert_eq!(ask("GET", accept), json, "{accept}");
    }
    assert_eq!(ask("POST", "text/event-stream"), json);
    assert_eq!(ask("HEAD", "text/event-stream").0, 405);
}

#[test]
fn an_invalid_read_starts_no_stream_and_no_websocket() {
    let server = Server::patient(&[]);
    let me = server.introduce("c", "Josh");
    let cases: [(&Params, u16, &str); 10] = [
        (&[], 400, "missing_parameter"),
        (&[("channel", "")], 400, "bad_channel"),
        (&[("channel", "~")], 400, "bad_channel"),
        (&[("channel", "c"), ("channel", "c")], 400, "bad_parameter"),
        (&[("channel", "c"), ("from_id", "x")], 400, "bad_parameter"),
        (&[("channel", "c"), ("connection", "1")], 400, "bad_parameter"),
        (&[("channel", "c"), ("connection", "1"), ("auth", "wrong")], 403, "bad_auth"),
        (&[("channel", "c"), ("connection", "99"), ("auth", "x")], 410, "connection_ended"),
        (&[("channel", "~wAAAAAAAAAAAAAAAAAAAAAA")], 403, "not_readable"),
        (&[("channel", "c"), ("callback", "1x")], 400, "bad_callback"),
    ];
    // All on one TCP connection: an error is an ordinary response.
    let mut client = server.client();
    for (params, status, error) in cases {
        let answer = client.get_with("/read", params, &[("Accept", "text/event-stream")]);
        answer.fails_with(status, error);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        server.client().get_with("/read", params, &HANDSHAKE).fails_with(status, error);
    }
    assert_eq!(server.members("c")["readers"], 0);
    client.get("/goodbye", &me.and(&[])).ok();
}

#[test]
fn each_message_is_an_event_with_the_cursor_after_it() {
    let server = Server::patient(&[]);
    let epoch = epoch(&server);
    let mut stream = server.events(&[("channel", "c")]);
    let me = server.introduce("c", "Josh \u{2028}\n\r\"");
    server
        .get("/write", &me.and(&[("channel", "c"), ("message", "one\n\ndata: two\r\n\u{0}")]))
        .ok();
    server.write("c", "");
    server.get("/goodbye", &me.and(&[("message", "bye")])).ok();

    let events: Vec<Event> = (0..4).map(|_| stream.event()).collect();
    let cursors: Vec<&str> = events.iter().map(Event::cursor).collect();
    assert_eq!(cursors, [2, 3, 4, 5].map(|next| format!("{epoch}:{next}")));
    // The data is the message exactly as every other reader gets it.
    let data: Vec<&str> = events.iter().map(|event| event.data.as_deref().expect("data")).collect();
    let answer = server.read("c", "1");
    assert_eq!(
        answer.text(),
        format!("{{\"messages\":[{}],\"next_id\":5,\"epoch\":\"{epoch}\"}}", data.join(","))
    );
    assert!(!stream.client.has_something());
}

#[test]
fn several_channels_are_named_and_have_their_cursors_in_the_order_asked() {
    let server = Server::patient(&[]);
    let epoch = epoch(&server);
    for (channel, count) in [("a", 2), ("b", 1), ("d", 3)] {
        server.fill(channel, "m", count);
    }
    let channels = ["b", "a", "c", "d"].map(|channel| ("channel", channel));
    let from_ids = ["0", "2", "1", "-2"].map(|from_id| ("from_id", from_id));
    let mut stream = EventStream::open(server.client(), &[channels, from_ids].concat(), &[]);
    // A channel of which nothing was sent yet has the cursor that would begin it.
    assert_eq!(stream.beginning(), format!("{epoch}:0,2,1,2"));
    let expected =
        [("b", 1, "2,2,1,2"), ("a", 2, "2,3,1,2"), ("d", 2, "2,3,1,3"), ("d", 3, "2,3,1,4")];
    for (channel, id, cursors) in expected {
        let event = stream.event();
        assert_eq!(event.cursor(), format!("{epoch}:{cursors}"));
        let start =
            format!("{{\"channel\":\"{channel}\",\"id\":{id},\"type\":\"message\",\"time\":");
        assert!(event.data.as_ref().is_some_and(|data| data.starts_with(&start)), "{event:?}");
    }
    server.write("c", "m");
    let event = stream.event();
    assert_eq!(
        (event.cursor(), &event.message()["channel"]),
        (&*format!("{epoch}:2,3,2,4"), &json!("c"))
    );

    // Without `from_id`, each starts at the channel's current position.
    let mut fresh = EventStream::open(server.client(), &channels, &[]);
    assert_eq!(fresh.beginning(), format!("{epoch}:2,3,2,4"));
}

#[test]
fn from_id_has_its_four_forms() {
    let server = Server::patient(&["--history", "3"]);
    server.introduce("c", "Josh");
    for text in ["two", "three", "four", "five"] {
        server.write("c", text);
    }
    let cases: [(Option<&str>, &[u64]); 5] = [
        (None, &[]),
        (Some("0"), &[1, 3, 4, 5]),
        (Some("4"), &[4, 5]),
        (Some("-1"), &[5]),
        (Some("-9"), &[3, 4, 5]),
    ];
    for (from_id, ids) in cases {
        let from_id = from_id.map(|value| ("from_id", value));
        let mut stream = server.events(&[&[("channel", "c")], from_id.as_slice()].concat());
        let came = stream.messages(ids.len());
        let came: Vec<_> = came.iter().map(|it| it["id"].clone()).collect();
        assert_eq!(came, ids, "{from_id:?}");
        assert!(!stream.client.has_something(), "{from_id:?}");
    }
}

/// Returns the ids of the next messages, with their channels if given.
#[track_caller]
fn ids(stream: &mut EventStream, count: usize) -> Vec<(String, u64)> {
    let messages = stream.messages(count);
    let channel = |it: &Value| it["channel"].as_str().unwrap_or_default().to_owned();
    messages.iter().map(|it| (channel(it), it["id"].as_u64().expect("an id"))).collect()
}

/// Returns the forms of `from_id` as parameters.
fn from_ids<'a>(forms: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    forms.iter().map(|form| ("from_id", *form)).collect()
}

#[test]
fn the_first_cursor_of_each_channel_is_what_would_begin_it() {
    let server = Server::patient(&["--history", "2"]);
    let epoch = epoch(&server);
    server.fill("full", "m", 5);
    server.introduce("met", "Josh");
    server.fill("met", "m", 3);
    let gone = server.introduce("left", "Ann");
    server.get("/goodbye", &gone.and(&[])).ok();
    // By channel, `from_id` and the cursor.
    let cases = [
        ("empty", "0", 1),
        ("empty", "1", 1),
        ("empty", "-1", 1),
        ("empty", "-9", 1),
        // Beyond the newest id: reset, and nothing is there.
        ("empty", "7", 1),
        ("full", "0", 0),
        ("full", "2", 2),
        ("full", "5", 5),
        ("full", "6", 6),
        ("full", "-1", 5),
        ("full", "-2", 4),
        ("full", "-9", 4),
        ("full", "7", 0),
        ("met", "0", 0),
        ("met", "-1", 4),
        ("met", "-9", 3),
        ("left", "0", 0),
        ("left", "-1", 2),
    ];
    for (channel, from_id, cursor) in cases {
        let one = [("channel", channel), ("from_id", from_id)];
        let mut stream = EventStream::open(server.client(), &one, &[]);
        assert_eq!(stream.beginning(), format!("{epoch}:{cursor}"), "{channel} {from_id}");
        let mut plain = EventStream::open(server.client(), &one[..1], &[]);
        let next_id = server.read(channel, "0").next_id();
        assert_eq!(plain.beginning(), format!("{epoch}:{next_id}"), "{channel}");
        for (other, other_id, other_cursor) in cases {
            if other == channel {
                continue;
            }
            let channels = [("channel", other), ("channel", channel)];
            let params = [&channels[..], &from_ids(&[other_id, from_id])].concat();
            let mut both = EventStream::open(server.client(), &params, &[]);
            assert_eq!(both.beginning(), format!("{epoch}:{other_cursor},{cursor}"), "{params:?}");
        }
    }
}

#[test]
fn what_comes_while_a_stream_is_away_is_sent_or_missed_for_each_form_of_from_id() {
    let server = Server::patient(&["--history", "3"]);
    let forms = [None, Some("0"), Some("1"), Some("-1"), Some("-2")];
    for (nth, form) in forms.into_iter().enumerate() {
        for (count, first_retained) in [(1, 1), (3, 1), (4, 2)] {
            // Two channels without messages: the second stays so for a while.
            let (one, two) = (format!("one {nth} {count}"), format!("two {nth} {count}"));
            let mut params = vec![("channel", &*one), ("channel", &*two)];
            params.extend(form.iter().flat_map(|form| from_ids(&[form, form])));
            let mut stream = EventStream::open(server.client(), &params, &[]);
            let mut cursors = vec![stream.beginning()];
            server.write(&one, "m");
            cursors.push(stream.event().cursor().to_owned());
            drop(stream);
            server.fill(&two, "m", count);
            for (got, cursor) in cursors.iter().enumerate() {
                let mut rest = server.events_after(&params, Some(cursor));
                if first_retained > 1 {
                    let channel = json!({"channel": two}).to_string();
                    assert_eq!(rest.event().gap(), ("missed", &*channel), "{form:?} {cursor}");
                }
                let mut expected: Vec<_> = (got..1).map(|_| (one.clone(), 1)).collect();
                expected.extend((first_retained..=count).map(|id| (two.clone(), id as u64)));
                assert_eq!(ids(&mut rest, expected.len()), expected, "{form:?} {cursor}");
                assert!(!rest.client.has_something(), "{form:?} {cursor}");
            }
        }
    }
}

#[test]
fn the_last_introduction_of_a_dropped_history_moves_the_cursor() {
    // Nothing is retained, and two sessions are there.
    let server = Server::patient(&["--history", "0"]);
    let epoch = epoch(&server);
    server.introduce("c", "Josh");
    server.introduce("c", "Ann");
    server.write("c", "m");
    let from_0 = [("channel", "c"), ("from_id", "0")];
    let mut stream = EventStream::open(server.client(), &from_0, &[]);
    assert_eq!(stream.beginning(), format!("{epoch}:0"));
    let came = [stream.event(), stream.event()];
    assert_eq!([came[0].cursor(), came[1].cursor()], [0, 4].map(|it| format!("{epoch}:{it}")));
    assert_eq!(came.map(|it| it.message()["message"].clone()), [json!("Josh"), json!("Ann")]);
    let mut rest = server.events_after(&from_0, Some(&format!("{epoch}:4")));
    server.write("c", "next");
    assert_eq!(rest.texts(1), ["next"]);
}

#[test]
fn last_event_id_continues_after_any_event() {
    let server = Server::patient(&[]);
    for text in ["1", "2", "3", "4"] {
        server.write("a", text);
        server.write("b", text);
    }
    let one: &Params = &[("channel", "a"), ("from_id", "1")];
    let two: &Params = &[("channel", "a"), ("channel", "b"), ("from_id", "-3"), ("from_id", "2")];
    for (params, count) in [(one, 4), (two, 6)] {
        let mut whole = EventStream::open(server.client(), params, &[]);
        let mut cursors = vec![whole.beginning()];
        let mut all = Vec::new();
        for _ in 0..count {
            let event = whole.event();
            cursors.push(event.cursor().to_owned());
            all.push(event.message());
        }
        for (place, cursor) in cursors.iter().enumerate() {
            let mut rest = server.events_after(params, Some(cursor));
            assert_eq!(rest.messages(count - place), all[place..], "{cursor}");
            assert!(!rest.client.has_something(), "{cursor}");
        }
    }
}

#[test]
fn last_event_id_overrides_from_id_and_epoch() {
    let server = Server::patient(&[]);
    let epoch = epoch(&server);
    server.fill("c", "m", 5);
    let stale = [("channel", "c"), ("from_id", "1"), ("epoch", "elsewhere")];
    let mut stream = server.events_after(&stale, Some(&format!("{epoch}:4")));
    assert_eq!(ids(&mut stream, 2), [(String::new(), 4), (String::new(), 5)]);
    // An invalid `from_id` stays invalid.
    let bad = [("channel", "c"), ("from_id", "x")];
    let id = format!("{epoch}:4");
    let headers = [("Accept", "text/event-stream"), ("Last-Event-ID", &*id)];
    server.client().get_with("/read", &bad, &headers).fails_with(400, "bad_parameter");
    // An ordinary read ignores the header.
    let plain = server.client().get_with(
        "/read",
        &[("channel", "c"), ("from_id", "1")],
        &[("Last-Event-ID", &id)],
    );
    assert_eq!(plain.ok().ids(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_malformed_last_event_id_is_ignored() {
    let server = Server::patient(&[]);
    let epoch = epoch(&server);
    server.fill("c", "m", 3);
    let params = [("channel", "c"), ("from_id", "2")];
    let of_this = |rest: &str| format!("{epoch}{rest}");
    let malformed = [
        String::new(),
        "3".to_owned(),
        ":3".to_owned(),
        "null".to_owned(),
        of_this(""),
        of_this(":"),
        of_this(":x"),
        of_this(":3,3"),
        of_this(":3,"),
        of_this(":3:3"),
        of_this(":9007199254740992"),
        of_this(":+3"),
        of_this(": 3"),
    ];
    for id in malformed {
        let mut stream = server.events_after(&params, Some(&id));
        assert_eq!(ids(&mut stream, 2), [(String::new(), 2), (String::new(), 3)], "{id:?}");
    }
}

#[test]
fn after_a_restart_a_stream_is_reset() {
    let before = Server::patient(&[]);
    before.fill("a", "old", 7);
    let one = [("channel", "a"), ("from_id", "1")];
    let mut stream = before.events(&one);
    stream.messages(6);
    let cursor = stream.event().cursor().to_owned();
    assert!(cursor.ends_with(":8"));
    drop((stream, before));

    let after = Server::patient(&[]);
    let epoch = epoch(&after);
    after.introduce("a", "Josh");
    after.write("b", "m");
    let mut stream = EventStream::open(after.client(), &one, &[("Last-Event-ID", &cursor)]);
    // If the stream is lost again now, it must get everything.
    assert_eq!(stream.beginning(), format!("{epoch}:0"));
    assert_eq!(stream.event().gap(), ("reset", "{}"));
    assert_eq!(ids(&mut stream, 1), [(String::new(), 1)]);

    let two = [("channel", "a"), ("channel", "b"), ("channel", "c")];
    let cursors = cursor.replace(":8", ":8,-1,3");
    let mut stream = EventStream::open(after.client(), &two, &[("Last-Event-ID", &cursors)]);
    assert_eq!(stream.beginning(), format!("{epoch}:0,1,1"));
    // Every gap comes before every message.
    assert_eq!(stream.event().gap(), ("reset", r#"{"channel":"a"}"#));
    assert_eq!(stream.event().gap(), ("reset", r#"{"channel":"c"}"#));
    assert_eq!(ids(&mut stream, 2), [("a".into(), 1), ("b".into(), 1)]);
}

#[test]
fn missed_is_sent_before_retained_messages() {
    let server = Server::with(&["--history", "2"]);
    server.fill("a", "m", 5);
    server.write("b", "m");
    let mut stream = server.events(&[("channel", "a"), ("from_id", "2")]);
    assert_eq!(stream.event().gap(), ("missed", "{}"));
    assert_eq!(ids(&mut stream, 2), [(String::new(), 4), (String::new(), 5)]);

    let both = [("channel", "b"), ("channel", "a"), ("from_id", "1"), ("from_id", "3")];
    let mut stream = server.events(&both);
    assert_eq!(stream.event().gap(), ("missed", r#"{"channel":"a"}"#));
    assert_eq!(ids(&mut stream, 3), [("b".into(), 1), ("a".into(), 4), ("a".into(), 5)]);

    for from_id in ["0", "-5"] {
        let mut stream = server.events(&[("channel", "a"), ("from_id", from_id)]);
        assert_eq!(ids(&mut stream, 2), [(String::new(), 4), (String::new(), 5)]);
    }
    // Beyond the newest id: another numbering, though with the same epoch.
    let mut stream = server.events(&[("channel", "a"), ("from_id", "7")]);
    assert_eq!(stream.event().gap(), ("reset", "{}"));
    assert_eq!(ids(&mut stream, 2), [(String::new(), 4), (String::new(), 5)]);
}

#[test]
fn an_idle_stream_gets_comments() {
    let server = Server::with(&["--heartbeat", "100ms"]);
    let start = now_ms();
    let mut stream = server.events(&[("channel", "c")]);
    for _ in 0..3 {
        assert_eq!(stream.block(), Some(Event { is_heartbeat: true, ..Event::default() }));
    }
    assert!(now_ms() - start >= 290, "more often than it is silent");
    server.write("c", "m");
    assert_eq!(stream.texts(1), ["m"]);
    // No empty line: some clients take a comment with one for an event.
    assert_eq!(stream.raw_block(), Some(b":\n".to_vec()));
}

#[test]
fn a_stream_keeps_its_connection_alive() {
    let server = Server::with(&["--connection-timeout", "300ms"]);
    let me = server.introduce("c", "Josh");
    let stream = server.events(&me.and(&[("channel", "elsewhere")]));
    // The other connection, which came later, times out; only then is the first one's timeout due.
    server.introduce("d", "Ann");
    assert_eq!(server.next_events("d", 2), ["goodbye timeout"]);
    assert_eq!(server.members("c")["members"][0]["connection"], me.number);
    drop(stream);
    assert_eq!(server.next_events("c", 2), ["goodbye closed"]);
}

#[test]
fn a_stream_that_carries_a_connection_ends_after_its_life_and_loses_nothing() {
    let server = Server::with(&["--stream-life", "300ms", "--connection-timeout", "1h"]);
    let endless = Server::with(&["--stream-life", "0", "--connection-timeout", "1h"]);
    let (me, other) = (server.introduce("c", "Josh"), endless.introduce("c", "Ann"));
    let mut anonymous = server.events(&[("channel", "d")]);
    let mut socket = server.socket(&me.and(&[("channel", "d")]));
    let mut lasting = endless.events(&other.and(&[("channel", "d")]));
    let mut cursor = format!("{}:1", epoch(&server));
    let mut next_id = 1;
    for _ in 0..4 {
        let mut stream = server.events_after(&me.and(&[("channel", "d")]), Some(&cursor));
        // Each message comes once, on this stream or on the next.
        while server.write("d", "m") > 0
            && let Some(event) = stream.maybe_event()
        {
            assert_eq!(event.message()["id"], next_id);
            cursor = event.id.expect("a cursor");
            next_id += 1;
        }
    }
    // Others outlast these four.
    let last = server.write("d", "last");
    assert_eq!(anonymous.texts(last as usize).pop().as_deref(), Some("last"));
    assert!(iter::repeat_with(|| socket.texts()).any(|texts| texts == ["last"]));
    endless.write("d", "m");
    assert_eq!(lasting.texts(1), ["m"]);
    assert_eq!(server.members("c")["members"][0]["connection"], me.number);
}

#[test]
fn a_connection_outlives_its_stream_by_its_timeout() {
    let server = Server::with(&["--stream-life", "200ms", "--connection-timeout", "300ms"]);
    let me = server.introduce("c", "Josh");
    let mut stream = server.events(&me.and(&[("channel", "d")]));
    stream.ends();
    assert_eq!(server.next_events("c", 2), ["goodbye timeout"]);
}

#[test]
fn closing_a_stream_respects_the_close_grace() {
    let server = Server::patient(&["--close-grace", "150ms"]);
    let me = server.introduce("c", "Josh");
    let mut watcher = server.events(&[("channel", "c")]);
    drop(server.events(&me.and(&[("channel", "c")])));
    let back = server.events(&me.and(&[("channel", "c")]));
    // The connection returned in time. When it is gone for good, its goodbye is sent.
    let probe = server.introduce("probe", "Ann");
    drop(server.events(&probe.and(&[("channel", "probe")])));
    server.next_events("probe", 2);
    assert!(!watcher.client.has_something());
    drop(back);
    assert_eq!(watcher.event().message()["reason"], "closed");
}

#[test]
fn a_goodbye_is_sent_on_streams_and_sockets_and_ends_them() {
    let server = Server::patient(&[]);
    let me = server.introduce("c", "Josh");
    let mut own = server.socket(&me.and(&[("channel", "c")]));
    let mut own_elsewhere = server.socket(&me.and(&[("channel", "elsewhere")]));
    let mut other_socket = server.socket(&[("channel", "c")]);
    let mut there = server.events(&me.and(&[("channel", "c")]));
    let mut both = server.events(&me.and(&[("channel", "d"), ("channel", "c")]));
    let mut elsewhere = server.events(&me.and(&[("channel", "elsewhere")]));
    let mut other = server.events(&[("channel", "c")]);
    // A socket can say goodbye itself.
    let (number, auth) = (me.number, &me.auth);
    own.ask(&json!({
        "call": "goodbye", "connection": number, "auth": auth, "message": "bye", "ref": 1,
    }));
    assert_eq!(own.text(), r#"{"ref":1,"ok":true}"#);
    assert_eq!(own.json()["messages"][0]["reason"], "left");
    own.ends_with(1000);
    own_elsewhere.ends_with(1000);
    for stream in [&mut there, &mut both] {
        let goodbye = stream.event().message();
        assert_eq!((&goodbye["reason"], &goodbye["message"]), (&json!("left"), &json!("bye")));
        stream.ends();
    }
    elsewhere.ends();
    assert_eq!(other.event().message()["reason"], "left");
    assert_eq!(other_socket.json()["messages"][0]["reason"], "left");
    assert!(!other.client.has_something() && !other_socket.client.has_something());
}

#[test]
fn leaving_one_channel_does_not_end_the_stream() {
    let server = Server::patient(&[]);
    let me = server.introduce("c", "Josh");
    let mut stream = server.events(&me.and(&[("channel", "c")]));
    server.get("/goodbye", &me.and(&[("channel", "c")])).ok();
    assert_eq!(stream.event().message()["type"], "goodbye");
    server.write("c", "m");
    assert_eq!(stream.texts(1), ["m"]);
}

#[test]
fn streams_supersede_no_read_and_are_not_superseded() {
    let server = Server::patient(&[]);
    let me = server.introduce("c", "Josh");
    let c = me.and(&[("channel", "c")]);
    let mut poll = server.park(&c);
    let mut streams = [server.events(&c), server.events(&c)];
    let mut sockets = [server.socket(&c), server.socket(&c)];
    assert_eq!(server.readers("c"), 5);
    let mut newer = server.client();
    newer.send_get("/read", &c);
    assert_eq!(poll.response().ok().ids(), [0; 0]);
    assert_eq!(server.readers("c"), 5);
    server.write("c", "m");
    assert!(streams.iter_mut().all(|stream| stream.texts(1) == ["m"]));
    assert!(sockets.iter_mut().all(|socket| socket.texts() == ["m"]));
    assert_eq!(newer.response().ok().texts(), ["m"]);
}

#[test]
fn a_stop_ends_streams_without_a_goodbye() {
    let mut server = Server::patient(&[]);
    let c = [("channel", "c")];
    let me = server.introduce("c", "Josh");
    let own = me.and(&c);
    let mut streams = [server.events(&own), server.events(&c)];
    let mut sockets = [server.socket(&own), server.socket(&c)];
    let start = Instant::now();
    server.signal(Signal::TERM);
    for stream in &mut streams {
        stream.ends();
    }
    for socket in &mut sockets {
        socket.ends_with(1001);
    }
    assert_eq!(server.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(4), "it waited for streams");
}

#[test]
fn allow_origin_applies_to_streams() {
    let server = Server::with(&["--allow-origin", "https://a.example"]);
    for (origin, allowed) in
        [("https://a.example", Some("https://a.example")), ("https://b.example", None)]
    {
        let stream = EventStream::open(server.client(), &[("channel", "c")], &[("Origin", origin)]);
        assert_eq!(stream.head.header("access-control-allow-origin"), allowed);
        assert_eq!(stream.head.header("vary"), Some("Origin"));
    }
}

#[test]
fn bytes_after_a_stream_request_are_ignored() {
    let server = Server::patient(&[]);
    let mut client = server.client();
    let stream = request("GET", "/read?channel=c", &[("Accept", "text/event-stream")], None);
    let write = request("GET", "/write?channel=c&message=ghost", &[], None);
    // A request pipelined before the stream is answered, in order.
    client.send([&write[..], &stream, &write].concat());
    assert_eq!(client.response().ok().text(), r#"{"id":1}"#);
    let head = client.head();
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let mut stream = EventStream::after(client, head);
    stream.beginning();
    stream.client.send(write);
    stream.client.send(vec![b'x'; 300_000]);
    assert_eq!(server.write("c", "m"), 2);
    assert_eq!(stream.texts(1), ["m"]);
    assert_eq!(server.read("c", "1").texts(), ["ghost", "m"]);
}

#[test]
fn a_stream_counts_as_one_reader() {
    let server = Server::patient(&[]);
    let streams: Vec<EventStream> =
        (0..3).map(|_| server.events(&[("channel", "c"), ("channel", "d")])).collect();
    server.wait_for_readers("c", 3);
    assert_eq!(server.readers("d"), 3);
    drop(streams);
    until("they are gone", || server.readers("c") + server.readers("d") == 0);
}

#[test]
fn a_private_pair_is_streamed_by_its_read_name() {
    let server = Server::patient(&[]);
    let pair = server.get("/create", &[]).ok().json();
    let name = |half: &str| pair[half].as_str().expect("a name").to_owned();
    let mut stream = server.events(&[("channel", &name("read"))]);
    server.write(&name("write"), "psst");
    assert_eq!(stream.texts(1), ["psst"]);
    let me: Identity = server.introduce(&name("write"), "Josh");
    assert_eq!(stream.event().message()["from"], me.number);
}
