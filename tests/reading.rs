//! `/read`: where it starts, when it waits, and the form of its responses.

mod common;

use common::{Params, Server, now_ms, request};
use support::http::get;

/// Returns the server's epoch.
fn epoch(server: &Server) -> String {
    let answer = server.read("any", "-1").json();
    answer["epoch"].as_str().expect("an epoch").to_owned()
}

/// A server with the messages 1 to 5 in the channel `c`.
fn five_messages() -> Server {
    let server = Server::start();
    for id in 1..=5 {
        assert_eq!(server.write("c", &format!("m{id}")), id);
    }
    server
}

#[test]
fn from_id_has_four_forms() {
    let server = five_messages();
    let cases: [(&str, &[u64]); 12] = [
        ("1", &[1, 2, 3, 4, 5]),
        ("4", &[4, 5]),
        ("5", &[5]),
        ("005", &[5]),
        ("6", &[]),
        ("0", &[1, 2, 3, 4, 5]),
        ("-0", &[1, 2, 3, 4, 5]),
        ("-1", &[5]),
        ("-2", &[4, 5]),
        ("-5", &[1, 2, 3, 4, 5]),
        ("-6", &[1, 2, 3, 4, 5]),
        ("-9007199254740991", &[1, 2, 3, 4, 5]),
    ];
    for (from_id, ids) in cases {
        let answer = server.read("c", from_id);
        assert_eq!(answer.ids(), ids, "{from_id}");
        assert_eq!(answer.next_id(), 6, "{from_id}");
        assert!(!answer.is("missed") && !answer.is("reset"), "{from_id}");
    }
    let answer = server.get("/read", &[("channel", "c"), ("timeout", "0")]);
    assert_eq!((answer.ids(), answer.next_id()), (vec![], 6));
}

#[test]
fn a_read_waits_with_every_form_of_from_id() {
    let server = Server::start();
    let forms: [&Params; 4] = [
        &[("channel", "c"), ("from_id", "1")],
        &[("channel", "c"), ("from_id", "0")],
        &[("channel", "c"), ("from_id", "-3")],
        &[("channel", "c")],
    ];
    let mut readers = forms.map(|params| server.park(params));
    server.write("c", "howdy");
    let mut answers = readers.iter_mut().map(|reader| reader.response().ok());
    let first = answers.next().expect("an answer");
    assert_eq!(first.texts(), ["howdy"]);
    assert_eq!(first.next_id(), 2);
    for answer in answers {
        assert_eq!(answer.text(), first.text());
    }
}

#[test]
fn a_read_without_from_id_gets_only_new_messages() {
    let server = five_messages();
    let mut reader = server.park(&[("channel", "c")]);
    assert!(!reader.has_something());
    server.write("c", "m6");
    let answer = reader.response();
    assert_eq!((answer.ids(), answer.next_id()), (vec![6], 7));
}

#[test]
fn a_read_by_post_waits_too() {
    let server = Server::start();
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let mut reader = server.client();
    reader.send(request("POST", "/read", &headers, Some(b"channel=c&from_id=1")));
    server.wait_for_readers("c", 1);
    server.write("c", "howdy");
    assert_eq!(reader.response().ok().texts(), ["howdy"]);
}

#[test]
fn a_timeout_of_0_is_answered_at_once() {
    let server = Server::with(&["--poll-timeout", "1h"]);
    for from_id in ["1", "0", "-1"] {
        let answer = server.read("c", from_id);
        assert_eq!((answer.ids(), answer.next_id()), (vec![], 1));
    }
}

#[test]
fn a_read_that_times_out_gets_an_empty_list() {
    let server = Server::with(&["--poll-timeout", "200ms"]);
    server.write("c", "m");
    let forms: [&Params; 4] = [
        &[("channel", "c")],
        &[("channel", "c"), ("from_id", "2")],
        &[("channel", "c"), ("timeout", "25")],
        &[("channel", "new"), ("from_id", "0"), ("timeout", "1")],
    ];
    for params in forms {
        let answer = server.get("/read", params).ok();
        assert_eq!(answer.ids(), [0; 0], "{params:?}");
        let next_id = if params[0].1 == "c" { 2 } else { 1 };
        assert_eq!(answer.next_id(), next_id, "{params:?}");
    }
}

