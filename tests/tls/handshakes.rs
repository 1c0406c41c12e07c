//! Handshakes: suites, certificates, tickets, and what is refused.

use std::io::{ErrorKind, Write};
use std::rc::Rc;
use std::sync::Arc;

use rustls::crypto::ring::{ALL_CIPHER_SUITES, ALL_KX_GROUPS, cipher_suite, kx_group};
use rustls::{AlertDescription, Error, HandshakeKind};
use speak::service::Socket;
use speak::tls::{Certificates, Outcome, PLAINTEXT_BYTES_MAX};

use crate::client::{Client, config, config_with, connect, exchange};
use crate::pipe::{NOW_S, PLAIN_REPLY, accept, certificate, context, read_all, write_some};

#[test]
fn each_suite_group_and_key_carries_data_both_ways() {
    let context = context(&["ecdsa", "rsa", "ed25519"]);
    let mut count = 0;
    for suite in ALL_CIPHER_SUITES {
        for group in [kx_group::X25519, kx_group::SECP256R1] {
            for name in ["ecdsa.example.test", "rsa.example.test", "ed25519.example.test"] {
                let config = Arc::new(config_with(&[*suite], &[group]));
                let (mut client, mut server) = connect(&config, name, &context);
                for length in [1, 100, PLAINTEXT_BYTES_MAX, 100_000] {
                    let data = vec![length as u8; length];
                    client.send(&data);
                    assert!(exchange(&mut client, &mut server).0 == data);
                    assert_eq!(write_some(&mut server, &data), length);
                    client.receive();
                    assert!(std::mem::take(&mut client.received) == data);
                }
                assert_eq!(server.memory(), 0);
                count += 1;
            }
        }
    }
    assert_eq!((count, context.count(Outcome::Full)), (18, 18));
}

