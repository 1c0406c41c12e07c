//! A hub as bytes, for a file or for the process that takes over.
//!
//! A line that names the format and its version; the pieces of [`Saved`], each as CBOR (RFC 8949) behind its length in four
//! bytes, the highest first; a length of 0; and the SHA-256 of all that came before. Nothing of it depends on the machine.
//! What is read is taken only when the sum is right, so whatever cut it short or changed it is noticed.
//!
//! Within a version pieces may only gain optional fields, which an older reader passes over.

mod file;

use std::fmt;
use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use crate::hub::{Config, Corrupt, Hub, Now, SnapshotLoader, SnapshotRecord};

pub use file::{LoadResult, StateFile};

/// What every state begins with; the version of the format follows, and a line feed.
const NAME: &str = "speak state ";

/// The version that is written, and the one that is read.
const FORMAT_VERSION: &str = "1\n";

/// Bytes of the sum at the end.
const SUM_BYTES: usize = 32;

/// Why a state was not taken. Nothing came of it.
#[derive(Debug)]
pub enum LoadError {
    /// It could not be read.
    Io(io::Error),
    /// It is something else.
    NotASnapshot,
    /// It is of another version of this format.
    OtherVersion,
    /// It ends too early.
    Truncated,
    /// It is not what was written.
    Corrupt(&'static str),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::NotASnapshot => f.write_str("it is no state of this server"),
            Self::OtherVersion => {
                f.write_str("another version of this server wrote it, in a format not known here")
            }
            Self::Truncated => f.write_str("it ends too early"),
            Self::Corrupt(what) => write!(f, "it is damaged: {what}"),
        }
    }
}

impl From<Corrupt> for LoadError {
    fn from(Corrupt(what): Corrupt) -> Self {
        Self::Corrupt(what)
    }
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Io(error) }
    }
}

/// Writes all that the hub holds, between two turns. See [`Hub::save`] for `reads_end_ms`.
///
/// Makes two small writes for each channel and connection: give it a buffer. Takes no more memory than the largest channel.
///
/// # Errors
///
/// What `out` says.
pub fn write(hub: &Hub, now: Now, reads_end_ms: u64, out: &mut impl Write) -> io::Result<()> {
    let mut out = Checksummed { inner: out, sum: Sha256::new() };
    out.write_all(NAME.as_bytes())?;
    out.write_all(FORMAT_VERSION.as_bytes())?;
    let mut piece = Vec::new();
    hub.save(now, reads_end_ms, |saved| {
        piece.clear();
        minicbor::encode(saved, &mut piece).expect("a Vec takes everything");
        let length = u32::try_from(piece.len())
            .map_err(|_| io::Error::other("a channel holds more than 4 GiB"))?;
        out.write_all(&length.to_be_bytes())?;
        out.write_all(&piece)
    })?;
    out.write_all(&0_u32.to_be_bytes())?;
    let Checksummed { inner, sum } = out;
    inner.write_all(&sum.finalize())?;
    inner.flush()
}

/// Reads what [`write()`] wrote, and not a byte more. It is `unix_ms` since 1970 now. Returns the hub, and what time it is there:
/// the clock of the caller goes on from it.
///
/// # Errors
///
/// [`Fault`].
pub fn read(config: &Config, unix_ms: u64, input: &mut impl Read) -> Result<(Hub, Now), LoadError> {
    let mut input = Checksummed { inner: input, sum: Sha256::new() };
    read_name(&mut input)?;
    let mut piece = Vec::new();
    let mut restoring = None;
    loop {
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length == 0 {
            break;
        }
        piece.clear();
        // Not allocated at once: what is damaged may tell any length.
        (&mut input).take(length.into()).read_to_end(&mut piece)?;
        if piece.len() < length as usize {
            return Err(LoadError::Truncated);
        }
        let saved: SnapshotRecord<'_> =
            minicbor::decode(&piece).map_err(|_| LoadError::Corrupt("a piece is malformed"))?;
        match (&mut restoring, &saved) {
            (None, SnapshotRecord::Header(numbering)) => {
                restoring = Some(SnapshotLoader::begin(config, numbering, unix_ms)?);
            }
            (None, _) => return Err(LoadError::Corrupt("it does not begin with its numbering")),
            (Some(restoring), saved) => restoring.load(saved)?,
        }
    }
    let Checksummed { inner, sum } = input;
    let mut told = [0; SUM_BYTES];
    inner.read_exact(&mut told)?;
    if sum.finalize().as_slice() != told {
        return Err(LoadError::Corrupt("its sum is wrong"));
    }
    Ok(Hub::restore(restoring.ok_or(LoadError::Corrupt("it holds nothing"))?)?)
}

