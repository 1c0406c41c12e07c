//! Many clients at once, and clients that misbehave: no other client is affected.

mod common;

use std::thread;

use common::{Client, Server, raise_file_limit, request, target, until};
use serde_json::Value;

/// A server, and a process, that can have a thousand clients.
fn spacious(options: &[&str]) -> Server {
    raise_file_limit();
    let patient = ["--poll-timeout", "1h", "--history", "2000"];
    Server::with(&[&patient, options].concat())
}

#[test]
fn a_thousand_readers_get_every_message() {
    let server = spacious(&[]);
    let mut readers: Vec<Client> = (0..1000).map(|_| server.client()).collect();
    for id in 1..=4 {
        let from_id = id.to_string();
        for reader in &mut readers {
            reader.send_get("/read", &[("channel", "c"), ("from_id", &from_id)]);
        }
        server.wait_for_readers("c", 1000);
        assert_eq!(server.write("c", &format!("round {id}")), id);
        let first = readers[0].response().ok();
        assert_eq!((first.ids(), first.next_id()), (vec![id], id + 1));
        for reader in &mut readers[1..] {
            assert_eq!(reader.response().ok().text(), first.text());
        }
    }
    assert_eq!(server.readers("c"), 0);
}

#[test]
fn every_channel_has_its_own_readers() {
    let server = spacious(&[]);
    let names: Vec<String> = (0..300).map(|number| format!("c{number}")).collect();
    let mut readers: Vec<Client> = names
        .iter()
        .map(|name| {
            let mut reader = server.client();
            reader.send_get("/read", &[("channel", name), ("channel", "all")]);
            reader
        })
        .collect();
    server.wait_for_readers("all", 300);
    let mut writer = server.client();
    for name in &names[..299] {
        writer.get("/write", &[("channel", name), ("message", name)]).ok();
    }
    for (name, reader) in names.iter().zip(&mut readers[..299]) {
        let answer = reader.response().ok().json();
        assert_eq!(answer["channels"][0]["messages"][0]["message"], **name);
    }
    assert!(!readers[299].has_something());
    assert_eq!(server.readers("all"), 1);
    server.write("all", "m");
    let answer = readers[299].response().ok().json();
    assert_eq!(answer["channels"][1]["messages"][0]["message"], "m");
}

#[test]
fn clients_that_vanish_in_any_state_leave_no_resources() {
    let server = spacious(&[]);
    server.write("c", "m");
    let chunked = [("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked")];
    let sized = [("Content-Type", "text/plain"), ("Content-Length", "9")];
    let huge = [("Content-Type", "text/plain"), ("Content-Length", "99999999")];
    let get = |target: &str| request("GET", target, &[], None);
    let post = |headers| request("POST", "/write?channel=c", headers, None);
    let states = [
        ("nothing sent", vec![]),
        ("half a head", b"GET /write?channel=c&message=m HTTP/1.1\r\nHo".to_vec()),
        ("half a body", [&post(&sized)[..], b"half"].concat()),
        ("half a chunk", [&post(&chunked)[..], b"5\r\nho"].concat()),
        ("no last chunk", [&post(&chunked)[..], b"1\r\nm\r\n0\r\n"].concat()),
        ("waiting", get("/read?channel=c")),
        ("waiting in two channels", get("/read?channel=d&channel=c")),
        ("waiting for a script", get("/read?channel=c&callback=f")),
        (
            "waiting with a request behind it",
            [get("/read?channel=c"), get("/write?channel=c&message=never")].concat(),
        ),
        ("answer not read", get("/read?channel=c&from_id=1")),
        ("answers not read", get("/members?channel=c").repeat(50)),
        ("refused in the middle", [&post(&huge)[..], &b"x".repeat(50_000)[..]].concat()),
        ("nonsense", b"\0\xff nonsense\r\n\r\n".to_vec()),
    ];
    for round in 0..10 {
        let mut clients: Vec<Client> = Vec::new();
        for (_, bytes) in &states {
            let mut client = server.client();
            client.send(bytes);
            clients.push(client);
        }
        if round % 2 == 0 {
            // In half of the rounds the reads are pending before their clients vanish.
            server.wait_for_readers("c", 4);
        }
        for (place, client) in clients.into_iter().enumerate() {
            match (place + round) % 3 {
                0 => drop(client),
                1 => client.reset(),
                _ => client.half_close(),
            }
        }
        server.wait_for_readers("c", 0);
        server.wait_for_readers("d", 0);
    }
    assert_eq!(server.write("c", "alive"), 2);
    assert_eq!(server.read("c", "1").texts(), ["m", "alive"]);
}

#[test]
fn a_message_written_while_readers_vanish_reaches_the_rest() {
    let server = spacious(&[]);
    let mut going: Vec<Client> = Vec::new();
    let mut staying: Vec<Client> = Vec::new();
    for place in 0..200 {
        let mut reader = server.client();
        reader.send_get("/read", &[("channel", "c")]);
        match place % 2 {
            0 => going.push(reader),
            _ => staying.push(reader),
        }
    }
    server.wait_for_readers("c", 200);
    let mut writer = server.client();
    for (place, reader) in going.into_iter().enumerate() {
        if place == 50 {
            writer.send_get("/write", &[("channel", "c"), ("message", "m")]);
        }
        reader.reset();
    }
    writer.response().ok();
    for reader in &mut staying {
        assert_eq!(reader.response().ok().texts(), ["m"]);
    }
    server.wait_for_readers("c", 0);
}

