use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::tls::test_vectors as rfc8448;

/// A pair of connections: what one seals, the other one opens.
fn pair(suite: Suite) -> (Traffic, Traffic) {
    let (ours, theirs) = ([1; SECRET_BYTES_MAX], [2; SECRET_BYTES_MAX]);
    let (ours, theirs) = (&ours[..suite.secret_bytes()], &theirs[..suite.secret_bytes()]);
    let side = |send_secret, receive_secret| {
        let parts = TrafficParts { suite, send_secret, receive_secret, sealed: 0, opened: 0 };
        Traffic::new(&parts).unwrap()
    };
    (side(ours, theirs), side(theirs, ours))
}

fn count(number: u32) -> Count {
    Count::new(number).unwrap()
}

const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

/// Seals a record of any type, with padding.
fn seal_padded(traffic: &mut Traffic, content: u8, plaintext: &[u8], padding: usize) -> Vec<u8> {
    let mut inner = [plaintext, &[content], &vec![0; padding]].concat();
    let head = header(inner.len() + TAG_BYTES);
    let mut sealer = traffic.sealer();
    let nonce = sealer.next_nonce();
    sealer.key.seal_in_place_append_tag(nonce, Aad::from(head), &mut inner).unwrap();
    [&head[..], &inner].concat()
}

fn seal(traffic: &mut Traffic, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    traffic.sealer().seal(data, &mut out);
    out
}

fn open(traffic: &mut Traffic, record: &[u8]) -> Result<Opened, Alert> {
    assert_eq!(record_length(record)?, Some(record.len()));
    traffic.opener().open(&mut record.to_vec())
}

/// The server of RFC 8448, section 3, or its client, after the server's ticket.
fn rfc8448_side(is_server: bool) -> Traffic {
    let (server, client) = (&rfc8448::SERVER_SECRET[..], &rfc8448::CLIENT_SECRET[..]);
    Traffic::new(&TrafficParts {
        suite: Suite::Aes128Gcm,
        send_secret: if is_server { server } else { client },
        receive_secret: if is_server { client } else { server },
        sealed: u64::from(is_server),
        opened: u64::from(!is_server),
    })
    .unwrap()
}

#[test]
fn records_are_those_of_rfc_8448() {
    let data: Vec<u8> = (0..50).collect();
    for (is_server, sent, received) in [
        (true, [rfc8448::SERVER_DATA, rfc8448::SERVER_CLOSE], rfc8448::CLIENT_DATA),
        (false, [rfc8448::CLIENT_DATA, rfc8448::CLIENT_CLOSE], rfc8448::SERVER_DATA),
    ] {
        let mut side = rfc8448_side(is_server);
        assert_eq!(seal(&mut side, &data), rfc8448::hex(sent[0]));
        let mut alert = Vec::new();
        side.sealer().seal_alert(Alert::CloseNotify, &mut alert);
        assert_eq!(alert, rfc8448::hex(sent[1]));
        let mut record = rfc8448::hex(received);
        assert_eq!(side.opener().open(&mut record), Ok(Opened::Data(50)));
        assert_eq!(record[HEADER_BYTES..][..50], data);
    }
}

#[test]
fn data_of_each_length_and_suite_arrives() {
    for suite in SUITES {
        let (mut ours, mut theirs) = pair(suite);
        for length in [0, 1, 200, PLAINTEXT_BYTES_MAX] {
            let data = vec![7; length];
            let mut record = seal(&mut ours, &data);
            assert_eq!(record.len(), length + OVERHEAD_BYTES);
            assert_eq!(theirs.opener().open(&mut record), Ok(Opened::Data(length)));
            assert_eq!(record[HEADER_BYTES..][..length], data);
        }
    }
}

#[test]
#[should_panic(expected = "more than a record holds")]
fn more_than_a_record_holds_is_a_bug() {
    seal(&mut pair(Suite::Aes128Gcm).0, &vec![0; PLAINTEXT_BYTES_MAX + 1]);
}

