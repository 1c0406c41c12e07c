//! Records between a client and the server's socket, after the handshake.

use std::io::{ErrorKind, Write};
use std::sync::Arc;

use rustls::AlertDescription;
use rustls::crypto::ring::{ALL_CIPHER_SUITES, ALL_KX_GROUPS};
use speak::service::Socket;
use speak::tls::{RECORD_BYTES_MAX, TlsSocket};
use support::random::Random;

use crate::client::{Client, config, config_with, connect};
use crate::pipe::{READ_BYTES, Server, WireSocket, context, read_all, write_some};

fn open() -> (Client, Server) {
    connect(&Arc::new(config()), "ecdsa.example.test", &context(&["ecdsa"]))
}

fn received(client: &mut Client) -> Vec<u8> {
    client.receive();
    std::mem::take(&mut client.received)
}

#[test]
fn a_record_may_come_in_any_pieces() {
    let (mut client, mut server) = open();
    client.tls.writer().write_all(b"cut at every byte").unwrap();
    let record = client.take_output();
    for byte in &record[..record.len() - 1] {
        client.wire.borrow_mut().to_server.push_back(*byte);
        assert_eq!(read_all(&mut server), (Vec::new(), Some(ErrorKind::WouldBlock)));
    }
    assert!(server.memory() >= record.len() - 1, "the part is counted");
    client.wire.borrow_mut().to_server.push_back(record[record.len() - 1]);
    assert_eq!(read_all(&mut server).0, b"cut at every byte");
    assert_eq!(server.memory(), 0);
}

#[test]
fn input_that_fills_the_buffer_is_read_to_its_end() {
    let (mut client, mut server) = open();
    let data: Vec<u8> = (0..3 * READ_BYTES).map(|byte| byte as u8).collect();
    client.send(&data);
    assert!(read_all(&mut server).0 == data);
    assert_eq!((server.memory(), server.has_input()), (0, false));
    // A read that ends with a record and with the buffer.
    let mut cut = Vec::new();
    while cut.len() < READ_BYTES {
        let missing = READ_BYTES - cut.len();
        let length = if missing > 17_000 { 16_000 } else { missing - 22 };
        client.tls.writer().write_all(&vec![7; length.min(16_000)]).unwrap();
        cut.extend(client.take_output());
    }
    assert_eq!(cut.len(), READ_BYTES);
    client.wire.borrow_mut().to_server.extend(cut);
    let (bytes, end) = read_all(&mut server);
    assert_eq!((bytes.len(), end), (READ_BYTES - 22 * 5, Some(ErrorKind::WouldBlock)));
    assert_eq!((server.memory(), server.has_input()), (0, false));
}

#[test]
fn every_byte_is_sent_once_however_little_room_there_is() {
    let mut random = Random::new(1);
    for suite in ALL_CIPHER_SUITES {
        let config = Arc::new(config_with(&[*suite], ALL_KX_GROUPS));
        let (mut client, mut server) = connect(&config, "ecdsa.example.test", &context(&["ecdsa"]));
        for _ in 0..40 {
            let length = random.pick(&[1, 2, 100, 16_384, 16_385, 70_000]);
            let data: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            let mut accepted = 0;
            while accepted < data.len() {
                let room = random.pick(&[0, 1, 5, 21, 22, 23, 1000, 16_405, 16_406, 50_000]);
                client.wire.borrow_mut().room = Some(room);
                accepted += write_some(&mut server, &data[accepted..]);
                let is_held = server.memory() > 0;
                assert!(server.memory() < RECORD_BYTES_MAX + 300, "a record is kept at most");
                assert_eq!(is_held, accepted < data.len(), "the caller knows that bytes wait");
                if random.once_in(3) {
                    let _ = server.flush();
                }
            }
            client.wire.borrow_mut().room = None;
            assert!(received(&mut client) == data);
        }
    }
}

