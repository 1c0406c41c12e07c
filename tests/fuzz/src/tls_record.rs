//! Records after a handshake: what arrives is what was sent, up to the first damage, whatever the
//! pieces are and however often the connection goes to another process.
//!
//! An input is a digit for the suite, one for the number of the first record, and a line of sizes.
//! The rest are steps: `d` and a line of data, `k` and a digit for that many kilobytes of it, `c`
//! for `close_notify`, `f` and a byte to damage the last record, `r` and a line of raw bytes.

use std::cell::RefCell;
use std::io::{ErrorKind, Write};
use std::rc::Rc;

use speak::service::Socket;
use speak::tls::{Alert, PLAINTEXT_BYTES_MAX, TlsSocket, Traffic};

use super::source::{Source, pieces};
use super::tls_wire::{Wire, WireSocket, receive};

/// Bytes of each secret, in the order of the suites' numbers.
const SECRET_BYTES: [usize; 3] = [32, 48, 32];

/// Number of a record shortly before its key is replaced.
const NEAR_END: u32 = (1 << 24) - 4;

/// Bytes that a client sends, and what the server has to make of them.
#[derive(Default)]
struct Script {
    bytes: Vec<u8>,
    data: Vec<u8>,
    /// The last records are damaged: they may hold up what is before them, but add nothing.
    is_damaged: bool,
    is_closed: bool,
    /// Number of records without data at the end.
    empty: usize,
    /// There were so many of them that the server may refuse them, if it reads them at once.
    is_flood: bool,
}

/// Records without data in a row that the server accepts. One more may be that of a new key.
const EMPTY_RECORDS_MAX: usize = 32;

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut source = Source::new(input);
    let suite = source.below(SECRET_BYTES.len());
    let number = source.pick(&[0, NEAR_END]);
    let sizes = source.line();
    let script = script(&mut source, &state(suite, number, Side::Client));
    let state = state(suite, number, Side::Server);
    for (pieces, is_moved) in [
        (vec![&script.bytes[..]], false),
        (pieces(&script.bytes, sizes), false),
        (pieces(&script.bytes, sizes), true),
    ] {
        check(&script, &state, &pieces, is_moved);
    }
}

#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

/// A connection as another process would export it.
fn state(suite: usize, number: u32, side: Side) -> Vec<u8> {
    let length = SECRET_BYTES[suite];
    let secrets = match side {
        Side::Client => [vec![1; length], vec![2; length]],
        Side::Server => [vec![2; length], vec![1; length]],
    };
    let number = &number.to_be_bytes()[1..];
    [&[suite as u8 + 1, 0], number, number, &secrets.concat()].concat()
}

fn script(source: &mut Source<'_>, client: &[u8]) -> Script {
    let mut client = Traffic::import(client).expect("a state");
    let mut script = Script::default();
    while !source.is_empty() && !script.is_damaged && !script.is_closed {
        let start = script.bytes.len();
        match source.key(b"dkcfr") {
            b'd' => script.push(&mut client, source.line()),
            b'k' => script.push(&mut client, &vec![b'k'; source.below(17) * 1024]),
            b'c' => {
                client.sealer().seal_alert(Alert::CloseNotify, &mut script.bytes);
                script.is_closed = true;
            }
            b'f' => {
                let at = usize::from(source.byte());
                script.push(&mut client, b"damaged");
                script.data.truncate(script.data.len() - b"damaged".len());
                let length = script.bytes.len() - start;
                script.bytes[start + at % length] ^= 1 << (at % 8);
                script.is_damaged = true;
            }
            _ => {
                script.bytes.extend_from_slice(source.line());
                script.is_damaged = true;
            }
        }
    }
    script
}

impl Script {
    fn push(&mut self, client: &mut Traffic, data: &[u8]) {
        let data = &data[..data.len().min(PLAINTEXT_BYTES_MAX)];
        client.sealer().seal(data, &mut self.bytes);
        self.data.extend_from_slice(data);
        self.empty = if data.is_empty() { self.empty + 1 } else { 0 };
        self.is_flood |= self.empty >= EMPTY_RECORDS_MAX;
    }
}

/// Receives the script in these pieces. If the connection `is_moved`, another process continues it
/// after each piece.
fn check(script: &Script, state: &[u8], pieces: &[&[u8]], is_moved: bool) {
    let wire = Rc::new(RefCell::new(Wire::default()));
    let length = u16::try_from(state.len()).expect("some hundred bytes").to_be_bytes();
    let state = [&length, state].concat();
    let mut socket = TlsSocket::import(WireSocket(Rc::clone(&wire)), &state).expect("a state");
    let (mut data, mut end) = (Vec::new(), Some(ErrorKind::WouldBlock));
    for piece in pieces {
        let (received, end_now) = receive(&mut socket, &wire, &[piece]);
        data.extend(received);
        end = end_now;
        if end != Some(ErrorKind::WouldBlock) {
            break;
        }
        if is_moved {
            let state = socket.export().expect("nothing to send");
            socket = TlsSocket::import(WireSocket(Rc::clone(&wire)), &state).expect("a state");
        }
    }
    if script.is_damaged {
        assert!(script.data.starts_with(&data), "more than was sent before the damage");
        return assert!(end.is_some(), "an end that the client did not tell");
    }
    if end == Some(ErrorKind::InvalidData) && script.is_flood {
        return assert!(script.data.starts_with(&data));
    }
    assert_eq!(data, script.data);
    assert_eq!(end, if script.is_closed { None } else { Some(ErrorKind::WouldBlock) });
    if !script.is_closed && !is_moved {
        assert_eq!((socket.memory(), socket.has_input()), (0, false));
    }
    assert_eq!(socket.write(b"response").expect("room"), 8);
}
