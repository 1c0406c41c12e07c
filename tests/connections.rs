//! Introductions, names, credentials and goodbyes.

mod common;

use common::{Identity, Params, Server};

/// A server on which no connection times out while a test runs.
fn patient() -> Server {
    Server::with(&["--connection-timeout", "1m", "--poll-timeout", "1h"])
}

#[test]
fn connections_are_numbered_from_1() {
    let server = patient();
    let numbers = ["a", "b", "a", "c"].map(|channel| server.introduce(channel, "x").number);
    assert_eq!(numbers, [1, 2, 3, 4]);
    let gone = server.introduce("a", "gone");
    server.goodbye(&gone);
    assert_eq!(server.introduce("a", "next").number, 6);
}

#[test]
fn auth_codes_differ() {
    let server = patient();
    let mut codes: Vec<String> = (0..50).map(|_| server.introduce("c", "x").auth).collect();
    codes.sort();
    codes.dedup();
    assert_eq!(codes.len(), 50);
}

#[test]
fn one_connection_joins_several_channels() {
    let server = patient();
    let me = server.introduce("a", "Josh");
    let answer = server.call_as(&me, "/introduce", "b", "Josh in b");
    let expected = format!(r#"{{"connection":1,"auth":"{}","id":1,"timeout":60}}"#, me.auth);
    assert_eq!(answer.text(), expected);
    for (channel, name) in [("a", "Josh"), ("b", "Josh in b")] {
        let members = server.members(channel);
        assert_eq!(members["members"][0]["connection"], 1);
        assert_eq!(members["members"][0]["message"], name);
        assert_eq!(server.read(channel, "1").events(), ["introduction"]);
    }
}

#[test]
fn a_repeated_introduction_changes_the_name() {
    let server = patient();
    let me = server.introduce("c", "Josh");
    let mut watcher = server.park(&[("channel", "c"), ("from_id", "2")]);
    let answer = Identity::from_answer(&server.call_as(&me, "/introduce", "c", "Joshua"));
    assert_eq!((answer.number, answer.id), (1, 2));
    assert_eq!(answer.auth, me.auth);

    let news = watcher.response();
    assert_eq!(news.events(), ["introduction"]);
    assert_eq!(news.texts(), ["Joshua"]);
    let members = server.members("c")["members"].clone();
    assert_eq!(members.as_array().map(Vec::len), Some(1));
    assert_eq!(members[0]["message"], "Joshua");
    assert_eq!(members[0]["id"], 2);

    // One name or two: there is one goodbye.
    server.goodbye(&me);
    assert_eq!(server.read("c", "3").events(), ["goodbye left"]);
}

#[test]
fn a_write_has_from_in_every_channel() {
    let server = patient();
    let me = server.introduce("home", "Josh");
    server.call_as(&me, "/write", "abroad", "hi");
    server.write("abroad", "anonymous");
    let messages = server.read("abroad", "1").messages();
    assert_eq!(messages[0]["from"], 1);
    assert!(messages[1].get("from").is_none());
    let absent = server.members("abroad");
    assert_eq!(absent["members"].as_array().map(Vec::len), Some(0));
}

/// Asserts that every call that takes credentials refuses these.
#[track_caller]
fn is_refused(server: &Server, connection: &str, auth: &str, (status, error): (u16, &str)) {
    let calls: [(&str, &Params); 5] = [
        ("/write", &[("channel", "c"), ("message", "m")]),
        ("/read", &[("channel", "c"), ("timeout", "0")]),
        ("/introduce", &[("channel", "c"), ("message", "m")]),
        ("/goodbye", &[]),
        ("/goodbye", &[("channel", "c")]),
    ];
    for (path, params) in calls {
        let proof = [("connection", connection), ("auth", auth)];
        server.get(path, &[params, &proof].concat()).fails_with(status, error);
    }
}

#[test]
fn a_wrong_auth_code_is_refused() {
    let server = patient();
    let me = server.introduce("c", "Josh");
    let other = server.introduce("c", "Ann");
    let swapped: String = me.auth.chars().rev().collect();
    let case = |letter: char| match letter {
        'a'..='z' => letter.to_ascii_uppercase(),
        'A'..='Z' => letter.to_ascii_lowercase(),
        digit => digit,
    };
    let wrong = [
        String::new(),
        "x".to_owned(),
        me.auth[..21].to_owned(),
        format!("{}x", me.auth),
        format!("{} ", me.auth),
        format!("{}\0", me.auth),
        me.auth.chars().map(case).collect(),
        swapped,
        other.auth.clone(),
        "ü".repeat(11),
    ];
    for auth in &wrong {
        is_refused(&server, &me.connection, auth, (403, "bad_auth"));
    }
    assert_eq!(server.read("c", "1").texts(), ["Josh", "Ann"]);
}

#[test]
fn an_unknown_connection_is_treated_as_an_ended_one() {
    let server = patient();
    let me = server.introduce("c", "Josh");
    let gone = server.introduce("c", "gone");
    server.goodbye(&gone);
    for number in [&*gone.connection, "0", "-1", "3", "99", "9007199254740991"] {
        // Not even the code that used to be right is accepted.
        for auth in [&me.auth, &gone.auth] {
            is_refused(&server, number, auth, (410, "connection_ended"));
        }
    }
    assert_eq!(server.read("c", "1").ids(), [1, 2, 3]);
}

#[test]
fn a_connection_joins_at_most_32_channels() {
    let server = patient();
    let me = server.introduce("c0", "Josh");
    let join = |channel: &str| {
        let params = [("channel", channel), ("message", "Josh")];
        server.get("/introduce", &me.and(&params))
    };
    for number in 1..32 {
        join(&format!("c{number}")).ok();
    }
    join("c32").fails_with(400, "bad_parameter");
    assert_eq!(server.read("c32", "1").next_id(), 1);
    // It may change its name in channels it is in, or leave one for another.
    join("c31").ok();
    server.get("/goodbye", &me.and(&[("channel", "c7")])).ok();
    join("c32").ok();
    join("c7").fails_with(400, "bad_parameter");
}

#[test]
fn goodbye_leaves_every_channel_once() {
    let server = patient();
    let me = server.introduce("a", "Josh");
    for channel in ["b", "c", "a"] {
        server.call_as(&me, "/introduce", channel, "Josh");
    }
    server.introduce("a", "stays");
    let goodbye = me.and(&[("message", "so long")]);
    let answer = server.get("/goodbye", &goodbye).ok();
    assert_eq!(answer.text(), r#"{"ok":true}"#);
    for (channel, from_id) in [("a", "4"), ("b", "2"), ("c", "2")] {
        let answer = server.read(channel, from_id);
        assert_eq!(answer.events(), ["goodbye left"], "{channel}");
        assert_eq!(answer.texts(), ["so long"], "{channel}");
        assert_eq!(answer.messages()[0]["from"], 1);
    }
    let members = server.members("a")["members"].clone();
    assert_eq!(members.as_array().map(Vec::len), Some(1));
    let again = server.get("/goodbye", &me.and(&[]));
    again.fails_with(410, "connection_ended");
}

#[test]
fn goodbye_to_one_channel_leaves_that_one_alone() {
    let server = patient();
    let me = server.introduce("a", "Josh");
    server.call_as(&me, "/introduce", "b", "Josh");
    let mut waiting = server.park(&me.and(&[("channel", "b"), ("from_id", "2")]));

    server.call_as(&me, "/goodbye", "a", "bye");
    let left = server.read("a", "2");
    assert_eq!(left.events(), ["goodbye left"]);
    assert_eq!(left.texts(), ["bye"]);
    assert_eq!(server.members("a")["members"].as_array().map(Vec::len), Some(0));
    assert_eq!(server.members("b")["members"][0]["connection"], 1);

    // The read is still pending, and the connection can still write and return.
    assert!(!waiting.has_something());
    server.call_as(&me, "/write", "b", "still here");
    assert_eq!(waiting.response().texts(), ["still here"]);
    server.call_as(&me, "/introduce", "a", "Josh again");
    assert_eq!(server.read("a", "0").texts(), ["Josh", "bye", "Josh again"]);
}

#[test]
fn leaving_the_last_channel_does_not_end_the_connection() {
    let server = patient();
    let me = server.introduce("a", "Josh");
    server.get("/goodbye", &me.and(&[("channel", "a")])).ok();
    server.call_as(&me, "/write", "a", "from outside");
    assert_eq!(server.read("a", "3").messages()[0]["from"], 1);
    // The end adds nothing more.
    server.goodbye(&me);
    assert_eq!(server.read("a", "1").ids(), [1, 2, 3]);
}

#[test]
fn leaving_a_channel_without_membership_adds_nothing() {
    let server = patient();
    let me = server.introduce("a", "Josh");
    server.introduce("b", "Ann");
    for channel in ["b", "never used"] {
        let answer = server.call_as(&me, "/goodbye", channel, "bye");
        assert_eq!(answer.text(), r#"{"ok":true}"#);
    }
    assert_eq!(server.read("b", "1").texts(), ["Ann"]);
    assert_eq!(server.read("never used", "1").next_id(), 1);
    assert_eq!(server.members("a")["members"][0]["connection"], 1);
}

#[test]
fn pending_reads_of_an_ended_connection_are_answered() {
    let server = patient();
    let me = server.introduce("a", "Josh");
    let mut sees_it = server.park(&me.and(&[("channel", "a"), ("from_id", "2")]));
    let mut elsewhere = server.park(&me.and(&[("channel", "b"), ("from_id", "1")]));
    let mut both = server.park(&me.and(&[("channel", "b"), ("channel", "a")]));
    let mut stranger = server.park(&[("channel", "b")]);
    server.goodbye(&me);

    assert_eq!(sees_it.response().ok().events(), ["goodbye left"]);
    let empty = elsewhere.response().ok();
    assert_eq!((empty.ids(), empty.next_id()), (vec![], 1));
    let channels = both.response().ok().json()["channels"].clone();
    assert_eq!(channels[0]["messages"].as_array().map(Vec::len), Some(0));
    assert_eq!(channels[1]["messages"][0]["reason"], "left");
    // Their clients stay connected, and the read of another connection stays pending.
    elsewhere.get("/health", &[]).ok();
    server.wait_for_readers("b", 1);
    assert!(!stranger.has_something());
    server.write("b", "m");
    assert_eq!(stranger.response().texts(), ["m"]);
}

#[test]
fn a_read_with_from_id_0_sees_members_join() {
    let server = patient();
    let mut lobby = server.park(&[("channel", "c"), ("from_id", "0")]);
    let me = server.introduce("c", "Josh");
    let came = lobby.response();
    assert_eq!(came.events(), ["introduction"]);
    let next_id = came.next_id().to_string();
    lobby.send_get("/read", &[("channel", "c"), ("from_id", &next_id)]);
    server.wait_for_readers("c", 1);
    server.goodbye(&me);
    assert_eq!(lobby.response().events(), ["goodbye left"]);
}

#[test]
fn pending_reads_per_connection_are_limited_and_a_superseding_read_does_not_count() {
    // Each node counts those that wait there.
    let server = Server::alone(&["--connection-timeout", "1m", "--poll-timeout", "1h"]);
    let me = server.introduce("home", "busy");
    let mut readers: Vec<_> = (0..256)
        .map(|number| {
            let mut reader = server.client();
            reader.send_get("/read", &me.and(&[("channel", &format!("c{number}"))]));
            reader
        })
        .collect();
    for number in 0..256 {
        server.wait_for_readers(&format!("c{number}"), 1);
    }
    let refused = server.get("/read", &me.and(&[("channel", "one more")]));
    refused.fails_with(400, "bad_parameter");
    let mut returning = server.client();
    returning.send_get("/read", &me.and(&[("channel", "c100")]));
    assert!(
        readers[100].response().ok().messages().is_empty(),
        "the older one is answered with nothing"
    );
    assert!(!returning.has_something());
    // A read that ends makes room for another.
    server.write("c7", "m");
    assert_eq!(readers[7].response().ok().texts(), ["m"]);
    let mut other = server.client();
    other.send_get("/read", &me.and(&[("channel", "one more")]));
    server.wait_for_readers("one more", 1);
}
