//! The record layer of TLS 1.3 (RFC 8446, section 5): plaintext to sealed records and back.
//!
//! [`Traffic`] has everything that a connection needs once its handshake is over. Two rules keep it
//! safe, and each has one place:
//!
//! - **A nonce is used once for a key.** A nonce is the IV of a key XOR a sequence number (section
//!   5.3). Only [`Sealer::next_nonce`] makes nonces for sealing. It increments the number before it
//!   returns the nonce, and nothing else writes the number but [`Traffic::advance_sending`], which
//!   replaces the key in the same step. `Traffic` has no `Clone`; an export consumes it. So the
//!   numbers of a key increase strictly, also across processes. A record that was sealed and not
//!   sent is kept as it is, and never sealed again.
//! - **A key seals [`RECORDS_MAX`] records at most** (section 5.5). Then the next traffic secret
//!   takes its place, and the client is told by a `KeyUpdate` message.
//!
//! Opening needs no such care: a number that is used twice fails the check of the tag. A record
//! that fails it gives no plaintext, and the connection is over.

use ring::aead::{Aad, LessSafeKey, Nonce};

use super::alert::Alert;
use super::suite::{IV_BYTES, SECRET_BYTES_MAX, Suite, TAG_BYTES};

/// Length of a record's header: type, version, length.
pub(super) const HEADER_BYTES: usize = 5;

/// Most plaintext of one record (RFC 8446, section 5.1).
pub const PLAINTEXT_BYTES_MAX: usize = 1 << 14;

/// Most ciphertext of one record (RFC 8446, section 5.2).
const CIPHERTEXT_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX + 256;

/// Longest record that a client may send.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + CIPHERTEXT_BYTES_MAX;

/// Bytes of a sealed record in addition to its plaintext: header, inner type, tag.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + 1 + TAG_BYTES;

/// Length of a `close_notify` without padding.
pub(super) const CLOSE_NOTIFY_BYTES: usize = OVERHEAD_BYTES + 2;

/// Records that a key may seal. RFC 8446, section 5.5 allows AES-GCM 2^24.5. The other
/// cipher needs no limit, and has the same one.
const RECORDS_MAX: u32 = Count::MAX;

/// Records that a key of the other side may seal before this side asks for the next one, at its
/// next data. A side that does not count would be cut after [`RECORDS_MAX`].
const RECORDS_BEFORE_REQUEST: u32 = RECORDS_MAX / 2;

/// Number of a key's last record: only a `KeyUpdate` or an alert may have it.
const LAST_RECORD: u32 = RECORDS_MAX - 1;

/// Types of records, and of the plaintext in them (RFC 8446, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ContentType {
    /// Close of a connection, or an error.
    Alert = 21,
    /// Handshake messages: after the handshake only `KeyUpdate`.
    Handshake = 22,
    /// Application data. Every sealed record has this as its outer type.
    ApplicationData = 23,
}

/// A number of records, in three bytes: a waiting reader has two of these.
#[derive(Clone, Copy)]
struct Count([u8; 3]);

impl Count {
    const ZERO: Self = Self([0; 3]);
    const MAX: u32 = (1 << 24) - 1;

    /// `None` above [`Count::MAX`].
    fn new(number: u32) -> Option<Self> {
        let [0, bytes @ ..] = number.to_be_bytes() else { return None };
        Some(Self(bytes))
    }

    fn get(self) -> u32 {
        let [high, middle, low] = self.0;
        u32::from_be_bytes([0, high, middle, low])
    }

    fn next(self) -> Option<Self> {
        Self::new(self.get() + 1)
    }
}

/// Length of a key with AES-128, and of the IV to it.
const KEPT_BYTES: usize = Suite::Aes128Gcm.key_bytes() + IV_BYTES;

/// With AES-128, keys and IVs of both directions, then both secrets.
const MATERIAL_BYTES: usize = 2 * KEPT_BYTES + 2 * Suite::Aes128Gcm.secret_bytes();

const _: () = assert!(MATERIAL_BYTES >= 2 * SECRET_BYTES_MAX, "no room for the secrets of SHA-384");

