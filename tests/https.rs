//! Listeners that speak TLS (`--listen tls:`), with clients that are not ours: OpenSSL, curl,
//! Python and rustls.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use common::{
    Client, EventStream, Folder, GUARD, Pair, RSA, Server, Socket, command, request, run, text,
    trusting, until,
};
use rustix::process::{Signal, geteuid};
use rustls::{ClientConfig, HandshakeKind};
use serde_json::json;

const ANY: &str = "tls:127.0.0.1:0";

/// A user that no file mentions.
const OTHER_USER: &str = "65533:65532";

/// A server with TLS, a plain listener and an admin listener.
struct World {
    server: Server,
    pair: Pair,
    config: Arc<ClientConfig>,
    folder: Folder,
}

impl World {
    fn with(options: &[&str]) -> Self {
        let folder = Folder::new("https");
        let pair = Pair::usual(&folder, "a");
        let server = serve(&pair, options);
        let config = trusting(&[&pair]);
        Self { server, pair, config, folder }
    }

    fn client(&self) -> Client {
        Client::connect_tls(self.server.address_of(0), &self.config, "a.test")
    }

    /// Sends a read that waits.
    fn park(&self, channel: &str) -> Client {
        let mut client = self.client();
        client.send_get("/read", &[("channel", channel)]);
        until("the read waits", || self.readers(channel) == 1);
        client
    }

    fn readers(&self, channel: &str) -> u64 {
        let mut plain = Client::connect(self.server.address_of(1));
        let members = plain.get("/members", &[("channel", channel)]).ok().json();
        members["readers"].as_u64().expect("a number")
    }

    fn metric(&self, name: &str) -> u64 {
        let mut operator = Client::connect(self.server.address_of(2));
        let page = operator.get("/metrics", &[]).ok();
        let line = page.text().lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
    }

    fn handshakes(&self, result: &str) -> u64 {
        self.metric(&format!("speak_tls_handshakes_total{{result=\"{result}\"}}"))
    }
}

