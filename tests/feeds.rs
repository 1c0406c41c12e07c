//! Feeds: one writes, everybody reads.

mod common;

use common::{Server, Socket};
use serde_json::json;

/// Returns the names of a new feed: to write, and to read.
fn feed(server: &Server) -> (String, String) {
    let names = server.get("/create", &[("kind", "feed")]).ok();
    let text = names.text().to_owned();
    assert!(text.starts_with(r#"{"write":"~f"#) && text.contains(r#"","read":"~b"#), "{text}");
    let names = names.json();
    let name = |key: &str| names[key].as_str().unwrap().to_owned();
    (name("write"), name("read"))
}

#[test]
fn the_read_name_follows_from_the_secret_write_name() {
    // printf %s "$WRITE" | openssl dgst -sha256 -binary | basenc --base64url | cut -c-22
    let server = Server::start();
    let (write, read) = ("~fABCDEFGHIJKLMNOPQRSTUV", "~bI4ddIIWnQHL8ZLbdkmx-TJ");
    assert_eq!(server.write(write, "news"), 1);
    assert_eq!(server.read(read, "1").texts(), ["news"]);
}

#[test]
fn the_secret_of_a_feed_only_writes_and_the_name_given_away_only_reads() {
    let server = Server::patient(&[]);
    let (write, read) = feed(&server);
    assert_eq!(server.write(&write, "first"), 1);
    let me = server.introduce(&write, "the reporter");
    assert_eq!(me.id, 2);
    assert_eq!(server.read(&read, "0").texts(), ["first", "the reporter"]);
    let members = server.members(&read);
    assert_eq!(members["members"][0]["message"], "the reporter");
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1));
    for path in ["/read", "/members"] {
        let params = [("channel", &*write), ("from_id", "0"), ("timeout", "0")];
        server.get(path, &params).fails_with(403, "not_readable");
        server.client().post_form(path, &params).fails_with(403, "not_readable");
    }
    for path in ["/write", "/introduce"] {
        let params = [("channel", &*read), ("message", "a lie")];
        server.get(path, &params).fails_with(403, "not_writable");
        server.client().post_form(path, &params).fails_with(403, "not_writable");
    }
    let leaving = me.and(&[("channel", &*read)]);
    server.get("/goodbye", &leaving).fails_with(403, "not_writable");
    assert_eq!(server.read(&read, "3").events(), [""; 0]);
    // A feed is no room: nothing is marked as its owner's.
    assert!(!server.read(&read, "1").text().contains("owner"));
}

#[test]
fn a_feed_reaches_readers_that_wait() {
    let server = Server::patient(&[]);
    let (write, read) = feed(&server);
    let mut poll = server.park(&[("channel", &*read), ("from_id", "1")]);
    let mut events = server.events(&[("channel", &*read)]);
    let mut socket = server.socket(&[("channel", &*read)]);
    server.wait_for_readers(&read, 3);
    server.write(&write, "news");
    assert_eq!(poll.response().ok().texts(), ["news"]);
    assert_eq!(events.texts(1), ["news"]);
    assert_eq!(socket.texts(), ["news"]);
}

#[test]
fn frames_make_feeds_and_write_to_them() {
    let server = Server::patient(&[]);
    let mut socket: Socket = server.socket(&[("channel", "c")]);
    let names = socket.call(&json!({"call": "create", "kind": "feed", "ref": 1}));
    let [write, read] = ["write", "read"].map(|key| names[key].as_str().unwrap());
    assert!(write.starts_with("~f") && read.starts_with("~b"), "{names}");
    let lie = json!({"call": "write", "channel": read, "message": "a lie", "ref": 2});
    assert_eq!(socket.call(&lie)["error"], "not_writable");
    for call in ["read", "members"] {
        let peek = json!({"call": call, "channel": write, "ref": 3});
        assert_eq!(socket.call(&peek)["error"], "not_readable");
    }
    let news = json!({"call": "write", "channel": write, "message": "news", "ref": 3});
    assert_eq!(socket.call(&news)["id"], 1);
    let other = json!({"call": "create", "kind": "other", "ref": 4});
    assert_eq!(socket.call(&other)["error"], "bad_parameter");
    let number = json!({"call": "create", "kind": 1, "ref": 5});
    assert_eq!(socket.call(&number)["error"], "bad_parameter");
}

#[test]
fn each_kind_has_its_names_and_no_other_kind_exists() {
    let server = Server::start();
    let kinds = [
        ("", ["read", "write"], ["~r", "~w"]),
        ("inbox", ["read", "write"], ["~r", "~w"]),
        ("feed", ["write", "read"], ["~f", "~b"]),
        ("room", ["owner", "channel"], ["~o", "~c"]),
    ];
    for (kind, keys, prefixes) in kinds {
        let params = [("kind", kind)];
        let params = if kind.is_empty() { &params[..0] } else { &params[..] };
        for answer in [server.get("/create", params), server.client().post_form("/create", params)]
        {
            let text = answer.ok().text().to_owned();
            let [secret, given] = keys;
            let start = format!(r#"{{"{secret}":"{}"#, prefixes[0]);
            let rest = text.strip_prefix(&*start).unwrap_or_else(|| panic!("{text}"));
            let (code, rest) = rest.split_at(22);
            assert!(code.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
            let start = format!(r#"","{given}":"{}"#, prefixes[1]);
            let rest = rest.strip_prefix(&*start).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((rest.len(), &rest[22..]), (24, r#""}"#), "{text}");
        }
    }
    for kind in ["", "Feed", "feeds", "~f", "feed "] {
        server.get("/create", &[("kind", kind)]).fails_with(400, "bad_parameter");
    }
    let twice = [("kind", "feed"), ("kind", "feed")];
    server.get("/create", &twice).fails_with(400, "bad_parameter");
    let script = server.get("/create", &[("kind", "room"), ("callback", "f")]).ok();
    assert!(script.text().starts_with(r#"/**/f({"owner":"~o"#), "{}", script.text());
}
