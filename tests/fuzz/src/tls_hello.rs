//! First flights: whatever a client sends first, pieces do not change what becomes of it, and the
//! memory and the time that it takes have limits.
//!
//! An input is a line of sizes, then the bytes of the client, in pieces of those sizes.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;

use speak::service::Socket;
use speak::tls::{Certificate, Certificates, PemFiles, TlsContext, TlsSocket};

use super::source::{Source, pieces};
use super::tls_wire::{Wire, WireSocket, receive};

const PLAIN_REPLY: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";

/// Steps of a turn that a connection without an answer to its server hello takes at most: two
/// hellos, since the server may ask for another group, with a record for each of their bytes.
const STEPS_MAX: usize = 2 * 6000;

thread_local! {
    static CONTEXT: Rc<TlsContext> = context();
}

fn context() -> Rc<TlsContext> {
    let files = PemFiles {
        certificate_file: "ecdsa.pem",
        certificate: include_bytes!("../../tls/ecdsa.pem"),
        key_file: "ecdsa.key",
        key: include_bytes!("../../tls/ecdsa.key"),
    };
    let certificate = Certificate::parse(&files, 1_800_000_000).expect("a valid pair");
    let certificates = Certificates::new(vec![certificate]).expect("one");
    TlsContext::new(certificates, |_| PLAIN_REPLY.to_vec(), 1_800_000_000)
}

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut source = Source::new(input);
    let (sizes, stream) = (source.line(), source.rest());
    let whole = handshake(&[stream]);
    assert_eq!(handshake(&pieces(stream, sizes)), whole, "in pieces");
    assert_eq!(handshake(&pieces(stream, b"1")), whole, "byte by byte");
}

/// Returns how a connection with these pieces has ended, and the kinds of records that it got.
fn handshake(pieces: &[&[u8]]) -> (Option<ErrorKind>, Vec<u8>) {
    let wire = Rc::new(RefCell::new(Wire::default()));
    let accepted = CONTEXT.with(|context| TlsSocket::accept(WireSocket(Rc::clone(&wire)), context));
    let mut socket = accepted.expect("random bytes");
    socket.take_steps();
    let (plaintext, end) = receive(&mut socket, &wire, pieces);
    assert!(plaintext.is_empty() && end.is_some(), "no client here knows the keys");
    assert!(socket.take_steps() < STEPS_MAX);
    assert!(socket.export().is_none_or(|state| state.is_empty()), "there are no keys yet");
    drop(socket);
    let sent = std::mem::take(&mut wire.borrow_mut().output);
    if sent == PLAIN_REPLY {
        return (end, b"plain".to_vec());
    }
    let (mut rest, mut kinds) = (&sent[..], Vec::new());
    while let [kind, 3, _, high, low, after @ ..] = rest {
        kinds.push(*kind);
        rest = &after[usize::from(u16::from_be_bytes([*high, *low]))..];
    }
    assert!(rest.is_empty(), "a part of a record was sent");
    (end, kinds)
}