#[test]
fn limits_of_a_received_record_include_padding() {
    // Content, padding, and what the server says: RFC 8446, sections 5.2 and 5.4.
    for (length, padding, expected) in [
        (0, 0, Ok(Opened::Data(0))),
        (0, PLAINTEXT_BYTES_MAX, Ok(Opened::Data(0))),
        (10, 100, Ok(Opened::Data(10))),
        (PLAINTEXT_BYTES_MAX, 0, Ok(Opened::Data(PLAINTEXT_BYTES_MAX))),
        (PLAINTEXT_BYTES_MAX, 1, Err(Alert::RecordOverflow)),
        (PLAINTEXT_BYTES_MAX + 1, 0, Err(Alert::RecordOverflow)),
        (PLAINTEXT_BYTES_MAX + 239, 0, Err(Alert::RecordOverflow)),
    ] {
        let (mut ours, mut theirs) = pair(Suite::Aes128Gcm);
        let record = seal_padded(&mut ours, 23, &vec![7; length], padding);
        assert_eq!(open(&mut theirs, &record), expected, "{length} and {padding}");
    }
}

#[test]
fn a_header_alone_shows_what_is_no_record() {
    assert_eq!(record_length(b"\x17\x03\x03\x40"), Ok(None));
    assert_eq!(record_length(b"\x17\x03\x03\x41\x00"), Ok(Some(RECORD_BYTES_MAX)));
    assert_eq!(record_length(b"\x17\x03\x03\x41\x01"), Err(Alert::RecordOverflow));
    for outer in [0, 20, 21, 22, 24, b'G'] {
        assert_eq!(record_length(&[outer, 3, 3, 0, 20]), Err(Alert::UnexpectedMessage));
    }
}

#[test]
fn a_record_that_differs_in_any_bit_is_refused() {
    let (mut ours, _) = pair(Suite::Aes128Gcm);
    let record = seal(&mut ours, b"howdy");
    for bit in 0..record.len() * 8 {
        let mut forged = record.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let (_, mut theirs) = pair(Suite::Aes128Gcm);
        assert_eq!(theirs.opener().open(&mut forged), Err(Alert::BadRecordMac), "bit {bit}");
    }
    let (_, mut theirs) = pair(Suite::Aes128Gcm);
    for length in HEADER_BYTES..record.len() {
        let mut short = record[..length].to_vec();
        assert_eq!(theirs.opener().open(&mut short), Err(Alert::BadRecordMac), "{length} bytes");
    }
}

#[test]
fn records_are_opened_once_and_in_order() {
    let (mut ours, mut theirs) = pair(Suite::ChaCha20Poly1305);
    let (first, second) = (seal(&mut ours, b"1"), seal(&mut ours, b"2"));
    assert_eq!(open(&mut theirs, &first), Ok(Opened::Data(1)));
    assert_eq!(open(&mut theirs, &first), Err(Alert::BadRecordMac));
    let (_, mut theirs) = pair(Suite::ChaCha20Poly1305);
    assert_eq!(open(&mut theirs, &second), Err(Alert::BadRecordMac));
}

#[test]
fn what_is_neither_data_nor_alert_nor_key_update_is_refused() {
    use Alert::{DecodeError, IllegalParameter, UnexpectedMessage};
    for (content, plaintext, expected) in [
        (0, &[0; 9][..], Err(UnexpectedMessage)),
        (20, &[1], Err(UnexpectedMessage)),
        (24, b"heartbeat", Err(UnexpectedMessage)),
        (255, b"", Err(UnexpectedMessage)),
        (21, &[1, 0], Ok(Opened::CloseNotify)),
        (21, &[2, 0], Ok(Opened::CloseNotify)),
        (21, &[1, 90], Ok(Opened::ErrorAlert(90))),
        (21, &[2, 48], Ok(Opened::ErrorAlert(48))),
        (21, &[], Err(UnexpectedMessage)),
        (21, &[2], Err(DecodeError)),
        (21, &[2, 48, 2], Err(DecodeError)),
        (22, &[24, 0, 0, 1, 0], Ok(Opened::KeyUpdate)),
        (22, &[24, 0, 0, 1, 1], Ok(Opened::KeyUpdate)),
        (22, &[24, 0, 0, 1, 2], Err(IllegalParameter)),
        (22, &[24, 0, 0, 2, 0, 0], Err(DecodeError)),
        (22, &[24, 0, 0, 0], Err(DecodeError)),
        (22, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], Err(UnexpectedMessage)),
        (22, &[24, 0], Err(UnexpectedMessage)),
        (22, &[], Err(UnexpectedMessage)),
        // A hello, a ticket, Finished.
        (22, &[1, 0, 0, 1, 0], Err(UnexpectedMessage)),
        (22, &[4, 0, 0, 1, 0], Err(UnexpectedMessage)),
        (22, &[20, 0, 0, 1, 0], Err(UnexpectedMessage)),
    ] {
        let (mut ours, mut theirs) = pair(Suite::Aes256Gcm);
        let record = seal_padded(&mut ours, content, plaintext, 3);
        assert_eq!(open(&mut theirs, &record), expected, "{content}: {plaintext:?}");
    }
}