#[test]
fn a_timeout_is_counted_in_whole_seconds() {
    let server = Server::start();
    let start = std::time::Instant::now();
    let answer = server.get("/read", &[("channel", "c"), ("timeout", "1")]);
    assert_eq!(answer.ok().ids(), [0; 0]);
    // Timers may be coarse, but not by a tenth.
    assert!(start.elapsed().as_millis() >= 900);
}

#[test]
fn responses_have_exactly_these_bytes() {
    let server = Server::with(&["--connection-timeout", "1m"]);
    let epoch = epoch(&server);
    let before = now_ms() - 1;
    let me = server.introduce("c", "Josh");
    server.call_as(&me, "/write", "c", "say \"hi\"\n");
    server.write("c", "");
    server.call_as(&me, "/goodbye", "c", "so long");
    server.call_as(&me, "/introduce", "c", "again");
    server.goodbye(&me);

    let answer = server.read("c", "1");
    let times: Vec<u64> =
        answer.messages().iter().map(|message| message["time"].as_u64().expect("a time")).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(before <= times[0] && times[5] <= now_ms() + 1, "{times:?}");
    let expected = [
        r#"{"messages":[{"id":1,"type":"introduction","time":T0,"from":1,"message":"Josh"},"#,
        r#"{"id":2,"type":"message","time":T1,"from":1,"message":"say \"hi\"\n"},"#,
        r#"{"id":3,"type":"message","time":T2,"message":""},"#,
        r#"{"id":4,"type":"goodbye","time":T3,"from":1,"message":"so long","reason":"left"},"#,
        r#"{"id":5,"type":"introduction","time":T4,"from":1,"message":"again"},"#,
        r#"{"id":6,"type":"goodbye","time":T5,"from":1,"reason":"left"}],"#,
        r#""next_id":7,"epoch":"EPOCH"}"#,
    ];
    let mut expected = expected.concat();
    for (place, time) in times.iter().enumerate() {
        expected = expected.replace(&format!("T{place}"), &time.to_string());
    }
    // The epoch comes last: its random characters may be those of a place.
    assert_eq!(answer.text(), expected.replace("EPOCH", &epoch));

    let nothing = server.read("new", "1");
    let expected = format!(r#"{{"messages":[],"next_id":1,"epoch":"{epoch}"}}"#);
    assert_eq!(nothing.text(), expected);
}

#[test]
fn every_text_comes_back_unchanged() {
    let server = Server::start();
    let all: String = (0..0x3000).filter_map(char::from_u32).collect();
    let texts = [&*all, "\"", "\\", "\\u0041", "\u{7f}", "</script>", "\u{2028}\u{2029}", "😀🎉"];
    let mut client = server.client();
    for text in texts {
        client.post("/write?channel=c", "text/plain", text).ok();
    }
    let answer = server.read("c", "1");
    assert!(answer.texts() == texts);
    let raw = answer.text();
    assert!(!raw.contains(['\u{2028}', '\u{2029}']), "they end a line of a script");
    assert!(!raw.bytes().any(|byte| byte < b' '), "a raw control character");
}

#[test]
fn a_different_epoch_causes_a_reset() {
    let server = five_messages();
    let own = epoch(&server);
    let read = |from_id: &str, epoch: &str| {
        let params = [("channel", "c"), ("from_id", from_id), ("epoch", epoch), ("timeout", "0")];
        server.get("/read", &params).ok()
    };
    let same = read("3", &own);
    assert_eq!((same.ids(), same.is("reset")), (vec![3, 4, 5], false));
    let waiting = read("6", &own);
    assert_eq!((waiting.ids(), waiting.is("reset")), (vec![], false));

    for (from_id, epoch) in [("3", "other"), ("6", "other"), ("7", "other"), ("7", &own)] {
        let answer = read(from_id, epoch);
        assert!(answer.is("reset") && !answer.is("missed"), "{from_id} {epoch}");
        assert_eq!(answer.ids(), [1, 2, 3, 4, 5], "{from_id} {epoch}");
        assert_eq!(answer.next_id(), 6);
    }
    for from_id in ["0", "-2"] {
        let answer = read(from_id, "other");
        assert!(!answer.is("reset") && !answer.is("missed"), "{from_id}");
    }
    let coming = [("channel", "c"), ("epoch", "other"), ("timeout", "0")];
    let answer = server.get("/read", &coming).ok();
    assert_eq!((answer.ids(), answer.is("reset")), (vec![], false));
}

#[test]
fn a_reset_is_sent_at_once_even_without_messages() {
    let server = Server::with(&["--poll-timeout", "1h"]);
    let epoch = epoch(&server);
    let cases: [&Params; 3] = [
        &[("channel", "c"), ("from_id", "2")],
        &[("channel", "c"), ("from_id", "9007199254740991"), ("epoch", &epoch)],
        &[("channel", "c"), ("from_id", "1"), ("epoch", "other")],
    ];
    for params in cases {
        let answer = server.get("/read", params).ok();
        let expected = format!(r#"{{"messages":[],"next_id":1,"epoch":"{epoch}","reset":true}}"#);
        assert_eq!(answer.text(), expected, "{params:?}");
    }
}

#[test]
fn a_reset_includes_the_members() {
    let server = Server::with(&["--history", "2", "--connection-timeout", "1m"]);
    let _josh = server.introduce("c", "Josh");
    for message in ["a", "b", "c"] {
        server.write("c", message);
    }
    let answer = server.read("c", "50");
    assert!(answer.is("reset"));
    assert_eq!(answer.texts(), ["Josh", "b", "c"]);
}

#[test]
fn an_epoch_lasts_for_one_start() {
    let (one, other) = (Server::start(), Server::start());
    assert_eq!(epoch(&one), epoch(&one));
    assert_ne!(epoch(&one), epoch(&other));
}

#[test]
fn messages_of_one_turn_come_in_one_response() {
    let server = Server::start();
    let mut readers = [(); 3].map(|()| server.park(&[("channel", "c"), ("from_id", "1")]));
    // One segment, so that the server reads all of them in one turn.
    let write = |number| get(&format!("/write?channel=c&message=m{number}"));
    let mut writer = server.client();
    writer.send([1, 2, 3, 4, 5].map(write).concat());
    for reader in &mut readers {
        assert_eq!(reader.response().ids(), [1, 2, 3, 4, 5]);
    }
    for id in 1..=5 {
        assert_eq!(writer.response().ok().text(), format!(r#"{{"id":{id}}}"#));
    }
}

#[test]
fn one_read_covers_several_channels() {
    let server = Server::start();
    let epoch = epoch(&server);
    server.write("a", "one");
    let both = [("channel", "b"), ("channel", "a"), ("timeout", "0")];
    let now = server.get("/read", &both).ok();
    let expected = [
        r#"{"channels":[{"channel":"b","messages":[],"next_id":1},"#,
        r#"{"channel":"a","messages":[],"next_id":2}],"epoch":"EPOCH"}"#,
    ];
    let expected = expected.concat().replace("EPOCH", &epoch);
    assert_eq!(now.text(), expected);

    let from = [("channel", "a"), ("channel", "\"b\""), ("from_id", "2"), ("from_id", "1")];
    let mut reader = server.park(&from);
    assert_eq!(server.readers("\"b\""), 1);
    server.write("\"b\"", "two");
    let answer = reader.response().ok();
    let time = answer.json()["channels"][1]["messages"][0]["time"].to_string();
    let expected = [
        r#"{"channels":[{"channel":"a","messages":[],"next_id":2},"#,
        r#"{"channel":"\"b\"","messages":[{"id":1,"type":"message","time":TIME,"message":"two"}],"#,
        r#""next_id":2}],"epoch":"EPOCH"}"#,
    ];
    let expected = expected.concat().replace("EPOCH", &epoch);
    assert_eq!(answer.text(), expected.replace("TIME", &time));
    assert_eq!(server.readers("a"), 0);
}

#[test]
fn missed_and_reset_name_their_channel() {
    let server = Server::with(&["--history", "1"]);
    let epoch = epoch(&server);
    for channel in ["a", "a", "b"] {
        server.write(channel, "m");
    }
    let channels = [("channel", "a"), ("channel", "b"), ("channel", "c")];
    let from = [("from_id", "1"), ("from_id", "5"), ("from_id", "0")];
    let answer = server.get("/read", &[channels, from].concat()).ok();
    let text = answer.text();
    let a = r#"],"next_id":3,"missed":true},{"channel":"b","messages":[{"id":1,"#;
    assert!(text.contains(a), "{text}");
    let b = r#"],"next_id":2,"reset":true},{"channel":"c","messages":[],"next_id":1}],"#;
    assert!(text.contains(b), "{text}");
    assert!(text.ends_with(&format!(r#"],"epoch":"{epoch}"}}"#)), "{text}");
}

#[test]
fn a_response_lists_every_channel_of_the_read() {
    let server = Server::start();
    let read = server.get("/create", &[]).ok().json();
    let name = |half: &str| read[half].as_str().expect("a name").to_owned();
    let (read, write) = (name("read"), name("write"));
    server.write("a", "one");
    server.write(&write, "two");
    let params = [
        ("channel", "a"),
        ("channel", "empty"),
        ("channel", &*read),
        ("from_id", "-1"),
        ("from_id", "-1"),
        ("from_id", "1"),
    ];
    let answer = server.get("/read", &params).ok().json();
    let channels = answer["channels"].as_array().expect("a list of channels");
    let texts = channels.iter().map(|channel| &channel["messages"][0]["message"]);
    let texts: Vec<Option<&str>> = texts.map(|text| text.as_str()).collect();
    assert_eq!(texts, [Some("one"), None, Some("two")]);
    assert_eq!(channels[2]["channel"], *read);
}

#[test]
fn a_read_covers_at_most_32_channels() {
    let server = Server::start();
    let names: Vec<String> = (0..33).map(|number| format!("c{number}")).collect();
    let mut params: Vec<(&str, &str)> = names.iter().map(|name| ("channel", &**name)).collect();
    params.push(("timeout", "0"));
    server.get("/read", &params).fails_with(400, "bad_parameter");
    params.remove(0);
    let answer = server.get("/read", &params).ok().json();
    assert_eq!(answer["channels"].as_array().map(Vec::len), Some(32));
}

#[test]
fn from_id_is_given_for_every_channel_or_for_none() {
    let server = Server::start();
    let counts = [(2, 0, 200), (2, 1, 400), (2, 2, 200), (2, 3, 400), (3, 2, 400), (1, 2, 400)];
    for (channels, from_ids, status) in counts {
        let channels = ["a", "b", "c"][..channels].iter().map(|&name| ("channel", name));
        let from_ids = [("from_id", "1"); 3][..from_ids].iter().copied();
        let mut params: Vec<(&str, &str)> = channels.chain(from_ids).collect();
        params.push(("timeout", "0"));
        let answer = server.get("/read", &params);
        assert_eq!(answer.status, status, "{params:?}");
        if status == 400 {
            answer.fails_with(400, "bad_parameter");
        }
    }
}

#[test]
fn one_bad_channel_of_several_refuses_the_read() {
    let server = Server::start();
    let pair = server.get("/create", &[]).ok().json();
    let write = pair["write"].as_str().expect("a name to write to");
    let cases = [(write, 403, "not_readable"), ("", 400, "bad_channel"), ("~", 400, "bad_channel")];
    for (channel, status, error) in cases {
        let answer = server.get("/read", &[("channel", "a"), ("channel", channel)]);
        answer.fails_with(status, error);
        assert_eq!(server.readers("a"), 0);
    }
}