#[test]
fn a_write_that_does_not_continue_is_refused() {
    let (client, mut server) = open();
    client.wire.borrow_mut().room = Some(10);
    assert_eq!(write_some(&mut server, b"howdy"), 4);
    client.wire.borrow_mut().room = None;
    assert_eq!(server.write(b"something else").unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn an_end_that_tls_tells_is_told_apart_from_one_that_it_does_not() {
    for is_told in [false, true] {
        let (mut client, mut server) = open();
        client.send(b"last request");
        if is_told {
            client.tls.send_close_notify();
            client.send_output();
        }
        client.wire.borrow_mut().is_client_closed = true;
        let (bytes, end) = read_all(&mut server);
        assert_eq!(bytes, b"last request");
        if is_told {
            assert_eq!(end, None);
            // The other direction is still open.
            assert_eq!(write_some(&mut server, b"last response"), 13);
            assert_eq!(received(&mut client), b"last response");
            assert_eq!(read_all(&mut server).1, None);
        } else {
            assert_eq!(end, Some(ErrorKind::WouldBlock));
            assert_eq!(read_all(&mut server).1, Some(ErrorKind::UnexpectedEof));
        }
    }
}

#[test]
fn a_close_that_is_read_with_data_is_reported_without_an_event() {
    let (mut client, mut server) = open();
    client.send(b"last");
    client.tls.send_close_notify();
    client.send_output();
    let mut buffer = vec![0; READ_BYTES];
    assert_eq!(std::io::Read::read(&mut server, &mut buffer).unwrap(), 4);
    assert!(server.has_input());
    assert_eq!(std::io::Read::read(&mut server, &mut buffer).unwrap(), 0);
    assert!(!server.has_input());
}

#[test]
fn bytes_after_close_notify_do_not_count() {
    let (mut client, mut server) = open();
    client.tls.send_close_notify();
    client.send_output();
    client.wire.borrow_mut().to_server.extend(b"garbage");
    assert_eq!(read_all(&mut server), (Vec::new(), None));
}

#[test]
fn the_server_tells_the_end_when_it_shuts_down_and_when_it_closes() {
    let (mut client, mut server) = open();
    write_some(&mut server, b"bye");
    server.shut_down_writing().unwrap();
    assert!(client.wire.borrow().is_server_closed);
    assert_eq!((received(&mut client), client.is_closed), (b"bye".to_vec(), true));
    assert_eq!(server.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    client.send(b"discarded later");
    assert_eq!(read_all(&mut server).0, b"discarded later");
    drop(server);
    assert!(client.wire.borrow().to_client.is_empty(), "once is enough");
    let (mut client, server) = open();
    drop(server);
    client.receive();
    assert!(client.is_closed);
}

#[test]
fn the_server_tells_no_end_in_the_middle_of_a_record() {
    let (client, mut server) = open();
    client.wire.borrow_mut().room = Some(10);
    write_some(&mut server, b"howdy");
    client.wire.borrow_mut().room = None;
    drop(server);
    assert_eq!(client.wire.borrow().to_client.len(), 10);
}

#[test]
fn a_client_may_replace_its_keys_at_any_time() {
    for suite in ALL_CIPHER_SUITES {
        let config = Arc::new(config_with(&[*suite], ALL_KX_GROUPS));
        let (mut client, mut server) = connect(&config, "ecdsa.example.test", &context(&["ecdsa"]));
        for round in 0..5 {
            client.send(b"before");
            client.tls.refresh_traffic_keys().unwrap();
            if round == 2 {
                client.tls.refresh_traffic_keys().unwrap();
            }
            client.send(b" after");
            assert_eq!(read_all(&mut server).0, b"before after");
            assert!(client.wire.borrow().to_client.is_empty(), "the answer waits for data");
            assert_eq!(server.memory(), 0);
            write_some(&mut server, b"response");
            assert_eq!(received(&mut client), b"response");
        }
    }
}

#[test]
fn a_connection_continues_in_another_process() {
    let mut random = Random::new(2);
    for suite in ALL_CIPHER_SUITES {
        let config = Arc::new(config_with(&[*suite], ALL_KX_GROUPS));
        let (mut client, mut server) = connect(&config, "ecdsa.example.test", &context(&["ecdsa"]));
        for _ in 0..20 {
            client.tls.writer().write_all(b"a request").unwrap();
            if random.once_in(3) {
                client.tls.refresh_traffic_keys().unwrap();
            }
            let bytes = client.take_output();
            let cut = random.index(bytes.len() + 1);
            client.wire.borrow_mut().to_server.extend(&bytes[..cut]);
            let mut request = read_all(&mut server).0;
            let state = server.export().expect("between two requests");
            assert!(state.len() < 250, "{}", state.len());
            assert!(server.export().is_none() && server.write(b"?").is_err());
            drop(server);
            assert!(client.wire.borrow().to_client.is_empty(), "the connection has not ended");
            server = TlsSocket::import(WireSocket(client.wire.clone()), &state).unwrap();
            client.wire.borrow_mut().to_server.extend(&bytes[cut..]);
            request.extend(read_all(&mut server).0);
            assert_eq!(request, b"a request");
            write_some(&mut server, b"a response");
            assert_eq!(received(&mut client), b"a response");
        }
        let state = server.export().unwrap();
        for length in 0..state.len() {
            assert!(TlsSocket::import(WireSocket(client.wire.clone()), &state[..length]).is_none());
        }
    }
}

#[test]
fn a_client_with_unsent_bytes_is_not_exported() {
    let (client, mut server) = open();
    client.wire.borrow_mut().room = Some(3);
    assert_eq!(write_some(&mut server, b"howdy"), 4);
    assert!(server.export().is_none());
    client.wire.borrow_mut().room = None;
    server.flush().unwrap();
    assert!(server.export().is_none(), "the caller still has a byte");
    assert_eq!(write_some(&mut server, b"y"), 1);
    assert!(server.export().is_some());
}

#[test]
fn a_forged_record_ends_the_connection_with_an_alert() {
    let (mut client, mut server) = open();
    client.tls.writer().write_all(b"a good one").unwrap();
    let mut bytes = client.take_output();
    client.tls.writer().write_all(b"a bad one").unwrap();
    bytes.extend(client.take_output());
    *bytes.last_mut().unwrap() ^= 1;
    client.wire.borrow_mut().to_server.extend(bytes);
    assert_eq!(read_all(&mut server), (Vec::new(), Some(ErrorKind::InvalidData)));
    assert!(server.write(b"too late").is_err());
    drop(server);
    client.receive();
    assert_eq!(client.alert(), Some(AlertDescription::BadRecordMac));
}

#[test]
fn bytes_that_are_no_record_end_the_connection_with_an_alert() {
    for (bytes, alert) in [
        (&b"GET / HTTP/1.1\r\n"[..], AlertDescription::UnexpectedMessage),
        (b"\x16\x03\x03\x00\x01\x00", AlertDescription::UnexpectedMessage),
        (b"\x15\x03\x03\x00\x02\x01\x00", AlertDescription::UnexpectedMessage),
        (b"\x14\x03\x03\x00\x01\x01", AlertDescription::UnexpectedMessage),
        (b"\x17\x03\x03\x41\x01", AlertDescription::RecordOverflow),
        (b"\x17\x03\x03\x00\x00", AlertDescription::BadRecordMac),
        (b"\x17\x03\x03\x00\x05howdy", AlertDescription::BadRecordMac),
    ] {
        let (mut client, mut server) = open();
        client.wire.borrow_mut().to_server.extend(bytes);
        assert_eq!(read_all(&mut server), (Vec::new(), Some(ErrorKind::InvalidData)));
        client.receive();
        assert_eq!(client.alert(), Some(alert));
    }
}

#[test]
fn a_flood_of_key_updates_ends_the_connection() {
    let (mut client, mut server) = open();
    for _ in 0..32 {
        client.tls.refresh_traffic_keys().unwrap();
    }
    client.send_output();
    assert_eq!(read_all(&mut server), (Vec::new(), Some(ErrorKind::WouldBlock)));
    for _ in 0..33 {
        client.tls.refresh_traffic_keys().unwrap();
    }
    client.send_output();
    assert_eq!(read_all(&mut server), (Vec::new(), Some(ErrorKind::InvalidData)));
}

#[test]
fn key_updates_between_data_are_charged_and_limited() {
    for (updates, end) in [(32, ErrorKind::WouldBlock), (33, ErrorKind::InvalidData)] {
        let (mut client, mut server) = open();
        server.take_steps();
        for _ in 0..updates {
            client.tls.refresh_traffic_keys().unwrap();
            client.send(b"1");
        }
        let (bytes, how) = read_all(&mut server);
        assert_eq!(how, Some(end), "{updates}");
        let steps = server.take_steps();
        assert!(steps >= 32, "{steps}");
        assert_eq!(bytes.len(), if updates == 32 { 32 } else { 0 });
    }
}

#[test]
fn many_small_records_are_charged() {
    let (mut client, mut server) = open();
    server.take_steps();
    for _ in 0..1200 {
        client.send(b"1");
    }
    assert_eq!(read_all(&mut server).0.len(), 1200);
    assert_eq!(server.take_steps(), 100);
    assert_eq!(server.take_steps(), 0);
}

#[test]
fn records_before_a_forged_one_are_charged() {
    let (mut client, mut server) = open();
    server.take_steps();
    let mut bytes = Vec::new();
    for _ in 0..1200 {
        client.tls.writer().write_all(b"1").unwrap();
        bytes.extend(client.take_output());
    }
    *bytes.last_mut().unwrap() ^= 1;
    client.wire.borrow_mut().to_server.extend(bytes);
    assert_eq!(read_all(&mut server), (Vec::new(), Some(ErrorKind::InvalidData)));
    assert!(server.take_steps() >= 100);
}

#[test]
fn a_plain_socket_stays_as_it_is() {
    let (wire, _) = crate::pipe::accept(&context(&["ecdsa"]));
    let mut socket = TlsSocket::plain(WireSocket(wire.clone()));
    wire.borrow_mut().to_server.extend(b"request");
    assert_eq!(read_all(&mut socket).0, b"request");
    assert_eq!(write_some(&mut socket, b"response"), 8);
    assert_eq!((socket.is_tls(), socket.memory(), socket.export()), (false, 0, None));
    socket.shut_down_writing().unwrap();
    drop(socket);
    assert_eq!(wire.borrow().to_client, b"response");
}