/// Secrets, keys and sequence numbers of a connection after its handshake.
///
/// A waiting reader holds this, so it is small: with AES-128, 120 bytes of secrets and keys. The
/// keys are kept, since a delivery and the next request are two records for each of a thousand
/// clients, and to derive a key takes longer than to open a request. What each record needs comes
/// first and is as long as a line of the processor's cache; the secrets in the next line are for a
/// `KeyUpdate`. The other suites, which hardly any client uses, derive their keys for each call.
#[repr(C, align(64))]
pub struct Traffic {
    suite: Suite,
    key_updates: KeyUpdates,
    /// Records sealed with the present key for sending: the number of the next one.
    sealed: Count,
    /// Records opened with the present key for receiving: the number of the next one.
    opened: Count,
    /// With AES-128, key and IV of each [`Direction`]. Then the secret of each.
    material: [u8; MATERIAL_BYTES],
}

/// `KeyUpdate` messages that are still to come. One byte: see [`Count`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum KeyUpdates {
    None = 0,
    /// The other side has asked for one. It goes before the next application data (RFC 8446,
    /// section 4.6.3).
    Owed = 1,
    /// This side has asked for one.
    Requested = 2,
    OwedAndRequested = 3,
}

impl KeyUpdates {
    fn new(is_owed: bool, is_requested: bool) -> Self {
        match (is_owed, is_requested) {
            (false, false) => Self::None,
            (true, false) => Self::Owed,
            (false, true) => Self::Requested,
            (true, true) => Self::OwedAndRequested,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        (number < 4).then(|| Self::new(number & 1 != 0, number & 2 != 0))
    }

    fn is_owed(self) -> bool {
        matches!(self, Self::Owed | Self::OwedAndRequested)
    }

    fn is_requested(self) -> bool {
        matches!(self, Self::Requested | Self::OwedAndRequested)
    }
}

/// Direction of records, as a number of its place in the material.
#[derive(Clone, Copy)]
enum Direction {
    Send = 0,
    Receive = 1,
}

/// What a connection begins with after its handshake.
pub(super) struct TrafficParts<'a> {
    pub(super) suite: Suite,
    /// Each secret has [`Suite::secret_bytes`].
    pub(super) send_secret: &'a [u8],
    pub(super) receive_secret: &'a [u8],
    /// Numbers of the next records, less than 2^24.
    pub(super) sealed: u64,
    pub(super) opened: u64,
}

impl Traffic {
    /// `None` if a secret or a number is not as [`TrafficParts`] says.
    pub(super) fn new(parts: &TrafficParts) -> Option<Self> {
        let TrafficParts { suite, send_secret, receive_secret, sealed, opened } = *parts;
        let sealed = Count::new(u32::try_from(sealed).ok()?)?;
        let opened = Count::new(u32::try_from(opened).ok()?)?;
        let length = suite.secret_bytes();
        if send_secret.len() != length || receive_secret.len() != length {
            return None;
        }
        let material = [0; MATERIAL_BYTES];
        let key_updates = KeyUpdates::None;
        let mut traffic = Self { suite, key_updates, sealed, opened, material };
        traffic.secret(Direction::Send).copy_from_slice(send_secret);
        traffic.secret(Direction::Receive).copy_from_slice(receive_secret);
        traffic.keep_key(Direction::Send);
        traffic.keep_key(Direction::Receive);
        Some(traffic)
    }

    /// Returns the cipher suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Returns whether the keys and the IVs are kept.
    fn keeps_keys(&self) -> bool {
        self.suite == Suite::Aes128Gcm
    }

    /// Returns both secrets.
    fn secrets(&mut self) -> &mut [u8] {
        let start = if self.keeps_keys() { 2 * KEPT_BYTES } else { 0 };
        &mut self.material[start..][..2 * self.suite.secret_bytes()]
    }

    fn secret(&mut self, direction: Direction) -> &mut [u8] {
        let length = self.suite.secret_bytes();
        &mut self.secrets()[direction as usize * length..][..length]
    }

    /// Derives the key and the IV of a secret, if this suite keeps them.
    fn keep_key(&mut self, direction: Direction) {
        let suite = self.suite;
        if self.keeps_keys() {
            let (mut key, mut iv) = ([0; Suite::Aes128Gcm.key_bytes()], [0; IV_BYTES]);
            suite.derive(self.secret(direction), &mut key, &mut iv);
            let kept = &mut self.material[direction as usize * KEPT_BYTES..][..KEPT_BYTES];
            let (kept_key, kept_iv) = kept.split_at_mut(key.len());
            kept_key.copy_from_slice(&key);
            kept_iv.copy_from_slice(&iv);
        }
    }

