//! Ends of connections without a goodbye call: closed clients and timeouts, and events that end no
//! connection.

mod common;

use std::thread;
use std::time::Duration;

use common::{Client, Identity, Server, request, target, until};
use serde_json::json;

/// Checks whether the connection exists, by a call that changes nothing.
#[track_caller]
fn lives(server: &Server, who: &Identity) -> bool {
    let nowhere = [("channel", "nowhere"), ("timeout", "0")];
    match server.get("/read", &who.and(&nowhere)).status {
        200 => true,
        410 => false,
        status => panic!("an answer of {status}"),
    }
}

/// Returns once the server has handled all earlier closes: closes another connection and waits for
/// its goodbye.
fn settle(server: &Server) {
    let marker = server.introduce("settle", "marker");
    drop(server.park(&marker.and(&[("channel", "settle")])));
    let events = server.next_events("settle", marker.id + 1);
    assert_eq!(events, ["goodbye closed"]);
}

#[test]
fn a_half_close_sent_with_the_read_counts_as_a_close() {
    let server = Server::patient(&[]);
    let me = server.introduce("c", "Josh");
    let mut client = server.client();
    client.send_get("/read", &me.and(&[("channel", "c"), ("from_id", "2")]));
    client.half_close();
    assert_eq!(server.next_events("c", 2), ["goodbye closed"]);
}

