//! TLS of a connection to Redis: its certificates, and the records on their way to the kernel.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime};

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

/// Time for a connect, and for each read and write of [`check`].
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of a read of [`check`].
const READ_BYTES: usize = 4 * 1024;

/// Makes a handshake with the server at `address`, and ends the connection. Blocks. Returns the
/// first Unix second at which its certificate is no longer valid.
///
/// # Errors
///
/// As [`Channel::open`], and those of the socket.
pub(super) fn check(tls: &Tls, address: &SocketAddr, name: &PeerName) -> io::Result<u64> {
    let mut stream = TcpStream::connect_timeout(address, CHECK_TIMEOUT)?;
    stream.set_read_timeout(Some(CHECK_TIMEOUT))?;
    stream.set_write_timeout(Some(CHECK_TIMEOUT))?;
    let mut channel = Channel::start(tls, name)?;
    let mut buffer = [0; READ_BYTES];
    while !channel.is_open() {
        stream.write_all(&channel.records)?;
        channel.records.clear();
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        channel.open(&buffer[..length])?;
    }
    channel.close();
    stream.write_all(&channel.records)?;
    Ok(channel.client.server_expires_s())
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
