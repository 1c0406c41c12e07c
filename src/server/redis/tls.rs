//! TLS of a connection to Redis: its certificates, and the records on their way to the kernel.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::SystemTime;

use crate::tls::{TlsClient, TrustedServers};

pub(super) use crate::tls::PeerName;

/// How the servers of a URL are verified.
pub(super) struct Tls(TrustedServers);

impl Tls {
    /// Reads the certificates of the authorities that are trusted.
    ///
    /// # Errors
    ///
    /// A description of what is wrong with the file.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let error = |reason: &str| format!("--cluster-ca {}: {reason}", file.display());
        let pem = fs::read(file).map_err(|cause| error(&format!("cannot read it: {cause}")))?;
        TrustedServers::new(&pem).map(Self).map_err(error)
    }
}

/// A connection with TLS, and its records that the kernel has not taken.
pub(super) struct Channel {
    client: TlsClient,
    pub(super) records: Vec<u8>,
}

impl Channel {
    /// Begins the handshake with a server. Its certificate must have the name.
    ///
    /// # Errors
    ///
    /// The kernel gives no random bytes.
    pub(super) fn start(tls: &Tls, name: &PeerName) -> io::Result<Self> {
        let mut records = Vec::new();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now_s = now.map_or(0, |since| since.as_secs());
        let client = tls.0.connect(name, now_s, &mut records).map_err(io::Error::other)?;
        Ok(Self { client, records })
    }

    /// Moves plaintext into records, once the handshake is over.
    pub(super) fn seal(&mut self, plaintext: &mut Vec<u8>) {
        if self.client.is_open() {
            self.client.seal(plaintext, &mut self.records);
            plaintext.clear();
        }
    }

    /// Opens bytes of the server, and returns their plaintext. `None` if the server sends nothing
    /// any more. There may be records to send, also after an error.
    ///
    /// # Errors
    ///
    /// `InvalidData` with the reason why the connection cannot be used.
    pub(super) fn open(&mut self, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let plaintext = self.client.receive(bytes, &mut self.records);
        let plaintext = plaintext.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let plaintext = plaintext.to_vec();
        Ok((!plaintext.is_empty() || !self.client.is_over()).then_some(plaintext))
    }

    /// Makes the last record, which says that nothing follows.
    pub(super) fn close(&mut self) {
        self.client.close(&mut self.records);
    }

    /// Whether the handshake is over.
    pub(super) fn is_open(&self) -> bool {
        self.client.is_open()
    }

    /// Bytes of a record that is not complete.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.client.buffered_bytes()
    }
}
