//! What the operator does through the admin listener: removes messages and sends people away, in
//! every channel.

mod common;

use common::{Client, Identity, Server};
use support::http::{Params, request};

/// Options with which `X-Forwarded-For` says from which address a call comes.
const FORWARDED: [&str; 4] = ["--connection-timeout", "1h", "--trust-proxy", "127.0.0.1"];

const TROLL: [(&str, &str); 1] = [("X-Forwarded-For", "192.0.2.66")];

fn post(server: &Server, path: &str, params: &Params) -> common::Response {
    server.operator().post_form(path, params)
}

#[test]
fn the_operator_removes_from_every_channel_under_its_own_name() {
    let server = Server::watched(&[]);
    let names = |kind| server.get("/create", &[("kind", kind)]).ok().json();
    let (inbox, feed, room) = (names("inbox"), names("feed"), names("room"));
    let name = |names: &serde_json::Value, key: &str| names[key].as_str().unwrap().to_owned();
    let channels = [
        ("lobby".to_owned(), "lobby".to_owned(), "lobby".to_owned()),
        (name(&inbox, "write"), name(&inbox, "write"), name(&inbox, "read")),
        (name(&feed, "write"), name(&feed, "read"), name(&feed, "read")),
        (name(&room, "channel"), name(&room, "channel"), name(&room, "owner")),
    ];
    for (write, own, read) in channels {
        assert_eq!(server.write(&write, "shameful"), 1);
        let answer = post(&server, "/remove", &[("channel", &*own), ("id", "1")]).ok();
        assert_eq!(answer.text(), r#"{"id":2}"#);
        assert_eq!(server.read(&read, "1").events(), ["removed", "removal"]);
        // The secret name is another one of the channel.
        post(&server, "/remove", &[("channel", &*read), ("id", "1")]).ok();
        post(&server, "/remove", &[("channel", &*own), ("id", "9")])
            .fails_with(400, "bad_parameter");
    }
}

#[test]
fn the_operator_kicks_from_every_channel_and_sends_addresses_away() {
    let server = Server::watched(&FORWARDED);
    let params = [("channel", "lobby"), ("message", "Troll")];
    let troll = server.client().get_with("/introduce", &params, &TROLL).ok();
    let troll = Identity::from_answer(&troll);
    let kick = [
        ("channel", "lobby"),
        ("connection", &*troll.connection),
        ("seconds", "60"),
        ("message", "enough"),
    ];
    assert_eq!(post(&server, "/kick", &kick).ok().text(), r#"{"ok":true}"#);
    assert_eq!(server.read("lobby", "2").events(), ["goodbye removed"]);
    for path in ["/write", "/introduce"] {
        server.client().get_with(path, &params, &TROLL).fails_with(403, "removed");
    }
    server.write("lobby", "from another address");
    let elsewhere = [("channel", "elsewhere"), ("message", "m")];
    server.client().get_with("/write", &elsewhere, &TROLL).ok();
}

#[test]
fn the_admin_listener_takes_calls_only_by_post_and_from_no_page() {
    let server = Server::watched(&[]);
    server.write("lobby", "m");
    let josh = server.introduce("lobby", "Josh");
    let remove = [("channel", "lobby"), ("id", "1")];
    let kick = [("channel", "lobby"), ("connection", &*josh.connection)];
    for (path, params) in [("/remove", &remove), ("/kick", &kick)] {
        let target = common::target(path, params);
        for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
            let answer = server.operator().call(request(method, &target, &[], None));
            answer.fails_with(405, "method_not_allowed");
            assert_eq!(answer.header("allow"), Some("POST"));
        }
        let mut operator = server.operator();
        operator.send(request("HEAD", &target, &[], None));
        assert_eq!(operator.head().status, 405);
        // Browsers name the page of a POST, also that of a host that points to this machine.
        for origin in ["https://evil.example", "http://localhost:9090", "null"] {
            let headers = [("Origin", origin)];
            let answer = server.operator().call(request("POST", &target, &headers, Some(b"")));
            answer.fails_with(403, "bad_origin");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
        let headers = [("Sec-Fetch-Site", "cross-site")];
        let answer = server.operator().call(request("POST", &target, &headers, Some(b"")));
        answer.fails_with(403, "bad_origin");
        let script = [params.as_slice(), &[("callback", "f")]].concat();
        post(&server, path, &script).fails_with(400, "bad_parameter");
    }
    assert_eq!(server.read("lobby", "1").events(), ["message", "introduction"]);
    for (path, params) in [("/remove", &remove), ("/kick", &kick)] {
        let answer = post(&server, path, params).ok();
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_eq!(answer.header("cross-origin-resource-policy"), None);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let events = ["removed", "introduction", "removal", "goodbye removed"];
    assert_eq!(server.read("lobby", "1").events(), events);
}

#[test]
fn parameters_of_the_operator_are_checked_as_others_are() {
    let server = Server::watched(&["--max-message", "10"]);
    let josh = server.introduce("lobby", "Josh");
    let number = &*josh.connection;
    for (path, params, status, error) in [
        ("/remove", &[("channel", "lobby")][..], 400, "missing_parameter"),
        ("/remove", &[("id", "1")], 400, "missing_parameter"),
        ("/remove", &[("channel", "~x"), ("id", "1")], 400, "bad_channel"),
        ("/remove", &[("channel", "unused"), ("id", "1")], 400, "bad_parameter"),
        ("/kick", &[("channel", "lobby")], 400, "missing_parameter"),
        (
            "/kick",
            &[("channel", "lobby"), ("connection", number), ("seconds", "86401")],
            400,
            "bad_parameter",
        ),
        (
            "/kick",
            &[("channel", "lobby"), ("connection", number), ("message", "01234567890")],
            413,
            "message_too_large",
        ),
    ] {
        post(&server, path, params).fails_with(status, error);
    }
    server
        .operator()
        .post("/kick", "multipart/form-data; boundary=x", "x")
        .fails_with(415, "unsupported_media_type");
    // The other calls stay where they are.
    for path in ["/write", "/read", "/members", "/introduce", "/goodbye", "/create"] {
        let params = [("channel", "lobby"), ("message", "m"), ("timeout", "0")];
        post(&server, path, &params).fails_with(404, "not_found");
    }
    let target = format!("/kick?channel=lobby&connection={number}");
    server.operator().post(&target, "text/plain", "enough").ok();
    assert_eq!(server.read("lobby", "2").texts(), ["enough"]);
}

/// With a journal, calls wait for the disk, and a metrics page after them waits for the calls.
#[test]
fn calls_in_a_row_are_answered_in_a_row() {
    let server = Server::watched(&[]);
    server.write("lobby", "m");
    let mut operator = server.operator();
    let remove = common::target("/remove", &[("channel", "lobby"), ("id", "1")]);
    let mut requests = request("POST", &remove, &[], Some(b""));
    requests.extend(request("POST", &remove, &[], Some(b"")));
    requests.extend(request("GET", "/metrics", &[], None));
    requests.extend(request("POST", &remove, &[], Some(b"")));
    operator.send(requests);
    assert_eq!(operator.response().ok().text(), r#"{"id":2}"#);
    assert_eq!(operator.response().ok().text(), r#"{"id":3}"#);
    let page = operator.response().ok().text().to_owned();
    assert!(page.contains("speak_messages_total{type=\"removal\"} "), "{page}");
    assert_eq!(operator.response().ok().text(), r#"{"id":4}"#);
}

#[test]
fn without_an_admin_listener_there_is_no_operator() {
    let server = Server::start();
    server.write("lobby", "m");
    let params = [("channel", "lobby"), ("id", "1")];
    server.client().post_form("/remove", &params).fails_with(403, "not_owner");
    let josh = server.introduce("lobby", "Josh");
    let params = [("channel", "lobby"), ("connection", &*josh.connection)];
    server.client().post_form("/kick", &params).fails_with(403, "not_owner");
}

#[test]
fn a_log_and_metrics_say_no_more_than_that_it_happened() {
    let mut command = common::command();
    command.env("SPEAK_LOG", "debug");
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(FORWARDED);
    let server = Server::spawn_node(command, 2);
    let params = [("channel", "hiddenchannel"), ("message", "hiddenname")];
    let troll = server.client().get_with("/introduce", &params, &TROLL).ok();
    let troll = Identity::from_answer(&troll);
    let kick = [
        ("channel", "hiddenchannel"),
        ("connection", &*troll.connection),
        ("seconds", "60"),
        ("message", "hiddenreason"),
    ];
    post(&server, "/kick", &kick).ok();
    post(&server, "/remove", &[("channel", "hiddenchannel"), ("id", "1")]).ok();
    server.client().get_with("/write", &params, &TROLL).fails_with(403, "removed");
    let page = server.operator().get("/metrics", &[]).ok().text().to_owned();
    for line in [
        "speak_messages_total{type=\"removal\"} 1",
        "speak_messages_total{type=\"goodbye\"} 1",
        "speak_goodbyes_total{reason=\"removed\"} 1",
        "speak_requests_total{call=\"kick\",status=\"200\"} 1",
        "speak_requests_total{call=\"remove\",status=\"200\"} 1",
        "speak_requests_total{call=\"write\",status=\"403\"} 1",
    ] {
        assert!(page.contains(line), "no {line} in {page}");
    }
    common::until("the calls are in the log", || server.logged(" write 403 removed") == 1);
    assert_eq!((server.logged(" kick 200"), server.logged(" remove 200")), (1, 1));
    let all = server.log().join("\n") + &page;
    assert!(!all.contains("hidden") && !all.contains("192.0.2.66"), "{all}");
}

/// The owner of no room fills memory: each kick gives back more than it takes.
#[test]
fn kicks_do_not_fill_memory() {
    let server = Server::watched(&[&FORWARDED[..], &["--max-memory", "8m"]].concat());
    let names = server.get("/create", &[("kind", "room")]).ok().json();
    let [owner, channel] = ["owner", "channel"].map(|key| names[key].as_str().unwrap());
    let memory = || {
        let page = server.operator().get("/metrics", &[]).ok().text().to_owned();
        let line = page.lines().find(|line| line.starts_with("speak_memory_bytes ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let mut client: Client = server.client();
    let mut kick_all = |from: usize| {
        for number in from..from + 1_500 {
            let address = format!("10.1.{}.{}", number / 256, number % 256);
            let headers = [("X-Forwarded-For", &*address)];
            let params = [("channel", channel), ("message", "")];
            let troll =
                Identity::from_answer(&client.get_with("/introduce", &params, &headers).ok());
            let number = [("channel", owner), ("connection", &*troll.connection)];
            client.get("/kick", &[&number[..], &[("seconds", "86400")]].concat()).ok();
            client.get("/goodbye", &troll.and(&[])).ok();
        }
        memory()
    };
    let first = kick_all(0);
    let second = kick_all(1_500);
    assert!(second < first + 1_000.0, "{first} bytes became {second}");
}