fn serve(pair: &Pair, options: &[&str]) -> Server {
    let mut command = command();
    command.args(["--listen", ANY, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(pair.options()).args(options);
    Server::spawn_node(command, 3)
}

/// Runs a program with this input until it ends.
fn outside(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    // A program that has failed reads nothing.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("its output")
}

fn shown(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

#[test]
fn curl_python_and_openssl_are_served() {
    let world = World::with(&[]);
    let (port, file) = (world.server.port(0), text(&world.pair.certificate));
    let url = format!("https://a.test:{port}/write?channel=room&message=curl");
    let resolve = format!("a.test:{port}:127.0.0.1");
    let format = "\n%{http_version} %{ssl_verify_result}";
    let arguments = ["-sS", "--cacert", file, "--resolve", &resolve, "-w", format, &url];
    let output = outside("curl", &arguments, "");
    assert_eq!(shown(&output), "{\"id\":1}\n1.1 0");

    let script = format!(
        "import socket, ssl, sys\n\
         context = ssl.create_default_context(cafile=sys.argv[1])\n\
         context.set_alpn_protocols(['h2', 'http/1.1'])\n\
         stream = context.wrap_socket(socket.create_connection(('127.0.0.1', {port})),\n    \
             server_hostname='a.test', suppress_ragged_eofs=False)\n\
         stream.sendall(b'GET /write?channel=room&message=python HTTP/1.0\\r\\n\\r\\n')\n\
         answer = b''\n\
         while piece := stream.recv(100): answer += piece\n\
         print(stream.version(), stream.selected_alpn_protocol(), answer.split(b'\\r\\n')[-1])\n"
    );
    let output = outside("python3", &["-c", &script, file], "");
    assert_eq!(shown(&output), "TLSv1.3 http/1.1 b'{\"id\":2}'\n");

    let address = world.server.address_of(0).to_string();
    let request =
        "GET /read?channel=room&from_id=1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    // `K` is no command with -quiet, so requests may contain one.
    let arguments = ["s_client", "-quiet", "-connect", &address, "-CAfile", file];
    let output = outside("openssl", &[&arguments[..], &["-verify_return_error"]].concat(), request);
    let answer = shown(&output);
    assert!(answer.contains("\"curl\"") && answer.contains("\"python\""), "{answer}");
    assert_eq!((world.handshakes("full"), world.handshakes("refused")), (3, 0));
}

#[test]
fn a_key_update_of_openssl_is_answered() {
    let world = World::with(&[]);
    let address = world.server.address_of(0).to_string();
    let mut child = Command::new("openssl");
    child.args(["s_client", "-connect", &address]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.stderr(Stdio::piped()).spawn().expect("starting openssl");
    let mut input = child.stdin.take().expect("a pipe");
    let mut notes = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    // A line of K asks the server to update its keys too.
    input.write_all(b"GET /write?channel=room&message=1 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    until("the first is written", || read_ids(&world) == 1);
    for last in 2..4 {
        input.write_all(b"K\n").unwrap();
        let mut notes = notes.by_ref().map(|line| line.expect("a line"));
        assert!(notes.any(|line| line == "KEYUPDATE"), "openssl takes no command");
        let request = format!("GET /write?channel=room&message={last} HTTP/1.1\r\nHost: h\r\n\r\n");
        input.write_all(request.as_bytes()).unwrap();
        until("the next is written", || read_ids(&world) == last);
    }
    drop(input);
    let mut output = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut output).expect("its output");
    child.wait().expect("its end");
    let output = String::from_utf8_lossy(&output);
    assert!(output.contains("{\"id\":3}"), "{output}");
}

fn read_ids(world: &World) -> u64 {
    let mut plain = Client::connect(world.server.address_of(1));
    let params = [("channel", "room"), ("from_id", "1"), ("timeout", "0")];
    plain.get("/read", &params).ok().next_id() - 1
}

#[test]
fn an_older_version_gets_an_alert() {
    let world = World::with(&[]);
    let address = world.server.address_of(0).to_string();
    let output = outside("openssl", &["s_client", "-connect", &address, "-tls1_2"], "");
    assert!(!output.status.success());
    let shown = shown(&output);
    assert!(shown.contains("alert protocol version"), "{shown}");
    assert_eq!(world.handshakes("refused"), 1);
}

/// More bytes than the server reads at once, which a client may have sent before it learns that it
/// has failed.
static FURTHER: [u8; 300_000] = [b'x'; 300_000];

/// Reads to the end, which must be no reset.
fn all_of(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(GUARD)).expect("a timeout");
    stream.shutdown(Shutdown::Write).expect("half of a close");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an end without a reset");
    bytes
}

#[test]
fn no_reset_overtakes_the_alert_or_the_response_to_a_client_that_has_failed() {
    let world = World::with(&[]);
    let connect = || TcpStream::connect(world.server.address_of(0)).expect("a connection");
    // A hello of a handshake message that has no such type.
    let mut stream = connect();
    stream.write_all(&[22, 3, 1, 0, 4, 77, 0, 0, 0]).expect("sent");
    stream.write_all(&FURTHER).expect("sent");
    let alert = all_of(stream);
    assert_eq!((alert[0], alert[5], alert.len()), (21, 2, 7), "{alert:?}");
    // A request in clear.
    let mut stream = connect();
    stream.write_all(b"POST /write HTTP/1.1\r\nContent-Length: 300000\r\n\r\n").expect("sent");
    stream.write_all(&FURTHER).expect("sent");
    let response = all_of(stream);
    assert!(response.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&response));
    // A record that is too long, after the handshake: the alert is sealed.
    let mut client = world.client();
    client.get("/health", &[]).ok();
    let mut stream = client.second_handle();
    stream.write_all(&[23, 3, 3, 255, 255]).expect("sent");
    stream.write_all(&FURTHER).expect("sent");
    let record = all_of(stream);
    assert_eq!((record[0], record.len()), (23, 5 + 2 + 1 + 16));
}

#[test]
fn plain_http_gets_one_response_that_says_what_to_do() {
    let world = World::with(&[]);
    let mut client = Client::connect(world.server.address_of(0));
    client.send("GET /write?channel=room&message=1 HTTP/1.1\r\nHost: h\r\n\r\nGET /");
    let response = client.response();
    response.fails_with(400, "bad_request");
    assert!(response.text().contains("use https://") && response.says_close());
    assert!(response.header("date").is_some());
    client.is_closed();
    assert_eq!(world.handshakes("plain_text"), 1);
    world.client().get("/health", &[]).ok();
}

#[test]
fn reads_wait_over_tls_as_long_polls_event_streams_and_websockets() {
    let world = World::with(&[]);
    let mut poll = world.park("poll");
    let mut events = EventStream::open(world.client(), &[("channel", "stream")], &[]);
    events.beginning();
    let mut socket = Socket::open(world.client(), &[("channel", "socket")], &[]);
    let mut writer = world.client();
    for channel in ["poll", "stream", "socket"] {
        writer.get("/write", &[("channel", channel), ("message", channel)]).ok();
    }
    assert_eq!(poll.response().ok().texts(), ["poll"]);
    assert_eq!(events.event().message()["message"], "stream");
    assert_eq!(socket.texts(), ["socket"]);
    let call = json!({"call": "write", "channel": "other", "message": "frame"});
    assert_eq!(socket.call(&call)["id"], 1);
    let text = "x".repeat(60_000);
    writer.post("/write?channel=large", "text/plain", &text).ok();
    let params = [("channel", "large"), ("from_id", "1")];
    assert_eq!(writer.get("/read", &params).ok().texts(), [text]);
}

#[test]
fn an_end_is_told_by_tls_and_one_that_is_not_is_an_error_of_this_client_alone() {
    let world = World::with(&[]);
    // rustls reports a truncation as an error, and close_notify as an end.
    let mut client = world.client();
    client.call("GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").ok();
    client.is_closed_by_tls();
    let mut shaken = world.client();
    shaken.shake_hands();
    // Half of a record.
    shaken.into_stream().write_all(&[23, 3, 3, 0, 100, 1, 2, 3]).expect("sent");
    // A read ends with the word alone, as with a half of a TCP connection.
    let mut told = world.park("room");
    told.half_close_by_tls();
    until("the reader is gone", || world.readers("room") == 0);
    told.is_closed_by_tls();
    let mut stream = world.client();
    let accept = [("Accept", "text/event-stream")];
    stream.send(request("GET", "/read?channel=room", &accept, None));
    until("the stream waits", || world.readers("room") == 1);
    stream.half_close_by_tls();
    until("the stream is gone", || world.readers("room") == 0);
    world.client().get("/health", &[]).ok();
}

#[test]
fn only_plain_clients_are_redirected_and_to_the_port_of_tls() {
    let folder = Folder::new("challenges");
    fs::write(folder.file("token"), "response").expect("a file");
    let directory = text(folder.path());
    let mut world = World::with(&["--acme-challenges", directory, "--redirect-https"]);
    let challenge = "/.well-known/acme-challenge/token";
    for _ in 0..2 {
        let mut secure = world.client();
        secure.get("/write", &[("channel", "room"), ("message", "1")]).ok();
        secure.get(challenge, &[]).fails_with(404, "not_found");
        let mut plain = Client::connect(world.server.address_of(1));
        assert_eq!(plain.get(challenge, &[]).ok().text(), "response");
        assert_eq!(plain.get("/read?channel=room", &[]).status, 308);
        // A client that was transferred still speaks TLS.
        world.server.upgrade();
        secure.get("/read", &[("channel", "room"), ("timeout", "0")]).ok();
    }
}

#[test]
fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let folder = Folder::new("sni");
    let first = Pair::usual(&folder, "a");
    let second = Pair::make(&folder, "b", "b", &RSA, "30");
    let server = serve(&first, &second.options());
    let config = trusting(&[&first, &second]);
    for (name, pair) in [("a.test", &first), ("b.test", &second), ("127.0.0.1", &first)] {
        let mut client = Client::connect_tls(server.address_of(0), &config, name);
        client.get("/health", &[]).ok();
        let chain = client.tls().peer_certificates().expect("a certificate");
        assert_eq!(chain, [pair.der()], "{name}");
    }
}

#[test]
fn sighup_reads_certificates_again_and_keeps_those_that_it_cannot_replace() {
    let world = World::with(&[]);
    let folder = Folder::new("renewed");
    let next = Pair::make(&folder, "next", "a", &RSA, "60");
    let expired = Pair::expired(&folder, "a");
    let both = trusting(&[&world.pair, &next]);
    let connect = || Client::connect_tls(world.server.address_of(0), &both, "a.test");
    let certificate = |client: &mut Client| {
        client.get("/health", &[]).ok();
        client.tls().peer_certificates().expect("one")[0].clone().into_owned()
    };
    let first = world.pair.der();
    let mut open = connect();
    assert_eq!(certificate(&mut open), first);
    let expiry = "speak_tls_certificate_expiry_timestamp_seconds";
    let before = world.metric(expiry);

    world.pair.become_like(&next);
    world.server.signal(Signal::HUP);
    until("the certificate is read", || world.server.logged("replaced=1 kept=0") == 1);
    // Another configuration: a ticket would make the new connection continue the old session.
    let fresh = trusting(&[&next]);
    let reconnect = || Client::connect_tls(world.server.address_of(0), &fresh, "a.test");
    assert_eq!(certificate(&mut reconnect()), next.der());
    open.get("/health", &[]).ok();
    assert!(world.metric(expiry) > before + 20 * 86_400);

    // A key of another certificate, no certificate, an expired one, no file.
    let bad: [&dyn Fn(); 4] = [
        &|| {
            fs::copy(&expired.key, &world.pair.key).expect("a file");
        },
        &|| fs::write(&world.pair.certificate, "nonsense").expect("a file"),
        &|| world.pair.become_like(&expired),
        &|| fs::remove_file(&world.pair.key).expect("removed"),
    ];
    for (count, spoil) in (1..).zip(bad) {
        spoil();
        world.server.signal(Signal::HUP);
        until("the log tells", || world.server.logged("replaced=0 kept=1") == count);
        assert_eq!(world.server.logged("the certificate before it stays in use"), count);
        assert_eq!(world.metric("speak_tls_reload_failures_total"), count as u64);
        assert_eq!(certificate(&mut reconnect()), next.der());
    }
    world.pair.become_like(&next);
    world.server.signal(Signal::HUP);
    until("the certificate is read", || world.server.logged("replaced=1 kept=0") == 2);
    drop(world.folder);
}

#[test]
fn an_upgrade_keeps_clients_in_every_state() {
    let mut world = World::with(&["--connection-timeout", "1h", "--request-timeout", "1h"]);
    let mut idle = world.client();
    idle.get("/health", &[]).ok();
    let mut half = world.client();
    half.send("GET /write?channel=room&mess");
    let silent = Client::connect(world.server.address_of(0));
    // Half of a record between two requests.
    let mut cut = world.client();
    cut.get("/health", &[]).ok();
    let mut sealed = Vec::new();
    cut.tls().writer().write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n").expect("sealed");
    cut.tls().write_tls(&mut sealed).expect("written");
    let mut cut_stream = cut.second_handle();
    cut_stream.write_all(&sealed[..sealed.len() / 2]).expect("sent");
    for _ in 0..3 {
        let mut waiting = world.park("room");
        let mut events = EventStream::open(world.client(), &[("channel", "stream")], &[]);
        events.beginning();
        let mut socket = Socket::open(world.client(), &[("channel", "socket")], &[]);
        world.server.upgrade();
        assert!(waiting.response().ok().texts().is_empty());
        events.ends();
        socket.ends_with(1001);
        waiting.get("/health", &[]).ok();
        idle.get("/write", &[("channel", "idle"), ("message", "1")]).ok();
        assert_eq!((world.handshakes("full"), world.handshakes("refused")), (0, 0));
    }
    half.call("age=half HTTP/1.1\r\nHost: h\r\n\r\n").ok();
    cut_stream.write_all(&sealed[sealed.len() / 2..]).expect("sent");
    cut.response().ok();
    silent.with_tls(&world.config, "a.test").get("/health", &[]).ok();
}

#[test]
fn a_handshake_that_has_begun_ends_in_the_old_process_and_is_served_by_the_new_one() {
    let mut world = World::with(&[]);
    let mut client = world.client();
    // The hello alone. The server answers, and waits for the rest.
    let mut stream = client.second_handle();
    client.tls().write_tls(&mut stream).expect("sent");
    client.tls().read_tls(&mut stream).expect("an answer");
    world.server.signal(Signal::USR2);
    until("the new process serves", || world.server.logged("started max_clients") == 2);
    client.tls().process_new_packets().expect("the answer of the server");
    client.get("/write", &[("channel", "room"), ("message", "1")]).ok();
    world.server.wait_for_upgrades(1);
    world.server.adopt_successor();
    client.get("/read", &[("channel", "room"), ("from_id", "1")]).ok();
}

#[test]
fn a_handshake_that_hangs_does_not_hold_up_an_upgrade() {
    // A response that no buffer of the kernel holds.
    let mut world =
        World::with(&["--request-timeout", "1h", "--max-reply", "16m", "--history", "200"]);
    let (mut writer, text) = (Client::connect(world.server.address_of(1)), "x".repeat(60_000));
    (0..150).for_each(|_| {
        writer.post("/write?channel=room", "text/plain", &text).ok();
    });
    let mut slow = Client::connect_narrow(world.server.address_of(1));
    slow.send_get("/read", &[("channel", "room"), ("from_id", "0")]);
    let mut hanging = world.client();
    let mut stream = hanging.second_handle();
    hanging.tls().write_tls(&mut stream).expect("sent");
    hanging.tls().read_tls(&mut stream).expect("an answer");
    world.server.signal(Signal::USR2);
    until("the new process serves", || world.server.logged("started max_clients") == 2);
    // The old process is there for the client that still gets its response, and drops the other.
    assert!(stream.read_to_end(&mut Vec::new()).is_ok());
    slow.response().ok();
    world.server.wait_for_upgrades(1);
    world.server.adopt_successor();
}

#[test]
fn tickets_of_the_old_process_are_good_in_the_new_one() {
    let mut world = World::with(&[]);
    world.client().get("/health", &[]).ok();
    for kind in [HandshakeKind::Resumed; 2] {
        world.server.upgrade();
        let mut client = world.client();
        client.get("/health", &[]).ok();
        assert_eq!(client.tls().handshake_kind(), Some(kind));
    }
}

#[test]
fn a_handshake_has_the_time_of_a_request_and_a_client_after_it_the_usual_one() {
    let world = World::with(&["--request-timeout", "200ms"]);
    let mut shaken = world.client();
    shaken.shake_hands();
    let mut silent = Client::connect(world.server.address_of(0));
    let mut partial = Client::connect(world.server.address_of(0));
    partial.send([22, 3, 1, 2, 0, 1]);
    silent.is_closed();
    partial.is_closed();
    // This client was here before, and has sent no request either.
    shaken.get("/health", &[]).ok();
    assert_eq!(world.handshakes("abandoned"), 2);
}

#[test]
fn a_client_that_closes_in_its_handshake_is_gone_at_once() {
    let world = World::with(&["--request-timeout", "1h"]);
    for bytes in [&[][..], &[22, 3, 1, 2, 0, 1]] {
        let mut stream = TcpStream::connect(world.server.address_of(0)).expect("a connection");
        stream.write_all(bytes).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half of a close");
        stream.set_read_timeout(Some(GUARD)).expect("a timeout");
        assert_eq!(stream.read(&mut [0]).expect("an end"), 0, "{bytes:?}");
    }
}

#[test]
fn more_clients_than_the_limit_get_no_handshake() {
    let world = World::with(&["--max-clients", "1"]);
    let mut first = world.client();
    first.shake_hands();
    let mut second = world.client();
    assert!(second.try_shake_hands().is_err());
    assert_eq!(world.handshakes("full"), 1);
    first.get("/health", &[]).ok();
}

#[test]
fn handshakes_take_a_part_of_the_memory_and_leave_the_rest() {
    let world = World::with(&["--max-memory", "400k", "--request-timeout", "1h"]);
    let mut plain = Client::connect(world.server.address_of(1));
    // A handshake takes 4 KiB, also if its client says nothing: there is memory for 25.
    let mut silent: Vec<_> =
        (0..100).map(|_| Client::connect(world.server.address_of(0))).collect();
    silent.pop().expect("the last one").is_closed();
    until("all but those are closed", || world.handshakes("abandoned") == 75);
    plain.get("/write", &[("channel", "room"), ("message", "1")]).ok();
    drop(silent);
    until("there is memory again", || {
        let mut client = world.client();
        client.try_shake_hands().is_ok()
    });
}

#[test]
fn a_start_that_cannot_work_says_what_is_wrong() {
    let folder = Folder::new("starts");
    let (pair, other) = (Pair::usual(&folder, "a"), Pair::usual(&folder, "b"));
    let missing = Pair::at(&folder, "missing");
    let mixed = Pair { certificate: pair.certificate.clone(), key: other.key.clone() };
    for (pair, listen, words) in [
        (&missing, ANY, &["cannot read the certificate", "missing.pem: No such file"][..]),
        (&mixed, ANY, &["b.key: this key does not belong to", "a.pem"]),
        (&pair, "127.0.0.1:0", &["--tls-cert: no listener speaks TLS", "--listen tls:443"]),
    ] {
        let mut command = command();
        command.args(["--listen", listen]).args(pair.options());
        run(command).fails_with(1, words);
    }
}

#[test]
fn an_expired_certificate_does_not_stop_a_start() {
    // This server may be the one that serves the challenges for the next certificate.
    let folder = Folder::new("expired");
    let pair = Pair::expired(&folder, "a");
    let server = serve(&pair, &[]);
    until("it warns", || server.logged("the certificate has expired on") == 1);
    Client::connect(server.address_of(1)).get("/health", &[]).ok();
    let mut client = Client::connect_tls(server.address_of(0), &trusting(&[&pair]), "a.test");
    assert!(client.try_shake_hands().is_err());
}

#[test]
fn the_sandbox_lets_the_server_read_what_links_lead_to() {
    // As certbot has it: a folder of links, into one with a file for each renewal.
    let folder = Folder::new("certbot");
    let [live, archive] = ["live", "archive"].map(|name| folder.file(name));
    fs::create_dir(&live).expect("a folder");
    fs::create_dir(&archive).expect("a folder");
    let linked = Pair { certificate: live.join("fullchain.pem"), key: live.join("privkey.pem") };
    let renew = |number: &str| {
        let pair = Pair::usual(&folder, number);
        for (file, link) in [(&pair.certificate, &linked.certificate), (&pair.key, &linked.key)] {
            let target = archive.join(file.file_name().expect("a name"));
            fs::rename(file, &target).expect("its place");
            let temporary = live.join("new");
            std::os::unix::fs::symlink(&target, &temporary).expect("a link");
            fs::rename(&temporary, link).expect("its name");
        }
    };
    renew("a");
    let server = serve(&linked, &[]);
    renew("b");
    server.signal(Signal::HUP);
    until("the certificate is read", || server.logged("replaced=1 kept=0") == 1);
}

#[test]
fn a_start_says_which_files_the_server_cannot_read_later() {
    if !geteuid().is_root() {
        return;
    }
    let folder = Folder::new("rights");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("its rights");
    let pair = Pair::usual(&folder, "a");
    let set_mode = |mode| {
        fs::set_permissions(&pair.key, PermissionsExt::from_mode(mode)).expect("its rights");
    };
    set_mode(0o600);
    let warning = "cannot read a certificate again";
    let server = serve(&pair, &["--user", OTHER_USER]);
    until("the start tells", || server.logged(warning) == 1);
    assert!(server.log().iter().any(|line| line.contains(warning) && line.contains("a.key")));
    server.signal(Signal::HUP);
    until("the certificate stays", || server.logged("replaced=0 kept=1") == 1);
    set_mode(0o644);
    server.signal(Signal::HUP);
    until("the certificate is read", || server.logged("replaced=1 kept=0") == 1);
}