#[test]
fn tickets_of_a_server_are_ignored_and_nothing_else() {
    let ticket = [4, 0, 0, 3, 1, 2, 3];
    let long = [&[4, 0, 1, 4][..], &[7; 260]].concat();
    for (content, is_ignored) in [
        (ticket.to_vec(), true),
        ([&ticket[..], &long].concat(), true),
        (ticket[..6].to_vec(), false),
        ([&ticket[..], &[4]].concat(), false),
        ([&ticket[..], &[24, 0, 0, 1, 0]].concat(), false),
        (vec![1, 0, 0, 1, 0], false),
        (vec![], false),
    ] {
        let (mut ours, mut theirs) = pair(Suite::Aes128Gcm);
        let mut record = seal_padded(&mut ours, 22, &content, 0);
        let mut opener = theirs.opener();
        opener.ignore_tickets();
        let expected = if is_ignored { Ok(Opened::Data(0)) } else { Err(Alert::UnexpectedMessage) };
        assert_eq!(opener.open(&mut record), expected, "{content:?}");
    }
    let (mut ours, mut theirs) = pair(Suite::Aes128Gcm);
    let mut record = seal_padded(&mut ours, 22, &[24, 0, 0, 1, 0], 0);
    let mut opener = theirs.opener();
    opener.ignore_tickets();
    assert_eq!(opener.open(&mut record), Ok(Opened::KeyUpdate));
}

/// Splits joined records.
fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let Some(length) = record_length(bytes).unwrap() {
        let (record, rest) = bytes.split_at(length);
        records.push(record);
        bytes = rest;
    }
    assert!(bytes.is_empty());
    records
}

#[test]
fn a_key_update_is_answered_before_the_next_data_and_once() {
    for suite in SUITES {
        let (mut ours, mut theirs) = pair(suite);
        for _ in 0..2 {
            let mut requests = Vec::new();
            for request in [UPDATE_REQUESTED, UPDATE_REQUESTED, UPDATE_NOT_REQUESTED] {
                requests.push(seal_padded(&mut theirs, 22, &key_update(request), 0));
                theirs.advance_sending();
            }
            for request in requests {
                assert_eq!(open(&mut ours, &request), Ok(Opened::KeyUpdate));
            }
            assert_eq!(open(&mut ours, &seal(&mut theirs, b"new key")), Ok(Opened::Data(7)));
            let sent = [seal(&mut ours, b"one"), seal(&mut ours, b"three")].concat();
            let opened: Vec<_> = split(&sent).iter().map(|r| open(&mut theirs, r)).collect();
            assert_eq!(opened, [Ok(Opened::KeyUpdate), Ok(Opened::Data(3)), Ok(Opened::Data(5))]);
        }
    }
}

