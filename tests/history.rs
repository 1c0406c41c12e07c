//! Retention of a channel, reports of missed messages, and responses in parts.

mod common;

use common::{Server, until};

/// Writes `m1`, `m2` and so on to the channel `c`.
fn write(server: &Server, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        server.write("c", &format!("m{number}"));
    }
}

#[test]
fn history_keeps_the_newest_and_reports_missed_messages() {
    let server = Server::with(&["--history", "3"]);
    write(&server, 1..=5);
    assert_eq!(server.read("c", "0").texts(), ["m3", "m4", "m5"]);
    let cases: [(&str, &[u64], bool); 10] = [
        ("0", &[3, 4, 5], false),
        ("-100", &[3, 4, 5], false),
        ("-9", &[3, 4, 5], false),
        ("-3", &[3, 4, 5], false),
        ("-2", &[4, 5], false),
        ("1", &[3, 4, 5], true),
        ("2", &[3, 4, 5], true),
        ("3", &[3, 4, 5], false),
        ("4", &[4, 5], false),
        ("6", &[], false),
    ];
    for (from_id, ids, missed) in cases {
        let answer = server.read("c", from_id);
        assert_eq!((&*answer.ids(), answer.next_id()), (ids, 6), "{from_id}");
        assert!(answer.is("missed") == missed && !answer.is("reset"), "{from_id}");
        let text = answer.text();
        assert_eq!(text.ends_with(r#"","missed":true}"#), missed, "after epoch: {text}");
    }
}

#[test]
fn a_hundred_messages_are_retained_by_default() {
    let server = Server::start();
    write(&server, 1..=103);
    assert_eq!(server.read("c", "0").ids(), (4..=103).collect::<Vec<_>>());
}

#[test]
fn without_history_only_pending_reads_get_a_message() {
    let server = Server::with(&["--history", "0", "--poll-timeout", "1h"]);
    let forms: [&[(&str, &str)]; 3] = [
        &[("channel", "c"), ("from_id", "1")],
        &[("channel", "c"), ("from_id", "0")],
        &[("channel", "c")],
    ];
    let mut readers = forms.map(|params| server.park(params));
    server.write("c", "live");
    for reader in &mut readers {
        let answer = reader.response();
        assert_eq!((answer.texts(), answer.next_id()), (vec!["live".to_owned()], 2));
        assert!(!answer.is("missed"));
    }
    assert_eq!(server.read("c", "0").ids(), [0; 0]);
    assert_eq!(server.read("c", "-5").ids(), [0; 0]);

    // It is answered at once, with nothing left to report.
    let late = server.get("/read", &[("channel", "c"), ("from_id", "1")]).ok();
    assert_eq!((late.ids(), late.next_id(), late.is("missed")), (vec![], 2, true));
    let mut on_time = server.park(&[("channel", "c"), ("from_id", "2")]);
    server.write("c", "next");
    assert_eq!(on_time.response().ids(), [2]);
}

#[test]
fn messages_of_one_turn_beyond_the_history_are_missed() {
    let server = Server::with(&["--history", "2"]);
    let mut follower = server.park(&[("channel", "c"), ("from_id", "1")]);
    let mut reader = server.park(&[("channel", "c")]);
    let mut writer = server.client();
    writer.send(support::http::get("/write?channel=c&message=m").repeat(5));
    for (client, missed) in [(&mut follower, true), (&mut reader, false)] {
        let answer = client.response();
        assert_eq!((answer.ids(), answer.next_id(), answer.is("missed")), (vec![4, 5], 6, missed));
    }
}

#[test]
fn a_read_of_everything_gets_introductions_that_history_dropped() {
    let server = Server::with(&["--history", "2", "--connection-timeout", "1m"]);
    let josh = server.introduce("c", "Josh");
    let ann = server.introduce("c", "Ann");
    write(&server, 3..=5);

    let list = server.read("c", "0");
    assert_eq!(list.texts(), ["Josh", "Ann", "m4", "m5"]);
    assert_eq!((list.ids(), list.next_id()), (vec![1, 2, 4, 5], 6));
    assert!(!list.is("missed"));
    assert_eq!(list.messages()[0]["type"], "introduction");
    assert_eq!(list.messages()[0]["from"], 1);
    // Only `from_id=0` requests introductions.
    assert_eq!(server.read("c", "1").ids(), [4, 5]);
    assert_eq!(server.read("c", "-9").ids(), [4, 5]);

    // A new name replaces the old one.
    server.call_as(&josh, "/introduce", "c", "Joshua");
    assert_eq!(server.read("c", "0").ids(), [2, 5, 6]);
    write(&server, 7..=8);
    assert_eq!(server.read("c", "0").texts(), ["Ann", "Joshua", "m7", "m8"]);

    // A member that left is not listed, even if its goodbye has been dropped.
    server.goodbye(&ann);
    assert_eq!(server.read("c", "0").ids(), [6, 8, 9]);
    write(&server, 10..=11);
    assert_eq!(server.read("c", "0").ids(), [6, 10, 11]);
}

#[test]
fn an_old_introduction_stays_while_history_retains_it() {
    let server = Server::with(&["--connection-timeout", "1m"]);
    let josh = server.introduce("c", "Josh");
    server.call_as(&josh, "/introduce", "c", "Joshua");
    let list = server.read("c", "0");
    assert_eq!(list.texts(), ["Josh", "Joshua"]);
    let members = server.members("c")["members"].clone();
    assert_eq!(members.as_array().map(Vec::len), Some(1));
    assert_eq!(members[0]["message"], "Joshua");
}

#[test]
fn a_list_of_members_alone_answers_a_read() {
    let options = ["--history", "0", "--connection-timeout", "1m", "--poll-timeout", "1h"];
    let server = Server::with(&options);
    let _josh = server.introduce("c", "Josh");
    let list = server.get("/read", &[("channel", "c"), ("from_id", "0")]).ok();
    assert_eq!((list.texts(), list.next_id()), (vec!["Josh".to_owned()], 2));
}

#[test]
fn messages_expire() {
    let server = Server::with(&["--retention", "300ms", "--connection-timeout", "1m"]);
    let _josh = server.introduce("c", "Josh");
    server.write("c", "old");
    until("the messages are gone", || server.read("c", "-9").ids().is_empty());

    let late = server.read("c", "1");
    assert!(late.is("missed"));
    assert_eq!((late.ids(), late.next_id()), (vec![], 3));
    let on_time = server.read("c", "3");
    assert!(!on_time.is("missed"));
    // Introductions of members do not expire, and no id is used twice.
    assert_eq!(server.read("c", "0").texts(), ["Josh"]);
    assert_eq!(server.members("c")["members"][0]["message"], "Josh");
    assert_eq!(server.write("c", "new"), 3);
    assert_eq!(server.read("c", "3").texts(), ["new"]);
}

#[test]
fn a_long_history_is_read_in_several_responses() {
    let server = Server::with(&["--max-reply", "1000"]);
    let text = "x".repeat(240);
    for _ in 0..10 {
        server.write("c", &text);
    }
    let (mut next_id, mut parts) = (1, Vec::new());
    while next_id <= 10 {
        let answer = server.read("c", &next_id.to_string());
        let ids = answer.ids();
        assert!(!ids.is_empty() && ids.len() < 5 && !answer.is("missed"), "{ids:?}");
        next_id = answer.next_id();
        assert_eq!(ids.last().map(|last| last + 1), Some(next_id));
        parts.push(ids);
    }
    assert_eq!(parts.concat(), (1..=10).collect::<Vec<_>>());
    assert!(parts.len() >= 3, "{parts:?}");
}

#[test]
fn one_message_is_sent_whatever_its_length() {
    let server = Server::with(&["--max-reply", "100"]);
    let text = "x".repeat(500);
    server.write("c", &text);
    server.write("c", &text);
    let first = server.read("c", "0");
    assert_eq!((first.ids(), first.next_id()), (vec![1], 2));
    let second = server.read("c", "2");
    assert_eq!((second.ids(), second.next_id()), (vec![2], 3));
    let mut waiting = server.park(&[("channel", "c"), ("from_id", "3")]);
    server.write("c", &text);
    assert_eq!(waiting.response().ids(), [3]);
}

#[test]
fn all_channels_of_a_read_share_one_limit() {
    let server = Server::with(&["--max-reply", "1000"]);
    let text = "x".repeat(240);
    for channel in ["a", "b"].repeat(6) {
        server.write(channel, &text);
    }
    let mut next = [1, 1];
    for _ in 0..20 {
        let from = next.map(|id: u64| id.to_string());
        let params = [
            ("channel", "a"),
            ("channel", "b"),
            ("from_id", &*from[0]),
            ("from_id", &*from[1]),
            ("timeout", "0"),
        ];
        let answer = server.get("/read", &params).ok().json();
        let before: u64 = next.iter().sum();
        for place in [0, 1] {
            let channel = &answer["channels"][place];
            for message in channel["messages"].as_array().expect("a list") {
                assert_eq!(message["id"], next[place]);
                next[place] += 1;
            }
            assert_eq!(channel["next_id"], next[place]);
        }
        assert!(next.iter().sum::<u64>() < before + 5, "{answer}");
    }
    assert_eq!(next, [7, 7]);
}

#[test]
fn dropped_introductions_do_not_count_and_come_first() {
    let options = ["--max-reply", "1000", "--history", "4", "--connection-timeout", "1m"];
    let server = Server::with(&options);
    let text = "x".repeat(300);
    let names: Vec<String> = (1..=5).map(|number| format!("{number}{text}")).collect();
    let _members: Vec<_> = names.iter().map(|name| server.introduce("c", name)).collect();
    for _ in 6..=9 {
        server.write("c", &text);
    }
    let first = server.read("c", "0");
    let ids = first.ids();
    assert_eq!(ids[..6], [1, 2, 3, 4, 5, 6], "all members, and some history");
    assert!(ids.len() < 9);
    let second = server.read("c", &first.next_id().to_string());
    assert!(!second.is("missed"));
    assert_eq!([ids, second.ids()].concat(), (1..=9).collect::<Vec<_>>());
}