    /// Makes the key of a direction ready for use.
    fn prepare_key(&mut self, direction: Direction) -> (LessSafeKey, [u8; IV_BYTES]) {
        let suite = self.suite;
        if !self.keeps_keys() {
            return suite.prepare_from(self.secret(direction));
        }
        let kept = &self.material[direction as usize * KEPT_BYTES..][..KEPT_BYTES];
        let (key, iv) = kept.split_at(suite.key_bytes());
        (suite.prepare(key), iv.try_into().expect("the length of an IV"))
    }

    /// Replaces the secret and the key for sending. Only here the number of sealed records begins
    /// again, for a key that has sealed none.
    fn advance_sending(&mut self) {
        let suite = self.suite;
        suite.advance(self.secret(Direction::Send));
        self.sealed = Count::ZERO;
        self.keep_key(Direction::Send);
    }

    /// Replaces the secret and the key for receiving.
    fn advance_receiving(&mut self) {
        let suite = self.suite;
        suite.advance(self.secret(Direction::Receive));
        self.opened = Count::ZERO;
        self.keep_key(Direction::Receive);
        self.key_updates = KeyUpdates::new(self.key_updates.is_owed(), false);
    }

    /// Returns whether a `KeyUpdate` goes before the next application data.
    fn needs_key_update(&self) -> bool {
        let is_spent = self.sealed.get() >= LAST_RECORD;
        self.key_updates.is_owed() || is_spent || self.wants_key_update()
    }

    /// Returns whether the other side has sealed enough records with its key, and does not know.
    fn wants_key_update(&self) -> bool {
        self.opened.get() >= RECORDS_BEFORE_REQUEST && !self.key_updates.is_requested()
    }

    /// Makes the key for sending ready for some records.
    pub fn sealer(&mut self) -> Sealer<'_> {
        let (key, iv) = self.prepare_key(Direction::Send);
        Sealer { traffic: self, key, iv }
    }

    /// Makes the key for receiving ready for some records.
    pub fn opener(&mut self) -> Opener<'_> {
        let (key, iv) = self.prepare_key(Direction::Receive);
        Opener { traffic: self, key, iv, ignores_tickets: false }
    }

    /// Returns whether `record` is a `close_notify`, and forgets it: it is still to be opened.
    pub(super) fn is_close_notify(&mut self, mut record: [u8; CLOSE_NOTIFY_BYTES]) -> bool {
        let Opener { key, iv, traffic, .. } = self.opener();
        let (header, sealed) = record.split_at_mut(HEADER_BYTES);
        let opened = key.open_in_place(nonce(iv, traffic.opened), Aad::from(header), sealed);
        opened.is_ok_and(|inner| matches!(*inner, [_, 0, 21]))
    }

    /// Encodes the connection for another process: the number of the suite, that of the
    /// `KeyUpdate`s still to come, both sequence numbers, both secrets. Consumes it, so that no key
    /// is used on both sides.
    #[must_use]
    pub fn export(mut self) -> Vec<u8> {
        let mut bytes = vec![self.suite as u8, self.key_updates as u8];
        bytes.extend_from_slice(&self.sealed.0);
        bytes.extend_from_slice(&self.opened.0);
        bytes.extend_from_slice(self.secrets());
        bytes
    }

    /// Decodes what [`Traffic::export`] has encoded. `None` if it is something else.
    #[must_use]
    pub fn import(bytes: &[u8]) -> Option<Self> {
        let (&[suite, key_updates], bytes) = bytes.split_first_chunk::<2>()?;
        let (sealed, bytes) = bytes.split_first_chunk()?;
        let (opened, secrets) = bytes.split_first_chunk()?;
        let suite = Suite::from_number(suite)?;
        let (send_secret, receive_secret) = secrets.split_at_checked(suite.secret_bytes())?;
        let [sealed, opened] = [*sealed, *opened].map(|bytes| u64::from(Count(bytes).get()));
        let mut traffic =
            Self::new(&TrafficParts { suite, send_secret, receive_secret, sealed, opened })?;
        traffic.key_updates = KeyUpdates::from_number(key_updates)?;
        Some(traffic)
    }
}

/// The key of a connection for sending, ready for use.
pub struct Sealer<'a> {
    traffic: &'a mut Traffic,
    key: LessSafeKey,
    iv: [u8; IV_BYTES],
}