#[test]
fn the_server_prefers_the_suite_that_every_client_has() {
    let mut suites = ALL_CIPHER_SUITES.to_vec();
    suites.reverse();
    for suites in [ALL_CIPHER_SUITES.to_vec(), suites] {
        let config = Arc::new(config_with(&suites, ALL_KX_GROUPS));
        let (client, _) = connect(&config, "ecdsa.example.test", &context(&["ecdsa"]));
        let suite = client.tls.negotiated_cipher_suite().unwrap();
        assert_eq!(suite, cipher_suite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(client.tls.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
}

#[test]
fn a_client_that_guesses_no_group_is_asked_for_one() {
    let groups = [kx_group::SECP384R1, kx_group::SECP256R1];
    let config = Arc::new(config_with(ALL_CIPHER_SUITES, &groups));
    let (client, _) = connect(&config, "ecdsa.example.test", &context(&["ecdsa"]));
    assert_eq!(client.tls.handshake_kind(), Some(HandshakeKind::FullWithHelloRetryRequest));
}

#[test]
fn bytes_of_a_handshake_may_come_one_by_one_and_data_with_the_last() {
    let (context, config) = (context(&["ecdsa"]), Arc::new(config()));
    for read_max in [None, Some(1), Some(7)] {
        let (wire, mut server) = accept(&context);
        wire.borrow_mut().read_max = read_max;
        let mut client = Client::new(&config, "ecdsa.example.test", &wire);
        client.send_output();
        for _ in 0..2000 {
            read_all(&mut server);
        }
        client.receive();
        assert!(!client.tls.is_handshaking() && server.is_handshaking());
        // Finished and two requests arrive together.
        client.tls.writer().write_all(b"first").unwrap();
        client.send_output();
        client.tls.writer().write_all(b"second").unwrap();
        client.send_output();
        let mut received = Vec::new();
        for _ in 0..2000 {
            received.extend(read_all(&mut server).0);
        }
        assert_eq!(received, b"firstsecond");
        assert_eq!(server.memory(), 0);
    }
}

#[test]
fn a_ticket_resumes_also_in_another_process_that_got_the_keys() {
    let (first, second, third) = (context(&["rsa"]), context(&["rsa"]), context(&["rsa"]));
    let config = Arc::new(config());
    let mut steps = Vec::new();
    for (context, kind) in [
        (&first, HandshakeKind::Full),
        (&first, HandshakeKind::Resumed),
        (&third, HandshakeKind::Full),
        (&third, HandshakeKind::Resumed),
        (&second, HandshakeKind::Resumed),
    ] {
        if Rc::ptr_eq(context, &second) {
            assert!(second.import_ticket_keys(&third.export_ticket_keys()));
        }
        let (client, mut server) = connect(&config, "rsa.example.test", context);
        assert_eq!(client.tls.handshake_kind(), Some(kind));
        steps.push(server.take_steps());
    }
    assert_eq!([&first, &second, &third].map(|c| c.count(Outcome::Full)), [1, 0, 1]);
    assert_eq!([&first, &second, &third].map(|c| c.count(Outcome::Resumed)), [1, 1, 1]);
    // An RSA signature is what costs most; the budget of a turn counts it.
    assert!(steps[0] > 140 && steps[0] == steps[2], "{steps:?}");
    assert!(steps[1] < 30 && steps[1] == steps[3], "{steps:?}");
}

#[test]
fn a_ticket_ends_with_its_time() {
    let (context, config) = (context(&["ecdsa"]), Arc::new(config()));
    for (hours, kind) in
        [(0, HandshakeKind::Full), (5, HandshakeKind::Resumed), (24, HandshakeKind::Full)]
    {
        context.set_time(NOW_S + hours * 3600);
        let (client, _) = connect(&config, "ecdsa.example.test", &context);
        assert_eq!(client.tls.handshake_kind(), Some(kind), "after {hours} hours");
    }
}

#[test]
fn the_name_chooses_the_certificate_and_the_first_is_the_default() {
    let context = context(&["ecdsa", "ed25519", "rsa"]);
    for (name, index) in [
        ("ecdsa.example.test", 0),
        ("a.wild.example.test", 0),
        ("rsa.example.test", 2),
        ("both.example.test", 1),
        ("ed25519.example.test", 1),
    ] {
        let (client, _) = connect(&Arc::new(config()), name, &context);
        let sent = client.tls.peer_certificates().unwrap()[0].clone();
        let mut known = Vec::new();
        for name in ["ecdsa", "ed25519", "rsa"] {
            let (client, _) =
                connect(&Arc::new(config()), &format!("{name}.example.test"), &context);
            known.push(client.tls.peer_certificates().unwrap()[0].clone());
        }
        assert_eq!(
            known.iter().position(|certificate| *certificate == sent),
            Some(index),
            "{name}"
        );
    }
    let (wire, mut server) = accept(&context);
    let mut client = Client::new(&Arc::new(config()), "unknown.example.test", &wire);
    let (_, end) = exchange(&mut client, &mut server);
    assert!(matches!(client.error, Some(Error::InvalidCertificate(_))), "the default one");
    assert_eq!(end, Some(ErrorKind::InvalidData));
}

#[test]
fn new_certificates_are_for_new_handshakes() {
    let (context, config) = (context(&["ecdsa"]), Arc::new(config()));
    let (wire, mut server) = accept(&context);
    let (mut open, mut open_server) = connect(&config, "ecdsa.example.test", &context);
    context.set_certificates(Certificates::new(vec![certificate("rsa")]).unwrap());
    // The handshake that has begun ends as it would have, and so does a connection.
    let mut begun = Client::new(&config, "ecdsa.example.test", &wire);
    exchange(&mut begun, &mut server);
    assert!(!begun.tls.is_handshaking() && begun.error.is_none());
    open.send(b"still there");
    assert_eq!(exchange(&mut open, &mut open_server).0, b"still there");
    let (client, _) = connect(&config, "rsa.example.test", &context);
    assert_eq!(client.tls.handshake_kind(), Some(HandshakeKind::Full));
    let mut names = Vec::new();
    context.visit_certificates(|certificate| names.push(certificate.names()[0].clone()));
    assert_eq!(names, ["rsa.example.test"]);
}

#[test]
fn another_protocol_is_refused_with_an_alert() {
    let context = context(&["ecdsa"]);
    let mut config = config();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (wire, mut server) = accept(&context);
    let mut client = Client::new(&Arc::new(config), "ecdsa.example.test", &wire);
    let (_, end) = exchange(&mut client, &mut server);
    client.receive();
    assert_eq!(end, Some(ErrorKind::InvalidData));
    assert_eq!(client.alert(), Some(AlertDescription::NoApplicationProtocol));
    assert_eq!(context.count(Outcome::Refused), 1);
}

#[test]
fn a_client_without_a_common_group_is_refused_with_an_alert() {
    let context = context(&["ecdsa"]);
    let (wire, mut server) = accept(&context);
    let config = config_with(ALL_CIPHER_SUITES, &[kx_group::SECP384R1]);
    let mut client = Client::new(&Arc::new(config), "ecdsa.example.test", &wire);
    let (_, end) = exchange(&mut client, &mut server);
    client.receive();
    assert_eq!(end, Some(ErrorKind::InvalidData));
    assert_eq!(client.alert(), Some(AlertDescription::HandshakeFailure));
}

/// The hello of a client.
fn hello() -> Vec<u8> {
    let (wire, _server) = accept(&context(&["ecdsa"]));
    Client::new(&Arc::new(config()), "ecdsa.example.test", &wire).take_output()
}

/// Sends `bytes` to a new connection. Returns what comes back and how the connection ended.
fn respond(bytes: &[u8]) -> (Vec<u8>, Option<ErrorKind>) {
    let (wire, mut server) = accept(&context(&["ecdsa"]));
    wire.borrow_mut().to_server.extend(bytes);
    let (received, end) = read_all(&mut server);
    assert!(received.is_empty());
    drop(server);
    let sent = std::mem::take(&mut wire.borrow_mut().to_client);
    (sent, end)
}

/// A fatal alert in clear.
fn alert(description: u8) -> (Vec<u8>, Option<ErrorKind>) {
    (vec![21, 3, 3, 0, 2, 2, description], Some(ErrorKind::InvalidData))
}

#[test]
fn a_client_of_an_earlier_version_gets_the_alert_for_it() {
    let mut hello = hello();
    // Without the extension `supported_versions` (43), it is a hello of TLS 1.2.
    let place = hello.windows(7).position(|bytes| bytes == [0, 43, 0, 3, 2, 3, 4]).unwrap();
    hello[place] = 0xfa;
    assert_eq!(respond(&hello), alert(70));
}

#[test]
fn plain_http_gets_a_plain_response() {
    for request in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"POST", b"\x80\x2e\x01", b"\x17\x03\x03"] {
        assert_eq!(respond(request), (PLAIN_REPLY.to_vec(), Some(ErrorKind::InvalidData)));
    }
}

#[test]
fn a_hello_has_a_limit_and_is_refused_by_its_header() {
    // The longest record, and one byte more.
    assert_eq!(respond(b"\x16\x03\x01\x41\x00"), (Vec::new(), Some(ErrorKind::WouldBlock)));
    assert_eq!(respond(b"\x16\x03\x01\x41\x01"), alert(22));
    // A message that goes on over many records.
    let mut endless = b"\x16\x03\x01\x00\x06\x01\x00\xff\x00\x03\x03".to_vec();
    for _ in 0..600 {
        endless.extend(b"\x16\x03\x01\x00\x20");
        endless.extend([0; 32]);
    }
    assert_eq!(respond(&endless), alert(40));
}

#[test]
fn a_hello_that_is_cut_or_damaged_never_panics() {
    let hello = hello();
    for length in 0..hello.len() {
        assert_eq!(respond(&hello[..length]), (Vec::new(), Some(ErrorKind::WouldBlock)));
    }
    for byte in 0..hello.len() {
        let mut damaged = hello.clone();
        damaged[byte] ^= 0x41;
        let (_, end) = respond(&damaged);
        assert!(matches!(end, Some(ErrorKind::WouldBlock | ErrorKind::InvalidData)));
    }
}

#[test]
fn a_client_that_leaves_in_its_handshake_is_counted() {
    let context = context(&["ecdsa"]);
    for is_closed in [false, true] {
        let (wire, mut server) = accept(&context);
        wire.borrow_mut().to_server.extend(&hello()[..100]);
        wire.borrow_mut().is_client_closed = is_closed;
        assert_eq!(read_all(&mut server), (Vec::new(), Some(ErrorKind::WouldBlock)));
        if is_closed {
            assert_eq!(read_all(&mut server), (Vec::new(), Some(ErrorKind::UnexpectedEof)));
        }
        assert!(server.memory() > 100 && server.is_handshaking());
        assert!(server.write(b"too early").is_err() && server.export().is_none());
    }
    assert_eq!(context.count(Outcome::Abandoned), 2);
}

#[test]
fn an_answer_without_room_is_sent_later() {
    let context = context(&["ecdsa"]);
    for room in [0, 1, 100, 500] {
        let config = Arc::new(config());
        let (wire, mut server) = accept(&context);
        wire.borrow_mut().room = Some(room);
        let mut client = Client::new(&config, "ecdsa.example.test", &wire);
        client.send_output();
        assert_eq!(read_all(&mut server).1, Some(ErrorKind::WouldBlock));
        assert!(server.flush().is_err(), "room for {room}");
        wire.borrow_mut().room = None;
        server.flush().unwrap();
        client.receive();
        // The ticket has no room either.
        wire.borrow_mut().room = Some(0);
        client.send(b"request");
        assert_eq!(read_all(&mut server).0, b"request");
        wire.borrow_mut().room = Some(10_000);
        assert_eq!(write_some(&mut server, b"response"), 8);
        client.receive();
        assert_eq!((&client.received[..], server.memory()), (&b"response"[..], 0));
        assert!(client.tls.tls13_tickets_received() == 1);
    }
}
