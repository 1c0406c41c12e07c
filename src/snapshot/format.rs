//! Format of a snapshot.
//!
//! A line with the name and version of the format; the records ([`SnapshotRecord`]), each as its
//! length in four bytes, highest first, and CBOR (RFC 8949); a length of 0; and the SHA-256 of all
//! bytes before it. The bytes do not depend on the machine. A snapshot is used only if its checksum
//! is right, so truncation and changes are noticed.
//!
//! Within a version, records may only gain optional fields, which an older reader skips.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use super::load_error::LoadError;
use crate::hub::{Config, Hub, Now, SnapshotLoader, SnapshotRecord};

/// First bytes of every snapshot. The version of the format and a line feed follow.
const NAME: &str = "speak state ";

/// Version that is written, and the only one that is read.
const FORMAT_VERSION: &str = "1\n";

/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 32;

/// Writes a snapshot of the hub, between two turns. See [`Hub::save`] for `reads_end_ms`.
///
/// Makes two small writes for each channel and session, so `out` should be buffered. Needs no more
/// memory than the largest channel.
///
/// # Errors
///
/// The error of `out`, or of a channel of more than 4 GiB.
pub fn write(hub: &Hub, now: Now, reads_end_ms: u64, out: &mut impl Write) -> io::Result<()> {
    let mut out = Checksummed { inner: out, sum: Sha256::new() };
    out.write_all(NAME.as_bytes())?;
    out.write_all(FORMAT_VERSION.as_bytes())?;
    let mut bytes = Vec::new();
    hub.save(now, reads_end_ms, |record| {
        bytes.clear();
        minicbor::encode(record, &mut bytes).expect("a Vec takes everything");
        let length = u32::try_from(bytes.len())
            .map_err(|_| io::Error::other("a channel has more than 4 GiB"))?;
        out.write_all(&length.to_be_bytes())?;
        out.write_all(&bytes)
    })?;
    out.write_all(&0_u32.to_be_bytes())?;
    let Checksummed { inner, sum } = out;
    inner.write_all(&sum.finalize())?;
    inner.flush()
}

