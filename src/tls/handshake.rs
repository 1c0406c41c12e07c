//! The handshake of one connection. rustls does it; then its state is dropped, and only the secrets
//! stay, as [`Traffic`].

use std::cell::RefCell;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets, HandshakeKind, KeyLog, ServerConfig};

use super::alert::Alert;
use super::record::{HEADER_BYTES, RECORD_BYTES_MAX, Traffic, TrafficParts};
use super::suite::Suite;

/// Most bytes of handshake records that are kept: one of the largest records, or many small ones. A
/// hello of a browser with a post-quantum key has 1.8 KB.
const BYTES_MAX: usize = RECORD_BYTES_MAX;

/// First byte of a handshake record. No HTTP request begins with it.
const HANDSHAKE_RECORD: u8 = 22;

/// Cost of a resumption in steps of a turn's budget, of 5 µs each: 114 µs, measured with ring on
/// one core. That of a full handshake depends on the key, and comes with the certificate.
const STEPS_RESUMED: usize = 23;
/// Tickets of a hello that cost a step to try: one costs 0.2 µs, and a hello has room for 200.
const TICKETS_PER_STEP: usize = 16;
/// A record that leads to no answer: parsing a hello takes less than 10 µs.
const STEPS_RECORD: usize = 1;

/// First byte of an alert record. A server may have nothing else to say to a hello.
const ALERT_RECORD: u8 = 21;

/// A handshake that has begun: as the server, or as the client. It takes some KB, so its time is
/// limited.
pub struct Handshake<C = UnbufferedServerConnection> {
    connection: C,
    /// Complete records that rustls has seen and still needs, then a part of the next one.
    incoming: Vec<u8>,
    /// Bytes of the complete records.
    complete: usize,
    /// The first byte has come, and is one of TLS.
    has_begun: bool,
    secrets: Secrets,
    steps: usize,
    /// An alert of this module, as a record.
    alert: Vec<u8>,
    /// What rustls says about a failure.
    error: Option<rustls::Error>,
}

/// A connection of rustls that processes records in place.
pub(super) trait Connection {
    /// Data of the client's side, or of the server's.
    type Side;

    /// This side is the client.
    const IS_CLIENT: bool;

    /// Processes complete records.
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Side>;

    /// Returns whether the handshake is not over.
    fn is_handshaking(&self) -> bool;

    /// Returns the kind of the handshake, once it is known.
    fn kind(&self) -> Option<HandshakeKind>;

    /// Ends the connection, and returns its keys. `None` before the end of the handshake.
    fn into_secrets(self) -> Option<ExtractedSecrets>;
}

impl Connection for UnbufferedServerConnection {
    type Side = ServerConnectionData;

    const IS_CLIENT: bool = false;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(records)
    }

    fn is_handshaking(&self) -> bool {
        (**self).is_handshaking()
    }

    fn kind(&self) -> Option<HandshakeKind> {
        self.handshake_kind()
    }

    fn into_secrets(self) -> Option<ExtractedSecrets> {
        self.dangerous_into_kernel_connection().ok().map(|(secrets, _)| secrets)
    }
}

/// State of a handshake after some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It needs more bytes of the client.
    Incomplete,
    /// It is over: call [`Handshake::finish`].
    Complete(Kind),
}

/// Kind of a handshake that has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With a certificate and a signature.
    Full,
    /// With a ticket of an earlier connection.
    Resumed,
}

/// Reason why a handshake has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The first byte is not that of TLS: the other side speaks plain text.
    PlainText,
    /// Client and server have not agreed. An alert says so, if there is one.
    Refused,
}

thread_local! {
    /// Secrets of the handshake that is being advanced. Empty otherwise.
    static LOGGED: RefCell<Secrets> = const { RefCell::new(Secrets::NONE) };
}

/// What rustls reports while it advances a handshake.
#[derive(Default)]
struct Secrets {
    server: Vec<u8>,
    client: Vec<u8>,
    /// Cost of a full handshake with the certificate that was chosen, in steps.
    full_steps: usize,
    /// Tickets that were decrypted, or that a key did not fit.
    tickets: usize,
}

impl Secrets {
    const NONE: Self = Self { server: Vec::new(), client: Vec::new(), full_steps: 0, tickets: 0 };
}

