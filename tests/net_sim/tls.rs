//! Clients that speak TLS: rustls on their side.
//!
//! rustls and the server draw random bytes from the kernel. A run is repeatable all the same: no
//! length depends on them, since signatures of Ed25519 and keys of X25519 have one length.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use support::random::Random;

use crate::peer::Peer;
use crate::plan::Step;
use crate::world::World;

/// Unix seconds at which the certificate of tests/tls is valid. Only clients verify it.
const VALID_AT_S: u64 = 1_800_000_000;

/// Most plaintext of one record (RFC 8446, section 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;

/// A client replaces its keys before one record in so many.
const KEY_UPDATES: u64 = 30;

/// A client leaves without telling it in TLS once in so many times.
const UNTOLD_ENDS: u64 = 4;

#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(VALID_AT_S)))
    }
}

/// Draws a cipher suite for the clients of a run, and whether they resume sessions.
pub(crate) fn client_config(random: &mut Random) -> Arc<ClientConfig> {
    let ca = CertificateDer::from_pem_slice(include_bytes!("../tls/ca.pem"));
    let mut roots = RootCertStore::empty();
    roots.add(ca.expect("PEM")).expect("a certificate");
    let provider = CryptoProvider {
        cipher_suites: vec![random.pick(ring::ALL_CIPHER_SUITES)],
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    };
    let mut config = ClientConfig::builder_with_details(Arc::new(provider), Arc::new(Clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a suite and a group of TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if random.once_in(2) {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}

/// The client's side of a connection.
pub(crate) struct TlsPeer {
    connection: ClientConnection,
    /// Plaintext that waits for the end of the handshake.
    held: VecDeque<u8>,
    /// The server has told that it sends nothing more.
    pub(crate) is_told_end: bool,
}

/// Records that a client sends together, which have so much plaintext.
struct Sealed {
    bytes: Vec<u8>,
    plaintext: usize,
}

impl TlsPeer {
    fn new(config: &Arc<ClientConfig>) -> Self {
        let name = "ed25519.example.test".try_into().expect("a name");
        let connection = ClientConnection::new(Arc::clone(config), name).expect("random bytes");
        Self { connection, held: VecDeque::new(), is_told_end: false }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    fn take_output(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut output).expect("a Vec takes all bytes");
        }
        output
    }

    /// Takes what rustls wants to send, then seals what was held back for the handshake, in
    /// records of any size.
    fn seal(&mut self, random: &mut Random) -> Vec<Sealed> {
        let mut all = vec![Sealed { bytes: self.take_output(), plaintext: 0 }];
        while !self.is_handshaking() && !self.held.is_empty() {
            if random.once_in(KEY_UPDATES) {
                self.connection.refresh_traffic_keys().expect("the handshake is over");
                all.push(Sealed { bytes: self.take_output(), plaintext: 0 });
            }
            let most = random.pick(&[1, 50, 1_000, RECORD_BYTES_MAX, RECORD_BYTES_MAX]);
            let plaintext = self.held.len().min(most);
            let record: Vec<u8> = self.held.drain(..plaintext).collect();
            self.connection.writer().write_all(&record).expect("rustls has room for a record");
            all.push(Sealed { bytes: self.take_output(), plaintext });
        }
        all
    }

    /// Takes bytes of the server. Returns their plaintext.
    pub(crate) fn open(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let (mut all, mut plaintext) = (Vec::new(), vec![0; RECORD_BYTES_MAX]);
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).expect("rustls has room for a record");
            let state = self.connection.process_new_packets().expect("records of TLS");
            self.is_told_end |= state.peer_has_closed();
            loop {
                match self.connection.reader().read(&mut plaintext) {
                    Ok(0) => break,
                    Ok(length) => all.extend_from_slice(&plaintext[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        all
    }
}

impl World {
    /// A client that was just added speaks TLS: it sends its hello.
    pub(crate) fn begin_tls(&mut self, place: usize) {
        self.peers[place].tls = Some(Box::new(TlsPeer::new(&self.tls_config)));
        self.net.borrow_mut().links[place].tls = Some(Box::default());
        self.send_records(place);
        self.tally("client with TLS");
    }

    /// Sends what a client with TLS has to send, as far as its handshake allows.
    pub(crate) fn send_records(&mut self, place: usize) {
        let Peer { tls: Some(tls), has_closed: false, .. } = &mut self.peers[place] else { return };
        let sealed = tls.seal(&mut self.random);
        self.put_on_wire(place, sealed);
    }

    fn put_on_wire(&mut self, place: usize, sealed: Vec<Sealed>) {
        let mut all = Vec::new();
        {
            let link = &mut self.net.borrow_mut().links[place];
            let link = link.tls.as_mut().expect("it speaks TLS");
            for Sealed { bytes, plaintext } in sealed.into_iter().filter(|it| !it.bytes.is_empty())
            {
                link.push(bytes.len(), plaintext);
                all.extend(bytes);
            }
        }
        self.transmit_raw(place, all);
    }

    /// A client with TLS sends plaintext, once its handshake is over.
    pub(crate) fn transmit_sealed(&mut self, place: usize, bytes: &[u8]) {
        self.peers[place].tls.as_mut().expect("it speaks TLS").held.extend(bytes);
        self.send_records(place);
    }

    /// Takes what the server has sent to a client. Returns the plaintext.
    pub(crate) fn open_records(&mut self, place: usize, tape: Vec<u8>) -> Vec<u8> {
        let Some(tls) = &mut self.peers[place].tls else { return tape };
        let was_handshaking = tls.is_handshaking();
        let plaintext = tls.open(&tape);
        if was_handshaking && !tls.is_handshaking() {
            let what = if tls.is_resumed() { "TLS session resumed" } else { "TLS handshake" };
            self.record.tally.count(what);
        }
        self.send_records(place);
        plaintext
    }

    /// A client closes: it mostly tells that in TLS before, if its handshake is over.
    pub(crate) fn end_tls(&mut self, place: usize) {
        let Some(tls) = &mut self.peers[place].tls else { return };
        let tells = !tls.is_handshaking() && !self.random.once_in(UNTOLD_ENDS);
        if !tells {
            let link = &mut self.net.borrow_mut().links[place];
            link.tls.as_mut().expect("it speaks TLS").is_untold = true;
            return;
        }
        tls.connection.send_close_notify();
        let sealed = vec![Sealed { bytes: tls.take_output(), plaintext: 0 }];
        self.put_on_wire(place, sealed);
        let link = &mut self.net.borrow_mut().links[place];
        link.tls.as_mut().expect("it speaks TLS").set_end();
        self.record.tally.count("TLS end told");
    }

    /// All connections with TLS move to another process, as in an upgrade, if they can.
    pub(crate) fn move_tls(&mut self) {
        for link in &mut self.net.borrow_mut().links {
            if let Some(tls) = &mut link.tls {
                tls.moves = true;
            }
        }
    }

    /// The server has closed a client: it told so in TLS, unless there was no room for it.
    pub(crate) fn judge_end_of_tls(&self, place: usize) {
        let Some(tls) = &self.peers[place].tls else { return };
        let net = self.net.borrow();
        let link = &net.links[place];
        let is_open = link.tls.as_ref().is_some_and(|tls| !tls.is_handshaking());
        if is_open && !link.is_reset && !link.was_short {
            assert!(tls.is_told_end, "client {place} sees an end that TLS does not tell");
            self.tally("TLS end of the server");
        }
    }
}

/// Steps of runs with TLS.
pub(crate) const STEPS: [(Step, u64); 1] = [(Step::MoveTls, 2)];