impl Sealer<'_> {
    /// Appends `data` to `out` as one record of application data, after a `KeyUpdate` if one is
    /// owed, or if the key of a side has sealed enough records. `data` has
    /// [`PLAINTEXT_BYTES_MAX`] at most.
    pub fn seal(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if self.traffic.needs_key_update() {
            self.update_key(out);
        }
        self.seal_as(ContentType::ApplicationData, data, out);
    }

    /// Appends an alert to `out`. The connection sends nothing after it.
    pub fn seal_alert(&mut self, alert: Alert, out: &mut Vec<u8>) {
        self.seal_as(ContentType::Alert, &alert.encode(), out);
    }

    /// Appends a `KeyUpdate`, which asks for one in return if the other side is to replace its key,
    /// and replaces the key of this side.
    #[cold]
    fn update_key(&mut self, out: &mut Vec<u8>) {
        let wants = self.traffic.wants_key_update();
        let request = if wants { UPDATE_REQUESTED } else { UPDATE_NOT_REQUESTED };
        self.seal_as(ContentType::Handshake, &key_update(request), out);
        let is_requested = wants || self.traffic.key_updates.is_requested();
        self.traffic.key_updates = KeyUpdates::new(false, is_requested);
        self.traffic.advance_sending();
        (self.key, self.iv) = self.traffic.prepare_key(Direction::Send);
    }

    /// Appends one record without padding (RFC 8446, section 5.2).
    fn seal_as(&mut self, content: ContentType, plaintext: &[u8], out: &mut Vec<u8>) {
        assert!(plaintext.len() <= PLAINTEXT_BYTES_MAX, "more than a record holds");
        let start = out.len();
        let header = header(plaintext.len() + 1 + TAG_BYTES);
        out.extend_from_slice(&header);
        out.extend_from_slice(plaintext);
        out.push(content as u8);
        let nonce = self.next_nonce();
        let sealed = &mut out[start + HEADER_BYTES..];
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(header), sealed);
        out.extend_from_slice(tag.expect("less than the limit of the cipher").as_ref());
    }

    /// Makes the nonce of the next record: the only place that makes one for sealing.
    fn next_nonce(&mut self) -> Nonce {
        let number = self.traffic.sealed;
        // A bug of ours would cost all secrecy: rather no service than this one.
        self.traffic.sealed = number.next().expect("the key has sealed enough records");
        nonce(self.iv, number)
    }
}

/// Header of a sealed record, which is authenticated with it (RFC 8446, section 5.2).
fn header(length: usize) -> [u8; HEADER_BYTES] {
    let [high, low] = u16::try_from(length).expect("a record's length").to_be_bytes();
    [ContentType::ApplicationData as u8, 3, 3, high, low]
}

/// The IV XOR the sequence number, which is padded on the left (RFC 8446, section 5.3).
fn nonce(mut iv: [u8; IV_BYTES], Count(number): Count) -> Nonce {
    for (byte, number) in iv[IV_BYTES - number.len()..].iter_mut().zip(number) {
        *byte ^= number;
    }
    Nonce::assume_unique_for_key(iv)
}

/// `request_update` of a `KeyUpdate` (RFC 8446, section 4.6.3).
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

/// Length of a `KeyUpdate` message.
const KEY_UPDATE_BYTES: usize = 5;

/// A `KeyUpdate` message: its type, its length and `request_update`.
fn key_update(request: u8) -> [u8; KEY_UPDATE_BYTES] {
    [24, 0, 0, 1, request]
}

/// Length of the record at the start of `bytes`. `None` if its header is incomplete.
///
/// # Errors
///
/// An alert for the client if no record of a connection after its handshake begins like this.
/// That is known from the header alone: nothing is stored for a record that is too long.
pub(super) fn record_length(bytes: &[u8]) -> Result<Option<usize>, Alert> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if header[0] != ContentType::ApplicationData as u8 {
        return Err(Alert::UnexpectedMessage);
    }
    // The version is not checked (RFC 8446, section 5.1): it is authenticated.
    if length > CIPHERTEXT_BYTES_MAX {
        return Err(Alert::RecordOverflow);
    }
    Ok(Some(HEADER_BYTES + length))
}

/// A record that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// So many bytes of application data, after the header: they may be none.
    Data(usize),
    /// The client has replaced its key.
    KeyUpdate,
    /// The client sends nothing more (`close_notify`).
    CloseNotify,
    /// The client has ended the connection because of an error. Number of the alert.
    ErrorAlert(u8),
}