fn read_name(input: &mut impl Read) -> Result<(), LoadError> {
    let mut start = [0; NAME.len() + FORMAT_VERSION.len()];
    input.read_exact(&mut start)?;
    let (name, version) = start.split_at(NAME.len());
    match () {
        () if name != NAME.as_bytes() => Err(LoadError::NotASnapshot),
        () if version != FORMAT_VERSION.as_bytes() => Err(LoadError::OtherVersion),
        () => Ok(()),
    }
}

/// Adds up what passes through it.
struct Checksummed<T> {
    inner: T,
    sum: Sha256,
}

impl<T: Write> Write for Checksummed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Checksummed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.sum.update(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Auth, ChannelName, Credentials, Epoch, Introducer, Millis, Since, token};

    const NOW: Now = Now { mono: Millis(5_000), unix_ms: 1_763_802_330_123 };

    fn config() -> Config {
        Config { epoch: Epoch::new(*b"anything"), watermark_hash_key: [9; 16], ..Config::default() }
    }

    fn log(name: &str) -> crate::hub::ChannelKey<'_> {
        ChannelName::parse(name).unwrap().for_writing().unwrap()
    }

    /// A hub with something of everything, and its bytes.
    fn written() -> (Hub, Vec<u8>) {
        let mut hub = Hub::new(Config { epoch: Epoch::new(*b"k3Jx9QaZ"), ..config() });
        let at_start = Now { mono: Millis(0), unix_ms: NOW.unix_ms - 5_000 };
        hub.write(at_start, &log("test"), "howdy \u{2028} ü", None).unwrap();
        let who = Introducer::New(Auth::new(token(|| 7)));
        let josh = hub.introduce(at_start, &log("test"), "Josh", who).unwrap();
        let shown = Credentials { session: josh.session, auth: josh.auth.reveal() };
        hub.introduce(NOW, &log("other"), "Josh too", Introducer::Existing(shown)).unwrap();
        hub.deliver(NOW, |_| unreachable!("nobody waits"));
        let mut bytes = Vec::new();
        write(&hub, NOW, 0, &mut bytes).unwrap();
        (hub, bytes)
    }

    fn messages(hub: &mut Hub, now: Now, channel: &str) -> Vec<String> {
        use crate::hub::{Mode, ReadRequest, ReadResult};
        let follows = [(ChannelName::parse(channel).unwrap().for_reading().unwrap(), Since::All)];
        let call = ReadRequest {
            targets: &follows,
            epoch: None,
            credentials: None,
            mode: Mode::Immediate,
            token: 0,
        };
        let Ok(ReadResult::Ready(reply)) = hub.read(now, &call) else {
            panic!("it answers at once")
        };
        reply.slices()[0].messages().map(|json| String::from_utf8(json.to_vec()).unwrap()).collect()
    }

    #[test]
    fn what_was_written_is_read_back_and_written_the_same_again() {
        let (mut hub, bytes) = written();
        let mut input = [bytes.as_slice(), b"what follows"].concat();
        let mut rest = input.as_slice();
        let (mut restored, now) = read(&config(), NOW.unix_ms, &mut rest).unwrap();
        assert_eq!(rest, b"what follows");
        assert_eq!((now.mono, now.unix_ms), (NOW.mono, NOW.unix_ms));
        assert_eq!(restored.gauges(), hub.gauges());
        assert_eq!(restored.memory(), hub.memory());
        input.clear();
        write(&restored, now, 0, &mut input).unwrap();
        assert!(input == bytes, "another state");
        for channel in ["test", "other"] {
            assert_eq!(messages(&mut restored, now, channel), messages(&mut hub, NOW, channel));
        }
    }

    #[test]
    fn nobody_falls_silent_while_no_process_holds_them_but_messages_age() {
        let (_, bytes) = written();
        let (mut hub, now) = read(&config(), NOW.unix_ms + 600_000, &mut bytes.as_slice()).unwrap();
        assert_eq!(now.mono, Millis(605_000));
        let after = |ms| Now { mono: now.mono.after(ms), unix_ms: now.unix_ms + ms };
        hub.expire(after(4_999));
        assert_eq!(hub.gauges().sessions, 1);
        hub.expire(after(5_000));
        hub.deliver(after(5_000), |_| {});
        assert_eq!(hub.gauges().sessions, 0);
        assert_eq!(messages(&mut hub, after(5_000), "test").len(), 3);
        let (mut hub, now) =
            read(&config(), NOW.unix_ms + 3_600_000, &mut bytes.as_slice()).unwrap();
        hub.expire(now);
        hub.deliver(now, |_| {});
        // Both messages of the start, but the introduction of who is there is kept for newcomers.
        assert_eq!(messages(&mut hub, now, "test").len(), 1);
    }

    #[test]
    fn a_call_does_not_shorten_the_life_of_one_whose_read_another_process_has_yet_to_answer() {
        use crate::hub::{Mode, ReadRequest, ReadResult};
        let mut hub = Hub::new(config());
        let who = Introducer::New(Auth::new(token(|| 7)));
        let josh = hub.introduce(NOW, &log("test"), "Josh", who).unwrap();
        let shown = Some(Credentials { session: josh.session, auth: josh.auth.reveal() });
        hub.deliver(NOW, |_| unreachable!("nobody waits"));
        let follows = [(ChannelName::parse("other").unwrap().for_reading().unwrap(), Since::All)];
        let call = ReadRequest {
            targets: &follows,
            epoch: None,
            credentials: shown,
            mode: Mode::LongPoll,
            token: 0,
        };
        assert!(matches!(hub.read(NOW, &call), Ok(ReadResult::Pending(_))));
        let mut bytes = Vec::new();
        write(&hub, NOW, 1_250, &mut bytes).unwrap();
        for speaks in [false, true] {
            let (mut hub, now) = read(&config(), NOW.unix_ms, &mut bytes.as_slice()).unwrap();
            let after = |ms| Now { mono: now.mono.after(ms), unix_ms: now.unix_ms + ms };
            if speaks {
                hub.write(after(10), &log("test"), "I am here", shown).unwrap();
                hub.deliver(after(10), |_| unreachable!("nobody waits"));
            }
            hub.expire(after(6_249));
            assert_eq!(hub.gauges().sessions, 1, "speaks: {speaks}");
            hub.expire(after(6_250));
            hub.deliver(after(6_250), |_| {});
            assert_eq!(hub.gauges().sessions, 0, "speaks: {speaks}");
        }
    }

    #[test]
    fn a_shorter_history_holds_from_the_start() {
        let (_, bytes) = written();
        let (mut hub, now) =
            read(&Config { history: 1, ..config() }, NOW.unix_ms, &mut bytes.as_slice()).unwrap();
        assert_eq!(messages(&mut hub, now, "test").len(), 1);
    }

    #[test]
    fn whatever_is_cut_short_or_changed_is_refused() {
        let (_, bytes) = written();
        for length in 0..bytes.len() {
            let fault = read(&config(), NOW.unix_ms, &mut &bytes[..length]).map(drop).unwrap_err();
            assert!(matches!(fault, LoadError::Truncated), "{length}: {fault}");
        }
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[place] ^= 1 << bit;
                let fault =
                    read(&config(), NOW.unix_ms, &mut changed.as_slice()).map(drop).unwrap_err();
                assert!(!fault.to_string().is_empty());
            }
        }
        let mut other = bytes.clone();
        other[NAME.len()] = b'2';
        assert!(matches!(read(&config(), 0, &mut other.as_slice()), Err(LoadError::OtherVersion)));
        assert!(matches!(read(&config(), 0, &mut &[b'x'; 100][..]), Err(LoadError::NotASnapshot)));
    }
}