/// Reports the cost of the present handshake in steps, unless it resumes a session.
pub(super) fn note_full_steps(steps: usize) {
    LOGGED.with_borrow_mut(|logged| logged.full_steps = steps);
}

/// Reports that a key has tried to open a ticket of the present handshake.
pub(super) fn note_ticket() {
    LOGGED.with_borrow_mut(|logged| logged.tickets += 1);
}

/// Gets the traffic secrets from rustls, which gives away keys only. A `KeyUpdate` needs the
/// secrets. Nothing is logged: the name is that of rustls's trait.
#[derive(Debug)]
pub(super) struct SecretReceiver;

impl KeyLog for SecretReceiver {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        LOGGED.with_borrow_mut(|logged| match label {
            "SERVER_TRAFFIC_SECRET_0" => logged.server = secret.to_vec(),
            "CLIENT_TRAFFIC_SECRET_0" => logged.client = secret.to_vec(),
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, "SERVER_TRAFFIC_SECRET_0" | "CLIENT_TRAFFIC_SECRET_0")
    }
}

impl Handshake {
    /// Begins a handshake. `None` if the kernel gives no random bytes.
    pub(super) fn new(config: &Arc<ServerConfig>) -> Option<Self> {
        Some(Self::with(UnbufferedServerConnection::new(Arc::clone(config)).ok()?))
    }
}

#[expect(private_bounds, reason = "there are two connections, and no others")]
impl<C: Connection> Handshake<C> {
    pub(super) fn with(connection: C) -> Self {
        Self {
            connection,
            incoming: Vec::new(),
            complete: 0,
            has_begun: false,
            secrets: Secrets::NONE,
            steps: 0,
            alert: Vec::new(),
            error: None,
        }
    }

