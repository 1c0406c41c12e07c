//! Limits per address, direct and behind a proxy.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use common::{Folder, Identity, Response, Server, ask_at, until};
use support::http::get;

const MESSAGE: [(&str, &str); 2] = [("channel", "c"), ("message", "m")];

/// A write forwarded by a proxy, with `hops` in `X-Forwarded-For`.
fn write_for(server: &Server, hops: &str) -> Response {
    server.client().get_with("/write", &MESSAGE, &[("X-Forwarded-For", hops)])
}

#[track_caller]
fn is_refused_for_now(answer: &Response) {
    answer.fails_with(429, "too_many_requests");
    let after = answer.header("retry-after").expect("a Retry-After");
    assert!((1..=10).contains(&after.parse::<u32>().expect("seconds")), "{after}");
    // A page of another origin may read it.
    assert_eq!(answer.header("access-control-expose-headers"), Some("Retry-After"));
}

#[test]
fn the_rate_limit_of_an_address_does_not_affect_others() {
    let server = Server::with(&["--max-rate", "1", "--trust-proxy", "127.0.0.1"]);
    let taken = (0..30).take_while(|_| write_for(&server, "192.0.2.1").status == 200).count();
    assert!((10..=12).contains(&taken), "{taken}");
    is_refused_for_now(&write_for(&server, "192.0.2.1"));
    assert_eq!(write_for(&server, "192.0.2.2").status, 200);
    // Addresses that the client itself puts in front change nothing.
    is_refused_for_now(&write_for(&server, "198.51.100.9, 192.0.2.1"));
    // An IPv6 /64 network counts as one address.
    for host in 0..20 {
        write_for(&server, &format!("2001:db8::{host:x}"));
    }
    is_refused_for_now(&write_for(&server, "2001:db8::ffff"));
    assert_eq!(write_for(&server, "2001:db8:0:1::1").status, 200);
}

#[test]
fn only_added_messages_count_and_a_goodbye_is_never_refused() {
    let server = Server::with(&["--max-rate", "1"]);
    let josh = server.introduce("c", "Josh");
    let mut client = server.client();
    until("the limit is reached", || client.get("/write", &MESSAGE).status == 429);
    is_refused_for_now(&client.get("/introduce", &MESSAGE));
    for _ in 0..30 {
        client.get("/read", &[("channel", "c"), ("from_id", "1")]).ok();
        client.get("/members", &[("channel", "c")]).ok();
        client.get("/create", &[]).ok();
    }
    server.goodbye(&josh);
}

#[test]
fn forwarded_addresses_are_trusted_only_from_listed_proxies() {
    let server = Server::with(&["--max-rate", "1", "--trust-proxy", "10.0.0.0/8"]);
    let taken = (0..30)
        .take_while(|host| write_for(&server, &format!("192.0.2.{host}")).status == 200)
        .count();
    assert!((10..=12).contains(&taken), "{taken}");
}

#[test]
fn clients_per_address_are_limited() {
    let server = Server::with(&["--max-clients-per-address", "3"]);
    let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    for client in &mut clients {
        client.get("/health", &[]).ok();
    }
    let mut fourth = server.client();
    let answer = fourth.response();
    is_refused_for_now(&answer);
    assert!(answer.says_close());
    drop(clients.pop());
    until("one may come for the one who went", || {
        let mut client = server.client();
        client.try_send(get("/health")) && client.response().status == 200
    });
}

#[test]
fn a_trusted_proxy_has_no_client_limit() {
    let server = Server::with(&["--max-clients-per-address", "2", "--trust-proxy", "127.0.0.0/8"]);
    let mut clients: Vec<_> = (0..5).map(|_| server.client()).collect();
    for client in &mut clients {
        client.get("/health", &[]).ok();
    }
}