/// Reads a snapshot of [`write()`], and not a byte more. `unix_ms` is the present time. Returns the
/// hub and its present time, from which the caller's clock continues.
///
/// # Errors
///
/// [`LoadError`].
pub fn read(config: &Config, unix_ms: u64, input: &mut impl Read) -> Result<(Hub, Now), LoadError> {
    let mut input = Checksummed { inner: input, sum: Sha256::new() };
    read_name(&mut input)?;
    let mut bytes = Vec::new();
    let mut loader = None;
    loop {
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length == 0 {
            break;
        }
        bytes.clear();
        // Not allocated at once: a corrupt snapshot may have any length here.
        (&mut input).take(length.into()).read_to_end(&mut bytes)?;
        if bytes.len() < length as usize {
            return Err(LoadError::Truncated);
        }
        let record: SnapshotRecord<'_> =
            minicbor::decode(&bytes).map_err(|_| LoadError::Corrupt("malformed record"))?;
        match (&mut loader, &record) {
            (None, SnapshotRecord::Header(header)) => {
                loader = Some(SnapshotLoader::begin(config, header, unix_ms)?);
            }
            (None, _) => return Err(LoadError::Corrupt("the first record is no header")),
            (Some(loader), record) => loader.load(record)?,
        }
    }
    let Checksummed { inner, sum } = input;
    let mut checksum = [0; CHECKSUM_BYTES];
    inner.read_exact(&mut checksum)?;
    if sum.finalize().as_slice() != checksum {
        return Err(LoadError::Corrupt("wrong checksum"));
    }
    Ok(Hub::restore(loader.ok_or(LoadError::Corrupt("no records"))?)?)
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

/// Reader or writer that computes the checksum of the bytes.
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
    use std::num::NonZeroU64;
    use std::time::Duration;

    use super::*;
    use crate::hub::{
        Address, Auth, ChannelName, Credentials, Epoch, Error, Introducer, Kick, Millis, Since,
        token,
    };

    const NOW: Now = Now { mono: Millis(5_000), unix_ms: 1_763_802_330_123 };

    fn config() -> Config {
        Config {
            history: 100,
            retention: Duration::from_hours(1),
            connection_timeout: Duration::from_secs(5),
            close_grace: Duration::ZERO,
            max_reply: 1 << 20,
            max_channels: 0,
            max_memory: usize::MAX,
            epoch: Epoch::new(*b"anything"),
            watermark_hash_key: [9; 16],
        }
    }

    fn channel(name: &str) -> crate::hub::ChannelKey<'_> {
        ChannelName::parse(name).unwrap().for_writing().unwrap()
    }

    /// A hub with every kind of record, and its snapshot.
    fn snapshot() -> (Hub, Vec<u8>) {
        let mut hub = Hub::new(Config { epoch: Epoch::new(*b"k3Jx9QaZ"), ..config() });
        let at_start = Now { mono: Millis(0), unix_ms: NOW.unix_ms - 5_000 };
        hub.write(at_start, &channel("test"), "howdy \u{2028} ü", None).unwrap();
        let introducer = Introducer::New(Auth::new(token(|| 7)));
        let josh = hub.introduce(at_start, &channel("test"), "Josh", introducer, None).unwrap();
        let credentials = Credentials { session: josh.session, auth: josh.auth.reveal() };
        hub.introduce(NOW, &channel("other"), "Josh too", Introducer::Existing(credentials), None)
            .unwrap();
        hub.deliver(NOW, |_| unreachable!("no reader waits"));
        let mut bytes = Vec::new();
        write(&hub, NOW, 0, &mut bytes).unwrap();
        (hub, bytes)
    }

    fn messages(hub: &mut Hub, now: Now, channel: &str) -> Vec<String> {
        use crate::hub::{Mode, ReadRequest, ReadResult};
        let targets = [(ChannelName::parse(channel).unwrap().for_reading().unwrap(), Since::All)];
        let request = ReadRequest {
            targets: &targets,
            epoch: None,
            credentials: None,
            grace_ms: None,
            mode: Mode::Immediate,
            token: 0,
        };
        let Ok(ReadResult::Ready(reply)) = hub.read(now, &request) else {
            panic!("an immediate read is answered at once")
        };
        reply.slices()[0].messages().map(|json| String::from_utf8(json.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_snapshot_is_read_back_and_written_the_same_again() {
        let (mut hub, bytes) = snapshot();
        let mut input = [bytes.as_slice(), b"next bytes"].concat();
        let mut rest = input.as_slice();
        let (mut restored, now) = read(&config(), NOW.unix_ms, &mut rest).unwrap();
        assert_eq!(rest, b"next bytes");
        assert_eq!((now.mono, now.unix_ms), (NOW.mono, NOW.unix_ms));
        assert_eq!(restored.gauges(), hub.gauges());
        assert_eq!(restored.memory(), hub.memory());
        input.clear();
        write(&restored, now, 0, &mut input).unwrap();
        assert!(input == bytes, "another snapshot");
        for channel in ["test", "other"] {
            assert_eq!(messages(&mut restored, now, channel), messages(&mut hub, NOW, channel));
        }
    }

    #[test]
    fn the_time_of_an_address_that_was_sent_away_continues() {
        let (mut hub, mut bytes) = snapshot();
        let address = NonZeroU64::new(7).map(Address::new);
        let introducer = Introducer::New(Auth::new(token(|| 8)));
        let troll = hub.introduce(NOW, &channel("other"), "Troll", introducer, address).unwrap();
        let kick = Kick { seconds: 60, text: None };
        hub.kick(NOW, &channel("other"), troll.session, kick);
        hub.goodbye(NOW, Credentials { session: 2, auth: troll.auth.reveal() }, None, None)
            .unwrap();
        hub.deliver(NOW, |_| unreachable!("no reader waits"));
        bytes.clear();
        write(&hub, NOW, 0, &mut bytes).unwrap();
        let (restored, now) = read(&config(), NOW.unix_ms, &mut bytes.as_slice()).unwrap();
        let mut again = Vec::new();
        write(&restored, now, 0, &mut again).unwrap();
        assert!(again == bytes, "another snapshot");
        for (away_ms, is_away) in [(0, true), (59_999, true), (60_000, false)] {
            let (hub, now) = read(&config(), NOW.unix_ms + away_ms, &mut bytes.as_slice()).unwrap();
            let checked = hub.check_address(now, &channel("other"), address);
            assert_eq!(checked, if is_away { Err(Error::SentAway) } else { Ok(()) });
            assert_eq!(hub.has_bans(), is_away);
        }
    }

    #[test]
    fn session_timeouts_are_paused_while_no_process_serves_and_retention_is_not() {
        let (_, bytes) = snapshot();
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
        // Both messages of the start are too old, but the introduction of a member is retained.
        assert_eq!(messages(&mut hub, now, "test").len(), 1);
    }

    #[test]
    fn a_call_does_not_end_a_session_earlier_while_the_old_process_completes_its_read() {
        use crate::hub::{Mode, ReadRequest, ReadResult};
        let mut hub = Hub::new(config());
        let introducer = Introducer::New(Auth::new(token(|| 7)));
        let josh = hub.introduce(NOW, &channel("test"), "Josh", introducer, None).unwrap();
        let credentials = Some(Credentials { session: josh.session, auth: josh.auth.reveal() });
        hub.deliver(NOW, |_| unreachable!("no reader waits"));
        let targets = [(ChannelName::parse("other").unwrap().for_reading().unwrap(), Since::All)];
        let request = ReadRequest {
            targets: &targets,
            epoch: None,
            credentials,
            grace_ms: None,
            mode: Mode::LongPoll,
            token: 0,
        };
        assert!(matches!(hub.read(NOW, &request), Ok(ReadResult::Pending(_))));
        let mut bytes = Vec::new();
        write(&hub, NOW, 1_250, &mut bytes).unwrap();
        for writes in [false, true] {
            let (mut hub, now) = read(&config(), NOW.unix_ms, &mut bytes.as_slice()).unwrap();
            let after = |ms| Now { mono: now.mono.after(ms), unix_ms: now.unix_ms + ms };
            if writes {
                hub.write(after(10), &channel("test"), "I am here", credentials).unwrap();
                hub.deliver(after(10), |_| unreachable!("no reader waits"));
            }
            hub.expire(after(6_249));
            assert_eq!(hub.gauges().sessions, 1, "writes: {writes}");
            hub.expire(after(6_250));
            hub.deliver(after(6_250), |_| {});
            assert_eq!(hub.gauges().sessions, 0, "writes: {writes}");
        }
    }

    #[test]
    fn a_lower_history_limit_applies_at_once() {
        let (_, bytes) = snapshot();
        let (mut hub, now) =
            read(&Config { history: 1, ..config() }, NOW.unix_ms, &mut bytes.as_slice()).unwrap();
        assert_eq!(messages(&mut hub, now, "test").len(), 1);
    }

    #[test]
    fn a_truncated_or_changed_snapshot_is_rejected() {
        let (_, bytes) = snapshot();
        for length in 0..bytes.len() {
            let error = read(&config(), NOW.unix_ms, &mut &bytes[..length]).map(drop).unwrap_err();
            assert!(matches!(error, LoadError::Truncated), "{length}: {error}");
        }
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[index] ^= 1 << bit;
                let error =
                    read(&config(), NOW.unix_ms, &mut changed.as_slice()).map(drop).unwrap_err();
                assert!(!error.to_string().is_empty());
            }
        }
        let mut other = bytes.clone();
        other[NAME.len()] = b'2';
        assert!(matches!(read(&config(), 0, &mut other.as_slice()), Err(LoadError::OtherVersion)));
        assert!(matches!(read(&config(), 0, &mut &[b'x'; 100][..]), Err(LoadError::NotASnapshot)));
    }
}