    /// Advances the handshake by bytes of the other side, and appends the answer to `out`, also
    /// after a failure. Returns how many bytes belonged to the handshake: what follows them are
    /// records for [`Traffic`].
    ///
    /// rustls gets one record after the other, and none after the last one of the handshake. So it
    /// never opens application data, and never sees a `KeyUpdate`.
    ///
    /// # Errors
    ///
    /// The reason of a failure. The handshake is over, and the caller closes the client.
    #[inline(never)]
    pub fn advance(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> (usize, Result<Progress, Failure>) {
        let mut used = 0;
        while used < bytes.len() {
            match self.take_record(&bytes[used..]) {
                Ok(taken) => used += taken,
                Err(failure) => {
                    out.append(&mut self.alert);
                    return (used, Err(failure));
                }
            }
            if self.complete < self.incoming.len() {
                break;
            }
            self.steps += STEPS_RECORD;
            let result = self.process(out);
            if result != Ok(Progress::Incomplete) {
                return (used, result);
            }
        }
        (used, Ok(Progress::Incomplete))
    }

    /// Takes bytes up to the end of the record at their start. Returns how many. If the record is
    /// complete, all of `incoming` is.
    fn take_record(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let is_record = bytes[0] == HANDSHAKE_RECORD || C::IS_CLIENT && bytes[0] == ALERT_RECORD;
        if !self.has_begun && !is_record {
            return Err(Failure::PlainText);
        }
        self.has_begun = true;
        let record = self.incoming.len() - self.complete;
        let mut taken = self.take_until(HEADER_BYTES.saturating_sub(record), bytes);
        if let Some(header) = self.incoming[self.complete..].first_chunk::<HEADER_BYTES>() {
            let length = HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
            if length > RECORD_BYTES_MAX {
                return Err(self.refuse(Alert::RecordOverflow));
            }
            if self.complete + length > BYTES_MAX {
                return Err(self.refuse(Alert::HandshakeFailure));
            }
            let missing = self.complete + length - self.incoming.len();
            taken += self.take_until(missing, &bytes[taken..]);
            if self.incoming.len() == self.complete + length {
                self.complete = self.incoming.len();
            }
        }
        Ok(taken)
    }

    /// Fails because of something that rustls does not see, so that it has no alert for it. Before
    /// the end of the handshake, one in clear tells the other side at least that it has failed.
    fn refuse(&mut self, alert: Alert) -> Failure {
        let [level, description] = alert.encode();
        self.alert = vec![ALERT_RECORD, 3, 3, 0, 2, level, description];
        Failure::Refused
    }

    fn take_until(&mut self, missing: usize, bytes: &[u8]) -> usize {
        let taken = missing.min(bytes.len());
        self.incoming.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// Lets rustls process the complete records. A client calls this first of all, without a
    /// record, and sends its hello.
    #[inline(never)]
    pub(super) fn process(&mut self, out: &mut Vec<u8>) -> Result<Progress, Failure> {
        LOGGED.set(Secrets::NONE);
        let result = self.run(out);
        let logged = LOGGED.take();
        self.steps += logged.tickets / TICKETS_PER_STEP;
        if !logged.server.is_empty() {
            self.steps += match self.kind() {
                Kind::Resumed => STEPS_RESUMED,
                Kind::Full => logged.full_steps,
            };
            self.secrets = logged;
        }
        result?;
        let is_complete = !self.connection.is_handshaking();
        Ok(if is_complete { Progress::Complete(self.kind()) } else { Progress::Incomplete })
    }

    fn kind(&self) -> Kind {
        match self.connection.kind() {
            Some(HandshakeKind::Resumed) => Kind::Resumed,
            _ => Kind::Full,
        }
    }

    /// Calls rustls until it needs more records. Appends what it sends, also after an error.
    fn run(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        // After an error, rustls has an alert to send, perhaps after other records. A call that has
        // nothing to send would read the faulty record again, if it is still there.
        let (mut has_failed, mut is_faulty_kept) = (false, false);
        loop {
            let records = &mut self.incoming[..self.complete];
            let UnbufferedStatus { discard, state } = self.connection.process(records);
            let is_over = match state {
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, out);
                    is_faulty_kept
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => {
                    sent.done();
                    has_failed
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => true,
                Err(error) if !has_failed => {
                    self.error = Some(error);
                    (has_failed, is_faulty_kept) = (true, self.complete > discard);
                    false
                }
                // The other side has closed the connection. Data cannot be here.
                Ok(_) | Err(_) => {
                    has_failed = true;
                    true
                }
            };
            self.incoming.drain(..discard);
            self.complete -= discard;
            if is_over {
                return if has_failed { Err(Failure::Refused) } else { Ok(()) };
            }
        }
    }

    /// Returns the connection of rustls.
    pub(super) fn connection(&self) -> &C {
        &self.connection
    }

    /// Takes what rustls says about the failure of this handshake.
    pub(super) fn take_error(&mut self) -> Option<rustls::Error> {
        self.error.take()
    }

    /// Returns whether a byte of the other side has come.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Returns the steps of the turn's budget that were used since the last call.
    pub fn take_steps(&mut self) -> usize {
        std::mem::take(&mut self.steps)
    }

    /// Returns the memory of buffers whose size the client decides.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.incoming.capacity()
    }

    /// Ends a handshake that is complete. `None` if it is not, or if the secrets are not those of
    /// the keys that rustls has used.
    #[must_use]
    #[inline(never)]
    pub fn finish(self) -> Option<Traffic> {
        let Self { connection, secrets, .. } = self;
        let extracted = connection.into_secrets()?;
        let Secrets { server, client, .. } = secrets;
        let (send, receive) = if C::IS_CLIENT { (client, server) } else { (server, client) };
        let suite = confirm(&extracted.tx.1, &send)?;
        if confirm(&extracted.rx.1, &receive) != Some(suite) {
            return None;
        }
        Traffic::new(&TrafficParts {
            suite,
            send_secret: &send,
            receive_secret: &receive,
            sealed: extracted.tx.0,
            opened: extracted.rx.0,
        })
    }
}

/// Appends a record of rustls.
fn encode<Data>(mut data: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    let start = out.len();
    if let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) {
        out.resize(start + needed.required_size, 0);
        data.encode(&mut out[start..]).expect("room for the record");
    }
}

/// Returns the suite of keys that follow from `secret`. `None` if they do not.
fn confirm(keys: &ConnectionTrafficSecrets, secret: &[u8]) -> Option<Suite> {
    let (suite, key, iv) = match keys {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            (Suite::ChaCha20Poly1305, key, iv)
        }
        _ => return None,
    };
    if secret.len() != suite.secret_bytes() {
        return None;
    }
    let (mut derived, mut derived_iv) = (vec![0; suite.key_bytes()], [0; 12]);
    suite.derive(secret, &mut derived, &mut derived_iv);
    (derived == key.as_ref() && derived_iv == iv.as_ref()).then_some(suite)
}