#[test]
fn slow_senders_do_not_delay_other_clients() {
    let server = spacious(&[]);
    let headers = [("Content-Type", "text/plain")];
    let slow_request = request("POST", "/write?channel=slow", &headers, Some(b"slow"));
    let mut slow: Vec<Client> = (0..60).map(|_| server.client()).collect();
    let mut fast = server.client();
    for (count, byte) in (1..).zip(&slow_request) {
        for client in &mut slow {
            client.send([*byte]);
        }
        let written = fast.get("/write", &[("channel", "fast"), ("message", "m")]);
        assert_eq!(written.ok().text(), format!(r#"{{"id":{count}}}"#));
    }
    let mut ids: Vec<u64> = slow
        .iter_mut()
        .map(|client| client.response().ok().json()["id"].as_u64().expect("an id"))
        .collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(1..=60));
}

#[test]
fn a_client_that_reads_no_responses_does_not_delay_others() {
    let server = spacious(&["--max-reply", "16m"]);
    server.fill("c", &"x".repeat(60_000), 100);
    // Each requests 24 MB and reads none of it.
    let read = request("GET", "/read?channel=c&from_id=1", &[], None);
    let mut stuck: Vec<Client> = (0..8).map(|_| server.client()).collect();
    for client in &mut stuck {
        client.send(read.repeat(4));
    }
    let mut reader = server.park(&[("channel", "d")]);
    server.write("d", "m");
    assert_eq!(reader.response().texts(), ["m"]);
    // Late requests are still answered.
    for _ in 0..4 {
        assert_eq!(stuck[0].response().ok().ids().len(), 100);
    }
}

/// Ends connections one after another, each in one of four ways. Returns number and reason of each.
fn churn(server: &Server, count: usize) -> Vec<(u64, &'static str)> {
    let mut endings = Vec::new();
    for turn in 0..count {
        let me = server.introduce("c", "a user");
        let join = me.and(&[("channel", "d"), ("message", "a user")]);
        server.get("/introduce", &join).ok();
        let mut reader = server.client();
        let channel = me.connection.clone();
        let wait = me.and(&[("channel", &*channel)]);
        let reason = match turn % 4 {
            0 => "timeout",
            1 => {
                server.get("/goodbye", &me.and(&[])).ok();
                "left"
            }
            _ => {
                reader.send_get("/read", &wait);
                server.wait_for_readers(&channel, 1);
                match turn % 4 {
                    2 => drop(reader),
                    _ => reader.reset(),
                }
                "closed"
            }
        };
        endings.push((me.number, reason));
    }
    endings
}

#[test]
fn every_connection_gets_exactly_one_goodbye() {
    let server = spacious(&["--connection-timeout", "2s"]);
    let mut endings: Vec<(u64, &str)> = thread::scope(|scope| {
        let crowds: Vec<_> = (0..4).map(|_| scope.spawn(|| churn(&server, 40))).collect();
        let endings = crowds.into_iter().map(|crowd| crowd.join().expect("no panic"));
        endings.flatten().collect()
    });
    endings.sort_unstable();
    assert!(endings.iter().map(|(number, _)| *number).eq(1..=160));

    for channel in ["c", "d"] {
        until("no member is left", || {
            server.members(channel)["members"].as_array().map(Vec::len) == Some(0)
        });
        let messages = server.read(channel, "1").messages();
        assert_eq!(messages.len(), 320, "{channel}");
        let goodbyes = messages.iter().filter_map(|it| Some((it, it["reason"].as_str()?)));
        let from = |(it, reason): (&Value, _)| (it["from"].as_u64().expect("a session"), reason);
        let mut goodbyes: Vec<(u64, &str)> = goodbyes.map(from).collect();
        goodbyes.sort_unstable();
        assert_eq!(goodbyes, endings, "{channel}");
    }
}

#[test]
fn one_client_can_make_many_calls_in_a_row() {
    let server = spacious(&[]);
    let mut client = server.client();
    let mut identity = None;
    for round in 1..=100 {
        let name = [("channel", "c"), ("message", "m")];
        let me = client.get("/introduce", &name).ok();
        let me = common::Identity::from_answer(&me);
        assert_eq!(me.number, round);
        client.get("/write", &me.and(&name)).ok();
        client.get("/read", &me.and(&[("channel", "c"), ("from_id", "-1")])).ok();
        let leave = target("/goodbye", &me.and(&[]));
        client.call(request("POST", &leave, &[], Some(b""))).ok();
        identity = Some(me);
    }
    let gone = identity.expect("at least one");
    assert_eq!(client.get("/goodbye", &gone.and(&[])).status, 410);
    assert_eq!(server.read("c", "-1").ids(), [300]);
}

#[test]
fn a_stream_gets_every_message_of_a_turn_larger_than_one_response() {
    let server = spacious(&["--max-reply", "100", "--heartbeat", "1h"]);
    let mut stream = server.events(&[("channel", "c")]);
    // In one send, so that all of it arrives in one turn.
    server.client().send(request("GET", "/write?channel=c&message=m", &[], None).repeat(5));
    for id in 1..=5 {
        assert_eq!(stream.event().message()["id"], id);
    }
}