#[test]
fn all_clients_of_unix_sockets_count_as_one_address() {
    let folder = Folder::new("limits");
    let path = folder.file("socket");
    let url = format!("unix:{}", path.display());
    let write = |fields: &str| ask_at(&path, "/write?channel=c&message=m", fields);
    let is_limited = |answer: &str| answer.starts_with("HTTP/1.1 429 ");
    for (proxies, is_proxy) in [("127.0.0.1", false), ("unix", true)] {
        let limits = ["--max-rate", "1", "--max-clients-per-address", "3"];
        let options = [&limits[..], &["--trust-proxy", proxies]].concat();
        let server = Server::on(&["127.0.0.1:0", &url], &options);
        let taken = (0..30).take_while(|_| !is_limited(&write(""))).count();
        assert!((10..=12).contains(&taken), "{taken}");
        let forwarded = write("X-Forwarded-For: 192.0.2.1\r\n");
        assert_eq!(is_limited(&forwarded), !is_proxy, "{forwarded}");
        server.write("c", "a TCP client has another address");

        // The clients of the writes may still be there.
        let last = if is_proxy { 200 } else { 429 };
        until("the fourth client gets its answer", || {
            let clients = [(); 4].map(|()| UnixStream::connect(&path).expect("a listener"));
            let statuses: [u16; 4] = clients.each_ref().map(|mut client| {
                let mut status = [0; 12];
                // A client that was rejected may be closed already.
                let _ = client.write_all(&get("/health"));
                client.read_exact(&mut status).expect("a status");
                String::from_utf8_lossy(&status[9..]).parse().expect("a number")
            });
            statuses == [200, 200, 200, last]
        });
        server.get("/health", &[]).ok();
    }
}

#[test]
fn at_the_memory_limit_the_oldest_history_is_evicted_and_reported_as_missed() {
    let server = Server::with(&["--max-memory", "200k", "--history", "1000"]);
    let (mut client, text) = (server.client(), "x".repeat(1_000));
    for place in 0..1_000 {
        let channel = format!("c{}", place % 10);
        client.get("/write", &[("channel", &channel), ("message", &text)]).ok();
    }
    let retained = |channel: String| {
        let answer = server.read(&channel, "1");
        assert!(answer.is("missed"));
        assert_eq!(answer.ids().last(), Some(&100), "the newest is there");
        answer.ids().len()
    };
    let counts: Vec<_> = (0..10).map(|place| retained(format!("c{place}"))).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    // Messages of the same millisecond may differ.
    assert!(most - least <= 5, "of all channels alike: {counts:?}");
    assert!((100..200).contains(&counts.iter().sum::<usize>()), "{counts:?}");
}

#[test]
fn without_evictable_history_writes_fail_and_goodbyes_succeed() {
    let server =
        Server::with(&["--max-memory", "100k", "--history", "0", "--max-introduction", "4k"]);
    let text = "n".repeat(3_000);
    let mut members = Vec::new();
    let mut client = server.client();
    until("members have taken all there is", || {
        let answer = client.get("/introduce", &[("channel", "c"), ("message", &text)]);
        if answer.status == 200 {
            members.push(Identity::from_answer(&answer));
        }
        answer.status != 200
    });
    assert!((10..40).contains(&members.len()), "{}", members.len());
    let answer = client.get("/introduce", &[("channel", "another"), ("message", &text)]);
    answer.fails_with(503, "over_capacity");
    answer.header("retry-after").expect("a Retry-After");
    assert_eq!(server.read("c", "0").texts().len(), members.len());
    for member in &members {
        server.goodbye(member);
    }
    client.get("/introduce", &[("channel", "c"), ("message", &text)]).ok();
}

#[test]
fn incomplete_requests_stay_within_the_memory_limit() {
    let server = Server::with(&["--max-memory", "300k", "--max-message", "64k"]);
    let head = "POST /write?channel=c HTTP/1.1\r\nHost: x\r\n\
                Content-Type: text/plain\r\nContent-Length: 60000\r\n\r\n";
    let half = [head, &"x".repeat(50_000)].concat();
    let mut clients: Vec<_> = (0..20).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(&half);
    }
    until("surplus clients are rejected", || {
        clients.iter().filter(|client| client.has_something()).count() >= 10
    });
    let refused = clients.iter_mut().filter(|client| client.has_something());
    let count = refused.map(|client| client.response().fails_with(503, "over_capacity")).count();
    assert!(count < 20, "a few have room: {count} of 20 are refused");
    drop(clients);
    until("their room is free", || server.get("/write", &MESSAGE).status == 200);
}