#[test]
fn a_key_seals_a_limited_number_of_records() {
    for suite in SUITES {
        let (mut ours, mut theirs) = pair(suite);
        (ours.sealed, theirs.opened) = (count(LAST_RECORD - 1), count(LAST_RECORD - 1));
        let sent = [seal(&mut ours, b"last"), seal(&mut ours, b"first")].concat();
        let opened: Vec<_> = split(&sent).iter().map(|record| open(&mut theirs, record)).collect();
        assert_eq!(opened, [Ok(Opened::Data(4)), Ok(Opened::KeyUpdate), Ok(Opened::Data(5))]);
        assert_eq!((ours.sealed.get(), theirs.opened.get()), (1, 1));
    }
}

#[test]
fn an_alert_may_be_the_last_record_of_a_key() {
    let (mut ours, mut theirs) = pair(Suite::Aes128Gcm);
    (ours.sealed, theirs.opened) = (count(LAST_RECORD), count(LAST_RECORD));
    let mut alert = Vec::new();
    ours.sealer().seal_alert(Alert::CloseNotify, &mut alert);
    assert_eq!(open(&mut theirs, &alert), Ok(Opened::CloseNotify));
}

#[test]
#[should_panic(expected = "the key has sealed enough records")]
fn no_record_is_sealed_after_the_limit() {
    let (mut ours, _) = pair(Suite::Aes128Gcm);
    ours.sealed = count(RECORDS_MAX);
    ours.sealer().seal_alert(Alert::CloseNotify, &mut Vec::new());
}

#[test]
fn a_client_that_never_replaces_its_key_is_refused_at_last() {
    let (mut ours, mut theirs) = pair(Suite::ChaCha20Poly1305);
    // Numbers up to 2^24 - 1 are opened; the last one has to be that of a `KeyUpdate`.
    for (number, content, plaintext, expected) in [
        (Count::MAX - 1, 23, &b"last"[..], Ok(Opened::Data(4))),
        (Count::MAX, 23, b"one more", Err(Alert::UnexpectedMessage)),
        (Count::MAX, 22, &key_update(UPDATE_NOT_REQUESTED), Ok(Opened::KeyUpdate)),
    ] {
        theirs.opened = count(number);
        let secret = ours.secret(Direction::Send).to_vec();
        let (key, iv) = Suite::ChaCha20Poly1305.prepare_from(&secret);
        let mut sealed = [plaintext, &[content]].concat();
        let head = header(sealed.len() + TAG_BYTES);
        key.seal_in_place_append_tag(nonce(iv, count(number)), Aad::from(head), &mut sealed)
            .unwrap();
        assert_eq!(open(&mut theirs, &[&head[..], &sealed].concat()), expected);
    }
}

#[test]
fn a_key_of_the_other_side_is_replaced_at_half_of_its_records() {
    for suite in SUITES {
        let (mut ours, mut theirs) = pair(suite);
        let half = count(RECORDS_BEFORE_REQUEST - 1);
        (theirs.sealed, ours.opened) = (half, half);
        let mut sent = seal(&mut ours, b"not yet");
        assert_eq!(open(&mut ours, &seal(&mut theirs, b"half")), Ok(Opened::Data(4)));
        // Once, whatever is sent before the other side has answered.
        sent.extend([seal(&mut ours, b"one"), seal(&mut ours, b"three")].concat());
        ours = Traffic::import(&ours.export()).unwrap();
        sent.extend(seal(&mut ours, b"moved"));
        let opened: Vec<_> = split(&sent).iter().map(|r| open(&mut theirs, r)).collect();
        let data = [7, 3, 5, 5].map(|length| Ok(Opened::Data(length)));
        let [first, rest @ ..] = data;
        assert_eq!(opened, [&[first, Ok(Opened::KeyUpdate)][..], &rest].concat());
        assert!(theirs.key_updates.is_owed());
        let answer = seal(&mut theirs, b"new key");
        let opened: Vec<_> = split(&answer).iter().map(|r| open(&mut ours, r)).collect();
        assert_eq!(opened, [Ok(Opened::KeyUpdate), Ok(Opened::Data(7))]);
        assert_eq!(ours.opened.get(), 1);
        assert_eq!(split(&seal(&mut ours, b"as before")).len(), 1);
    }
}

