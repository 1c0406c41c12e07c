//! TLS of the server, and what the network knows of the records of its clients.

use std::rc::Rc;

use speak::tls::{Certificate, Certificates, PemFiles, TlsContext};

use crate::network::Network;

/// Returns the context of a server, with a certificate of tests/tls.
pub(crate) fn context(now_s: u64) -> Rc<TlsContext> {
    let files = PemFiles {
        certificate_file: "ed25519.pem",
        certificate: include_bytes!("../tls/ed25519.pem"),
        key_file: "ed25519.key",
        key: include_bytes!("../tls/ed25519.key"),
    };
    let certificate = Certificate::parse_untimed(&files).expect("a valid pair");
    let certificates = Certificates::new(vec![certificate]).expect("there is one");
    TlsContext::new(certificates, |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), now_s)
}

/// What the network knows of a connection with TLS. Positions are numbers of bytes on the wire.
#[derive(Default)]
pub(crate) struct TlsLink {
    /// Ends of groups of records on the wire, and of their plaintext.
    ends: Vec<(u64, u64)>,
    sent: u64,
    arrived: u64,
    consumed: u64,
    /// Place of the first end that did not arrive, and of the first that was not consumed.
    next_to_arrive: usize,
    next_to_consume: usize,
    /// Time at which the server ended its handshake.
    pub(crate) opened_at: Option<u64>,
    /// Position after the message that the client sends nothing more.
    end: Option<u64>,
    /// The client has closed, or will, without that message.
    pub(crate) is_untold: bool,
    /// The state of the connection moves to another process before the next call.
    pub(crate) moves: bool,
}

impl TlsLink {
    /// A group of records was sent, with so much plaintext.
    pub(crate) fn push(&mut self, bytes: usize, plaintext: usize) {
        let before = self.ends.last().map_or(0, |(_, plaintext)| *plaintext);
        self.sent += bytes as u64;
        self.ends.push((self.sent, before + plaintext as u64));
    }

    /// The message that the client sends nothing more was the last one sent.
    pub(crate) fn set_end(&mut self) {
        self.end = Some(self.sent);
    }

    /// Bytes have arrived. Returns the plaintext in all whole groups of records that have.
    pub(crate) fn arrive(&mut self, bytes: usize) -> u64 {
        self.arrived += bytes as u64;
        self.next_to_arrive = passed(&self.ends, self.next_to_arrive, self.arrived);
        self.ends[..self.next_to_arrive].last().map_or(0, |(_, plaintext)| *plaintext)
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.consumed += bytes as u64;
        self.next_to_consume = passed(&self.ends, self.next_to_consume, self.consumed);
    }

    /// Says whether the server holds a part of a record.
    pub(crate) fn has_part(&self) -> bool {
        let whole = self.ends[..self.next_to_consume].last().map_or(0, |(end, _)| *end);
        self.consumed > whole
    }

    /// Says whether the message has arrived that the client sends nothing more.
    pub(crate) fn has_end(&self) -> bool {
        self.end.is_some_and(|end| self.arrived >= end)
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.opened_at.is_none()
    }
}

fn passed(ends: &[(u64, u64)], next: usize, position: u64) -> usize {
    next + ends[next..].iter().take_while(|(end, _)| *end <= position).count()
}

impl Network {
    /// Notes that the server has called the socket of a client: so much plaintext was read, and
    /// this is the state of the handshake.
    pub(crate) fn note_tls(&mut self, place: usize, plaintext: usize, is_handshaking: bool) {
        let now = self.now;
        let link = &mut self.links[place];
        let Some(tls) = &mut link.tls else { return };
        link.consumed += plaintext as u64;
        if !is_handshaking {
            tls.opened_at.get_or_insert(now);
        }
    }
}