#[test]
fn a_half_closed_client_still_gets_its_response() {
    let server = Server::patient(&[]);
    let me = server.introduce("c", "Josh");
    let mut client = server.client();
    let write = target("/write", &me.and(&[("channel", "c"), ("message", "m")]));
    let read = target("/read", &me.and(&[("channel", "c"), ("timeout", "0")]));
    let requests = [write, read].map(|target| request("GET", &target, &[], None));
    client.send(requests.concat());
    client.half_close();
    assert_eq!(client.response().ok().text(), r#"{"id":2}"#);
    assert_eq!(client.response().ok().next_id(), 3);
    client.is_closed();
    settle(&server);
    assert!(lives(&server, &me));
}

#[test]
fn closing_without_a_pending_read_ends_no_connection() {
    let server = Server::patient(&[]);
    let params = [("channel", "c"), ("message", "Josh")];
    let mut introducing = server.client();
    let me = Identity::from_answer(&introducing.get("/introduce", &params).ok());
    drop(introducing);

    let mut reset = server.client();
    let at_once = me.and(&[("channel", "c"), ("timeout", "0")]);
    reset.get("/read", &at_once).ok();
    reset.reset();

    let mut answered = server.park(&me.and(&[("channel", "c")]));
    server.write("c", "m");
    answered.response().ok();
    drop(answered);

    let mut half_a_request = server.client();
    half_a_request.send(format!("GET {} HTT", target("/read", &me.and(&[]))));
    half_a_request.reset();

    settle(&server);
    assert!(lives(&server, &me));
    assert_eq!(server.read("c", "1").texts(), ["Josh", "m"]);
}

#[test]
fn closing_an_anonymous_read_sends_no_goodbye() {
    let server = Server::patient(&[]);
    drop(server.park(&[("channel", "c")]));
    server.park(&[("channel", "c")]).reset();
    server.wait_for_readers("c", 0);
    assert_eq!(server.read("c", "1").next_id(), 1);
}

#[test]
fn closing_one_of_several_pending_reads_ends_the_connection() {
    let server = Server::patient(&[]);
    let me = server.introduce("a", "Josh");
    let join = me.and(&[("channel", "b"), ("message", "Josh")]);
    server.get("/introduce", &join).ok();
    let closing = server.park(&me.and(&[("channel", "elsewhere")]));
    let mut in_a = server.park(&me.and(&[("channel", "a")]));
    let mut far = server.park(&me.and(&[("channel", "far")]));
    drop(closing);
    assert_eq!(in_a.response().ok().events(), ["goodbye closed"]);
    assert_eq!(far.response().ok().ids(), [0; 0]);
    for channel in ["a", "b"] {
        let all = server.read(channel, "1");
        assert_eq!(all.events(), ["introduction", "goodbye closed"], "{channel}");
    }
}

#[test]
fn silence_ends_a_connection_in_all_its_channels() {
    let server = Server::with(&["--connection-timeout", "500ms"]);
    let me = server.introduce("a", "Josh");
    for channel in ["b", "c"] {
        let join = me.and(&[("channel", channel), ("message", "Josh")]);
        server.get("/introduce", &join).ok();
    }
    for channel in ["a", "b", "c"] {
        assert_eq!(server.next_events(channel, 2), ["goodbye timeout"]);
        let all = server.read(channel, "1");
        assert_eq!(all.ids(), [1, 2], "{channel}");
        assert_eq!(all.messages()[1]["from"], 1);
    }
    let say = me.and(&[("channel", "a"), ("message", "too late")]);
    server.get("/write", &say).fails_with(410, "connection_ended");
}

#[test]
fn a_pending_read_keeps_its_connection_alive() {
    let server = Server::with(&["--connection-timeout", "600ms"]);
    let me = server.introduce("c", "Josh");
    // Longer than the connection timeout, which starts again at the response.
    let wait = me.and(&[("channel", "c"), ("from_id", "2"), ("timeout", "1")]);
    let answer = server.get("/read", &wait).ok();
    assert_eq!(answer.ids(), [0; 0]);
    assert!(lives(&server, &me));
    assert_eq!(server.next_events("c", 2), ["goodbye timeout"]);
}

#[test]
fn every_authenticated_call_keeps_the_connection_alive() {
    let server = Server::with(&["--connection-timeout", "800ms"]);
    let me = server.introduce("c", "Josh");
    let calls = [
        target("/write", &me.and(&[("channel", "x"), ("message", "m")])),
        target("/read", &me.and(&[("channel", "x"), ("from_id", "1")])),
        target("/read", &me.and(&[("channel", "y"), ("timeout", "0")])),
        target("/introduce", &me.and(&[("channel", "z"), ("message", "m")])),
        target("/goodbye", &me.and(&[("channel", "z")])),
        target("/goodbye", &me.and(&[("channel", "not there")])),
    ];
    let mut client = server.client();
    for call in calls {
        thread::sleep(Duration::from_millis(250));
        client.call(request("GET", &call, &[], None)).ok();
    }
    assert_eq!(server.read("c", "1").events(), ["introduction"]);
}

#[test]
fn failed_calls_keep_no_connection_alive() {
    let server = Server::with(&["--connection-timeout", "400ms", "--max-channels", "1"]);
    let me = server.introduce("c", "Josh");
    let failing = [
        target("/write", &me.and(&[("channel", "c")])),
        target("/write", &me.and(&[("channel", "~"), ("message", "m")])),
        target("/write", &me.and(&[("channel", "one too many"), ("message", "m")])),
        target("/read", &me.and(&[("channel", "c"), ("from_id", "x")])),
        format!("/write?channel=c&message=m&connection={}&auth=wrong", me.number),
    ];
    let mut watcher = server.client();
    watcher.send_get("/read", &[("channel", "c"), ("from_id", "2")]);
    let mut client = server.client();
    until("silence ended it", || {
        for call in &failing {
            let answer = client.call(request("GET", call, &[], None));
            assert!([400, 403, 410, 503].contains(&answer.status));
        }
        watcher.has_something()
    });
    assert_eq!(watcher.response().events(), ["goodbye timeout"]);
}

#[test]
fn a_newer_long_poll_supersedes_the_older() {
    let server = Server::patient(&[]);
    let me = server.introduce("c", "Josh");
    let mut ghost = server.park(&me.and(&[("channel", "c"), ("from_id", "2")]));
    for _ in 0..3 {
        let mut newer = server.client();
        newer.send_get("/read", &me.and(&[("channel", "c"), ("from_id", "2")]));
        let empty = ghost.response().ok();
        assert_eq!((empty.ids(), empty.next_id()), (vec![], 2));
        ghost = newer;
    }
    server.wait_for_readers("c", 1);
    // The superseded reads have closed since then, which ended no connection.
    settle(&server);
    server.write("c", "m");
    assert_eq!(ghost.response().texts(), ["m"]);
    assert!(lives(&server, &me));
}

#[test]
fn the_same_set_of_channels_is_the_same_in_any_order() {
    let server = Server::patient(&[]);
    let me = server.introduce("a", "Josh");
    let mut older = server.park(&me.and(&[("channel", "a"), ("channel", "b")]));
    let mut newer = server.client();
    newer.send_get("/read", &me.and(&[("channel", "b"), ("channel", "a")]));
    let empty = older.response().ok().json();
    assert_eq!(empty["channels"][0]["channel"], "a");
    assert_eq!(empty["channels"][0]["messages"].as_array().map(Vec::len), Some(0));
    server.wait_for_readers("b", 1);
}

#[test]
fn only_a_long_poll_of_the_same_connection_and_channels_is_superseded() {
    let server = Server::patient(&[]);
    let me = server.introduce("a", "Josh");
    let other = server.introduce("a", "Ann");
    let in_a = ("channel", "a");
    let mut waiting = [
        server.park(&me.and(&[in_a])),
        server.park(&me.and(&[in_a, ("channel", "b")])),
        server.park(&me.and(&[in_a, ("channel", "c")])),
        server.park(&other.and(&[in_a])),
        server.park(&[in_a]),
        server.park(&[in_a]),
    ];
    // A read that does not wait supersedes no other read.
    server.get("/read", &me.and(&[in_a, ("timeout", "0")])).ok();
    assert_eq!(server.readers("a"), 6);
    for (place, reader) in waiting.iter_mut().enumerate() {
        assert!(!reader.has_something(), "reader {place}");
    }
}

#[test]
fn close_grace_delays_the_end_until_the_timeout_at_most() {
    for (grace, timeout, goodbye) in
        [("200ms", "1h", "goodbye closed"), ("1h", "500ms", "goodbye timeout")]
    {
        let server = Server::patient(&["--close-grace", grace, "--connection-timeout", timeout]);
        let me = server.introduce("c", "Josh");
        drop(server.park(&me.and(&[("channel", "c")])));
        assert_eq!(server.next_events("c", 2), [goodbye]);
        assert!(!lives(&server, &me), "{goodbye}");
    }
}

#[test]
fn a_connection_that_returns_within_the_grace_has_no_goodbye() {
    // Several nodes take up to a second to agree on the number of readers.
    let grace = if common::has_nodes() { "8s" } else { "1s" };
    let server = Server::patient(&["--close-grace", grace]);
    // One returns with a read, one with a write, and one has another pending read.
    let people = ["a", "b", "c"].map(|channel| server.introduce(channel, "Josh"));
    let elsewhere = server.park(&people[2].and(&[("channel", "elsewhere")]));
    for (person, channel) in people.iter().zip(["a", "b", "c"]) {
        drop(server.park(&person.and(&[("channel", channel)])));
        server.wait_for_readers(channel, 0);
    }
    let back = server.park(&people[0].and(&[("channel", "a")]));
    let say = people[1].and(&[("channel", "b"), ("message", "back")]);
    server.get("/write", &say).ok();

    // A connection that ends after them is gone before they could be.
    settle(&server);
    for (channel, count) in [("a", 1), ("b", 2), ("c", 1)] {
        assert_eq!(server.read(channel, "1").ids().len(), count, "{channel}");
        assert_eq!(server.members(channel)["members"].as_array().map(Vec::len), Some(1));
    }
    assert!(!back.has_something() && !elsewhere.has_something());

    // The last read that closes is the one that counts.
    drop(elsewhere);
    assert_eq!(server.next_events("c", 2), ["goodbye closed"]);
}

#[test]
fn a_read_may_ask_for_a_grace() {
    type Open = fn(&Server, &Identity, &str) -> Client;
    let ways: [(&str, Open); 4] = [
        ("long poll", |server, me, grace| {
            server.park(&me.and(&[("channel", "d"), ("grace", grace)]))
        }),
        ("stream", |server, me, grace| {
            server.events(&me.and(&[("channel", "d"), ("grace", grace)])).client
        }),
        ("socket", |server, me, grace| {
            server.socket(&me.and(&[("channel", "d"), ("grace", grace)])).client
        }),
        ("frame", |server, me, grace| {
            let mut socket = server.socket(&me.and(&[("channel", "d")]));
            let grace: u64 = grace.parse().expect("a number");
            socket.call(&json!({"call": "read", "channel": "d", "grace": grace}));
            // A later frame without a grace leaves it as it is.
            socket.call(&json!({"call": "read", "channel": "d"}));
            socket.client
        }),
    ];
    let server = Server::with(&["--connection-timeout", "6s"]);
    let people = ways.map(|(way, _)| server.introduce(way, "Josh"));
    let close_all = |grace| {
        let opened: Vec<_> =
            ways.iter().zip(&people).map(|((_, open), me)| open(&server, me, grace)).collect();
        drop(opened);
        server.wait_for_readers("d", 0);
    };
    close_all("60");
    assert!(people.iter().all(|me| lives(&server, me)));
    close_all("2");
    for (way, _) in ways {
        assert_eq!(server.read(way, "2").ids(), [0; 0], "{way}");
    }
    for (way, _) in ways {
        assert_eq!(server.next_events(way, 2), ["goodbye closed"], "{way}");
    }
    for (way, open) in ways {
        let me = server.introduce(way, "Ann");
        drop(open(&server, &me, "0"));
        assert_eq!(server.next_events(way, 4), ["goodbye closed"], "{way}");
    }
}

#[test]
fn the_longer_of_two_graces_applies() {
    let server = Server::with(&["--close-grace", "1h", "--connection-timeout", "1s"]);
    let me = server.introduce("c", "Josh");
    drop(server.park(&me.and(&[("channel", "c"), ("grace", "0")])));
    assert_eq!(server.next_events("c", 2), ["goodbye timeout"]);
}

#[test]
fn a_goodbye_during_the_grace_is_the_only_one() {
    let server = Server::patient(&["--close-grace", "1s"]);
    let me = server.introduce("c", "Josh");
    drop(server.park(&me.and(&[("channel", "c")])));
    server.wait_for_readers("c", 0);
    server.get("/goodbye", &me.and(&[])).ok();
    settle(&server);
    assert_eq!(server.read("c", "1").events(), ["introduction", "goodbye left"]);
}