#[test]
fn an_exported_connection_continues() {
    for suite in SUITES {
        let (mut ours, mut theirs) = pair(suite);
        for updates in (0..4).filter_map(KeyUpdates::from_number) {
            assert_eq!(open(&mut theirs, &seal(&mut ours, b"before")), Ok(Opened::Data(6)));
            assert_eq!(open(&mut ours, &seal(&mut theirs, b"before")), Ok(Opened::Data(6)));
            ours.key_updates = updates;
            ours = Traffic::import(&ours.export()).unwrap();
            assert!(ours.key_updates == updates);
            ours.key_updates = KeyUpdates::None;
            assert_eq!(open(&mut ours, &seal(&mut theirs, b"after")), Ok(Opened::Data(5)));
        }
    }
}

#[test]
fn what_is_no_export_is_refused() {
    let bytes = pair(Suite::Aes128Gcm).0.export();
    for length in 0..bytes.len() {
        assert!(Traffic::import(&bytes[..length]).is_none(), "{length} bytes");
    }
    assert!(Traffic::import(&[&bytes[..], b"?"].concat()).is_none());
    for (at, value) in [(0, 0), (0, 4), (0, Suite::Aes256Gcm as u8), (1, 4)] {
        let mut changed = bytes.clone();
        changed[at] = value;
        assert!(Traffic::import(&changed).is_none(), "{value} at {at}");
    }
}

#[test]
fn a_waiting_reader_keeps_little() {
    assert!(size_of::<Traffic>() <= 128, "{}", size_of::<Traffic>());
    // What each record needs: a line of the processor's cache.
    assert_eq!(align_of::<Traffic>(), 64);
    assert!(std::mem::offset_of!(Traffic, material) + 2 * KEPT_BYTES <= 64);
}

/// The key and the nonce with which the next record is sealed: the secret and the number.
fn next_sealed(traffic: &mut Traffic) -> (Vec<u8>, u32) {
    (traffic.secret(Direction::Send).to_vec(), traffic.sealed.get())
}

/// Those with which the next record has to be opened.
fn next_opened(traffic: &mut Traffic) -> (Vec<u8>, u32) {
    (traffic.secret(Direction::Receive).to_vec(), traffic.opened.get())
}

proptest! {
    /// Steps: seal data, an alert, a `KeyUpdate` that the client asks for, an export, and a jump to
    /// the end of a key's numbers.
    #[test]
    fn no_nonce_is_used_twice_for_a_key(steps in prop::collection::vec(0..10u8, 1..120)) {
        for suite in SUITES {
            let (mut ours, mut theirs) = pair(suite);
            let (mut used, near_end) = (HashSet::new(), count(LAST_RECORD - 1));
            for step in &steps {
                let mut out = Vec::new();
                match step {
                    0..4 => ours.sealer().seal(&[*step; 3], &mut out),
                    4 if ours.sealed.get() < LAST_RECORD => {
                        ours.sealer().seal_alert(Alert::CloseNotify, &mut out);
                    }
                    5 => {
                        let request = key_update(UPDATE_REQUESTED);
                        let record = seal_padded(&mut theirs, 22, &request, 0);
                        theirs.advance_sending();
                        prop_assert_eq!(open(&mut ours, &record), Ok(Opened::KeyUpdate));
                    }
                    6 => ours = Traffic::import(&ours.export()).unwrap(),
                    7 if ours.sealed.get() < LAST_RECORD - 1 => {
                        (ours.sealed, theirs.opened) = (near_end, near_end);
                    }
                    8 => {
                        let mut sealer = ours.sealer();
                        sealer.seal(b"two with", &mut out);
                        sealer.seal(b"one key", &mut out);
                    }
                    _ => {}
                }
                // The other side opens each record only with the key and the nonce that it has
                // counted itself, from the messages alone.
                for record in split(&out) {
                    let nonce = next_opened(&mut theirs);
                    prop_assert!(used.insert(nonce), "used twice");
                    prop_assert!(open(&mut theirs, record).is_ok());
                }
                let next = next_sealed(&mut ours);
                prop_assert!(!used.contains(&next), "the next nonce was used");
            }
        }
    }
}
