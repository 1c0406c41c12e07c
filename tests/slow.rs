//! Slow or silent peers: each is closed in time, at the cost of one timer, without affecting
//! others.
//!
//! `make overload` runs the same tests with thousands of them.

mod common;

use std::iter;
use std::thread;
use std::time::Duration;

use common::{
    Client, Crowd, EventStream, HANDSHAKE, PING, PONG, Server, TEXT, masked, request, sized, until,
};

/// Number of clients of each kind at once.
fn many() -> usize {
    sized(40, 600)
}

const POST: &[u8] = b"POST /write?channel=c HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n";

/// Bytes that a client sends before it falls silent, and the byte that it then drips for ever.
struct Kind {
    name: &'static str,
    first: Vec<u8>,
    drips: &'static [u8],
}

/// Clients that owe a request and get an error at its timeout.
fn owed() -> Vec<Kind> {
    let kind = |name, first: &[u8], drips| Kind { name, first: first.to_vec(), drips };
    let post = |more: &[u8]| [POST, more].concat();
    vec![
        kind("half a request line", b"GET /wri", b""),
        kind(
            "a head a byte at a time",
            b"GET /write?channel=c&message=m HTTP/1.1\r\nHost: x\r\n",
            b"X: y\r\n",
        ),
        kind("a request line a byte at a time", b"GET /write?channel=c&message=", b"m"),
        kind("a field that never ends", b"GET / HTTP/1.1\r\nHost: x\r\nCookie: ", b"x"),
        kind("a body that never comes", &post(b"Content-Length: 9\r\n\r\n"), b""),
        kind("a body of which half comes", &post(b"Content-Length: 9\r\n\r\nhalf"), b""),
        kind("a body a byte at a time", &post(b"Content-Length: 9999\r\n\r\n"), b"m"),
        kind(
            "chunks a byte at a time",
            &post(b"Transfer-Encoding: chunked\r\n\r\n"),
            b"1\r\nm\r\n",
        ),
        kind("half a size of a chunk", &post(b"Transfer-Encoding: chunked\r\n\r\n1"), b""),
        kind("an extension of a chunk", &post(b"Transfer-Encoding: chunked\r\n\r\n1;a="), b"x"),
        kind(
            "trailers without end",
            &post(b"Transfer-Encoding: chunked\r\n\r\n0\r\n"),
            b"T: x\r\n",
        ),
        kind("a request behind another", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea", b""),
    ]
}

/// Every client of a crowd sends one byte after another, each the drip of its kind.
fn drip(crowd: &mut Crowd, kinds: &[Kind], round: usize) {
    for number in 0..crowd.members.len() {
        let drips = kinds[number % kinds.len()].drips;
        if !drips.is_empty() && !crowd.members[number].is_closed {
            crowd.send(number, &[drips[round % drips.len()]]);
        }
    }
}

#[test]
fn an_incomplete_request_gets_408_in_time_however_it_drips() {
    let server = Server::with(&["--request-timeout", "2s", "--keep-alive", "1h"]);
    let kinds = owed();
    let fresh = server.rss_kib();
    let mut crowd = Crowd::connect(server.address(), many() * kinds.len());
    for number in 0..crowd.members.len() {
        crowd.send(number, &kinds[number % kinds.len()].first);
    }
    let mut bystander = server.client();
    let mut round = 0;
    while crowd.count(|member| !member.is_closed) > 0 {
        assert!(round < 1_000, "some are never cut");
        drip(&mut crowd, &kinds, round);
        crowd.turn(Duration::from_millis(50));
        bystander.get("/write", &[("channel", "others"), ("message", "m")]).ok();
        round += 1;
    }
    for (number, member) in crowd.members.iter_mut().enumerate() {
        let name = kinds[number % kinds.len()].name;
        if name == "a request behind another" {
            assert_eq!(member.take_answer().map(|(status, _)| status), Some(200), "{name}");
        }
        let answer = member.take_answer();
        assert_eq!(answer.map(|(status, _)| status), Some(408), "{name}");
        assert!(member.received.is_empty(), "{name}: more than one answer");
    }
    assert_eq!(server.read("c", "0").ids(), [0; 0], "half a request has done nothing");
    drop(crowd);
    until("their memory is given back", || server.rss_kib() < fresh + 2_048);
    println!("slow requests: RSS {fresh} KiB before, {} KiB after", server.rss_kib());
}

#[test]
fn a_body_that_never_arrives_gets_408() {
    let server = Server::with(&["--request-timeout", "300ms"]);
    let mut client = server.client();
    client.send([POST, b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"].concat());
    assert_eq!(client.head().status, 100);
    client.response().fails_with(408, "request_timeout");
    client.is_closed();
}

#[test]
fn silent_clients_cause_no_wake_up_before_their_deadline() {
    // All but the last kind: dripping is not silence.
    let server =
        Server::with(&["--request-timeout", "1h", "--keep-alive", "1h", "--heartbeat", "1h"]);
    let kinds = owed();
    let mut crowd = Crowd::connect(server.address(), many() * (kinds.len() + 3));
    let wait = request("GET", "/read?channel=c", &[], None);
    let stream = request("GET", "/read?channel=c", &[("Accept", "text/event-stream")], None);
    let mut first: Vec<&[u8]> = kinds.iter().map(|kind| &*kind.first).collect();
    first.extend([&wait, &stream, &[][..]]);
    for number in 0..crowd.members.len() {
        crowd.send(number, first[number % first.len()]);
    }
    server.wait_for_readers("c", 2 * many() as u64);
    until("all are there", || server.open_files() > crowd.members.len());
    until("it has come to rest", || {
        let (sleeps, ticks) = (server.sleeps(), server.cpu_ticks());
        thread::sleep(Duration::from_millis(100));
        (server.sleeps(), server.cpu_ticks()) == (sleeps, ticks)
    });
    let before = server.sleeps();
    thread::sleep(Duration::from_millis(700));
    assert_eq!(server.sleeps() - before, 0, "it woke up for clients that do nothing");
}

#[test]
fn a_silent_client_is_closed_after_the_keep_alive() {
    let server = Server::with(&["--keep-alive", "500ms"]);
    // Once it answers, it has opened all of its own files.
    server.get("/health", &[]).ok();
    let files = server.open_files();
    let mut crowd = Crowd::connect(server.address(), sized(1_000, 5_000));
    let count = crowd.members.len();
    crowd.until("are let go", count, |member| member.is_closed);
    let answered = crowd.count(|member| !member.received.is_empty());
    assert_eq!(answered, 0, "nothing was asked, nothing is answered");
    until("their descriptors are free", || server.open_files() <= files);
}

#[test]
fn an_unread_response_is_abandoned_in_time_and_its_memory_released() {
    let server =
        Server::with(&["--request-timeout", "1s", "--max-reply", "8m", "--heartbeat", "200ms"]);
    server.fill("c", &"x".repeat(60_000), 100);
    let files = server.open_files();
    let fresh = server.rss_kib();
    let read = |headers| request("GET", "/read?channel=c&from_id=1", headers, None);
    // None of them ever reads: the kernel's buffers fill up on both sides, and the peer's window
    // closes.
    let asks = [
        read(&[]),
        read(&[]).repeat(3),
        read(&[("Accept", "text/event-stream")]),
        read(&HANDSHAKE),
    ];
    let stuck: Vec<Client> = (0..sized(4, 20))
        .flat_map(|_| &asks)
        .map(|ask| {
            let mut client = Client::connect_narrow(server.address());
            client.send(ask);
            client
        })
        .collect();
    let mut bystander = server.client();
    until("all are given up", || {
        bystander.get("/write", &[("channel", "others"), ("message", "m")]).ok();
        server.open_files() <= files + 1
    });
    until("their memory is given back", || server.rss_kib() < fresh + 4_096);
    let (count, rss) = (stuck.len(), server.rss_kib());
    println!("{count} answers not taken: RSS {fresh} KiB before, {rss} KiB after");
}

#[test]
fn a_websocket_with_a_partial_frame_or_without_pongs_is_closed() {
    let server = Server::with(&["--request-timeout", "400ms", "--heartbeat", "300ms"]);
    let half = |bytes: &[u8]| {
        let mut socket = server.socket(&[("channel", "c")]);
        socket.client.send(bytes);
        socket.client
    };
    let whole = masked(TEXT, r#"{"call":"create"}"#);
    let first_fragment = masked(TEXT & 0x7f, "{");
    let clients = [
        half(b""),
        half(&whole[..1]),
        half(&whole[..5]),
        half(&whole[..whole.len() - 1]),
        half(&first_fragment),
    ];
    let files = server.open_files();
    until("all are cut", || server.open_files() <= files - clients.len());
    server.wait_for_readers("c", 0);
}

#[test]
fn a_flood_of_pings_is_answered_without_delaying_others() {
    let server = Server::with(&["--heartbeat", "1h"]);
    let count = sized(20_000, 200_000);
    let mut socket = server.socket(&[("channel", "c")]);
    let pings = masked(PING, b"p").repeat(1_000);
    socket.client.send_meanwhile(iter::repeat_n(pings, count / 1_000), |client| {
        let mut bystander = server.client();
        for _ in 0..20 {
            bystander.get("/health", &[]).ok();
        }
        for _ in 0..count {
            assert_eq!(client.take_maybe(3).expect("a pong for each"), [PONG, 1, b'p']);
        }
    });
}

#[test]
fn a_stream_is_removed_at_once_when_its_peer_resets() {
    let server = Server::with(&["--heartbeat", "1h"]);
    let streams: Vec<EventStream> = (0..100).map(|_| server.events(&[("channel", "c")])).collect();
    server.wait_for_readers("c", 100);
    for stream in streams {
        stream.client.reset();
    }
    server.wait_for_readers("c", 0);
}