/// The key of a connection for receiving, ready for use.
pub struct Opener<'a> {
    traffic: &'a mut Traffic,
    key: LessSafeKey,
    iv: [u8; IV_BYTES],
    /// The other side is a server, which may send tickets at any time.
    ignores_tickets: bool,
}

impl Opener<'_> {
    /// Accepts and forgets the tickets that only a server sends (RFC 8446, section 4.6.1).
    pub(super) fn ignore_tickets(&mut self) {
        self.ignores_tickets = true;
    }

    /// Opens `record` in place: a whole record, as its header says. Application data is left after
    /// the header.
    ///
    /// # Errors
    ///
    /// An alert for the client if the record is forged or breaks the protocol. The connection is
    /// over: nothing that follows can be opened.
    pub fn open(&mut self, record: &mut [u8]) -> Result<Opened, Alert> {
        let (header, sealed) = record.split_at_mut(HEADER_BYTES);
        let header: [u8; HEADER_BYTES] = (&*header).try_into().expect("a header");
        let number = self.traffic.opened;
        let opened = self.key.open_in_place(nonce(self.iv, number), Aad::from(header), sealed);
        let inner = &*opened.map_err(|_| Alert::BadRecordMac)?;
        if inner.len() > PLAINTEXT_BYTES_MAX + 1 {
            return Err(Alert::RecordOverflow);
        }
        // Zeros after the type are padding (section 5.4). Without a type, the record is invalid.
        let end = inner.iter().rposition(|byte| *byte != 0).ok_or(Alert::UnexpectedMessage)?;
        let content = &inner[..end];
        let next = number.next();
        self.traffic.opened = next.unwrap_or(number);
        match inner[end] {
            // Only a `KeyUpdate` or an alert may have the last number: a client that sends more is
            // past the limit of section 5.5.
            _ if next.is_none() && inner[end] == 23 => Err(Alert::UnexpectedMessage),
            23 => Ok(Opened::Data(content.len())),
            22 if self.ignores_tickets && are_tickets(content) => Ok(Opened::Data(0)),
            22 => {
                let request = parse_key_update(content)?;
                let updates = self.traffic.key_updates;
                let is_owed = updates.is_owed() || request == UPDATE_REQUESTED;
                self.traffic.key_updates = KeyUpdates::new(is_owed, updates.is_requested());
                self.traffic.advance_receiving();
                (self.key, self.iv) = self.traffic.prepare_key(Direction::Receive);
                Ok(Opened::KeyUpdate)
            }
            // The level of an alert says nothing (section 6).
            21 => match content {
                // Only application data may be empty (section 5.4).
                [] => Err(Alert::UnexpectedMessage),
                [_, 0] => Ok(Opened::CloseNotify),
                [_, description] => Ok(Opened::ErrorAlert(*description)),
                _ => Err(Alert::DecodeError),
            },
            _ => Err(Alert::UnexpectedMessage),
        }
    }
}

/// Parses the content of a handshake record, which must be one `KeyUpdate`. Returns
/// `request_update`.
///
/// A client may split a message over records, or put several into one (RFC 8446, section 5.1). A
/// `KeyUpdate` ends its record, as all messages before a change of keys do, and no client splits
/// these 5 bytes: one that does is refused, so that no connection needs a place for a part.
fn parse_key_update(content: &[u8]) -> Result<u8, Alert> {
    match content {
        [24, 0, 0, 1, request @ (UPDATE_NOT_REQUESTED | UPDATE_REQUESTED)] => Ok(*request),
        [24, 0, 0, 1, _] => Err(Alert::IllegalParameter),
        [24, 0, 0, 1, _, ..] => Err(Alert::UnexpectedMessage),
        [24, 0, 0, length, ..] if *length != 1 => Err(Alert::DecodeError),
        _ => Err(Alert::UnexpectedMessage),
    }
}

/// Returns whether the content of a handshake record is one or more whole `NewSessionTicket`
/// messages (RFC 8446, section 4.6.1).
fn are_tickets(mut content: &[u8]) -> bool {
    while let [4, high, middle, low, rest @ ..] = content {
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        let Some((_, rest)) = rest.split_at_checked(length) else { return false };
        if rest.is_empty() {
            return true;
        }
        content = rest;
    }
    false
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
