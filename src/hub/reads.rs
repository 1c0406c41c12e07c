//! Reads: answered at once, or waiting until they are answered, replaced, dismissed or closed; a stream is a read that
//! waits on.
//!
//! How long a read may wait is its client's affair: whoever calls [`Hub::read`] keeps the time, and calls
//! [`Hub::dismiss`] when it is over.

use super::channel::ChannelSlice;
use super::channel_name::ChannelKey;
use super::deliver::{ResumeBatch, Wake};
use super::error::Error;
use super::hub::Hub;
use super::lookup::Lookup;
use super::message::Reason;
use super::paged_slab::PagedSlab;
use super::reader::{GapPolicy, Reader, ReaderKey, ReaderKind, Since, Subscription, Subscriptions};
use super::reply::Reply;
use super::session::{Credentials, READS_PER_CONNECTION_MAX};
use super::time::{Millis, Now};
use super::timer_wheel::TimerWheel;

/// How many channels one read may follow.
pub const CHANNELS_PER_READ_MAX: usize = 32;

/// What a read that waits takes on each channel, and a channel that comes into being with it: roughly.
const READ_OVERHEAD_BYTES: usize = 512;

/// Everything about a read but its transport.
pub struct ReadRequest<'a> {
    /// The channels in the order asked: one to [`CHANNELS_PER_READ_MAX`], all different.
    pub targets: &'a [(ChannelKey<'a>, Since)],
    /// The numbering that the ids are of, if the caller said.
    pub epoch: Option<&'a str>,
    /// The connection that it keeps alive.
    pub credentials: Option<Credentials<'a>>,
    /// Whether it waits.
    pub mode: Mode,
    /// Comes back in the wake-up.
    pub token: u64,
}

/// How a read waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    Immediate,
    /// Until there is something to tell: a long poll.
    LongPoll,
    /// For ever: a stream.
    Stream,
}

/// What became of a read.
pub enum ReadResult<'h> {
    /// There is something to tell, or it would not wait.
    Ready(Reply<'h>),
    /// It waits. [`Hub::deliver`] answers it, once.
    Pending(ReaderKey),
    /// It waits on; this is what it begins with. [`Hub::deliver`] tells it the rest, until it is closed or dismissed.
    Streaming(ReaderKey, Reply<'h>),
}

impl Hub {
    /// Reads, or begins to wait where there is nothing to tell.
    ///
    /// A long poll replaces the one that waits with the same connection on the same set of channels.
    ///
    /// # Errors
    ///
    /// A [`Error`] of the credentials; of new channels, if it would have to wait on them.
    #[inline]
    pub fn read(&mut self, now: Now, call: &ReadRequest<'_>) -> Result<ReadResult<'_>, Error> {
        let connection = self.authenticate_optional(call.credentials)?;
        self.begin_read(now, call, connection, connection, None)
    }

    /// Has a stream follow other channels from now on, for the same client and connection. The call's own credentials
    /// only show that theirs is alive. Returns the stream's new key, and what it begins with.
    ///
    /// # Errors
    ///
    /// As for [`Hub::read`]; the stream then goes on as it was. [`Error::Ended`] if it has ended itself.
    pub fn resubscribe(
        &mut self,
        now: Now,
        key: ReaderKey,
        call: &ReadRequest<'_>,
    ) -> Result<(ReaderKey, Reply<'_>), Error> {
        let kept = self.readers.get(key).ok_or(Error::SessionEnded)?.connection;
        let shown = self.authenticate_optional(call.credentials)?;
        match self.begin_read(
            now,
            &ReadRequest { mode: Mode::Stream, ..*call },
            shown,
            kept,
            Some(key),
        )? {
            ReadResult::Streaming(new_key, reply) => Ok((new_key, reply)),
            ReadResult::Ready(_) | ReadResult::Pending(_) => unreachable!("a stream follows"),
        }
    }

    /// A read of which the connections are known: the one that called, and the one to keep alive. It takes the place of
    /// the stream `old`.
    fn begin_read(
        &mut self,
        now: Now,
        call: &ReadRequest<'_>,
        caller: Option<u32>,
        kept: Option<u32>,
        old: Option<ReaderKey>,
    ) -> Result<ReadResult<'_>, Error> {
        let same_epoch =
            call.epoch.is_none_or(|epoch| epoch.as_bytes() == self.config.epoch.as_bytes());
        let (one, several);
        let spots: &[Lookup] = match call.targets {
            [(log, _)] => {
                one = [self.lookup_fresh(log, now.mono)];
                &one
            }
            follows => {
                several = follows
                    .iter()
                    .map(|(log, _)| self.lookup_fresh(log, now.mono))
                    .collect::<Vec<_>>();
                &several
            }
        };
        let asked = || spots.iter().zip(call.targets).map(|(spot, (_, since))| (*spot, *since));
        let waits = match call.mode {
            Mode::Immediate => false,
            Mode::LongPoll => {
                !asked().any(|(spot, since)| self.slice_since(spot, since, same_epoch).has_news())
            }
            Mode::Stream => true,
        };
        let replaced = caller
            .filter(|_| call.mode == Mode::LongPoll)
            .and_then(|place| self.find_superseded(place, spots));
        if waits {
            let goes = replaced.or(old);
            self.check_read_limit(kept, goes)?;
            self.ensure_capacity(now.mono, spots)?;
            self.reserve(now.mono, READ_OVERHEAD_BYTES * spots.len(), spots)?;
        }
        // From here on nothing refuses it.
        for spot in spots {
            if let Lookup::Occupied(place) = *spot {
                self.channels[place as usize].last_use = now.mono;
            }
        }
        if let Some(replaced) = replaced {
            self.complete_empty(now, replaced);
        }
        self.touch(caller, now.mono);
        if !waits {
            let mut reply =
                Reply::of(asked(), |(spot, since)| self.slice_since(spot, since, same_epoch));
            reply.truncate(self.config.max_reply);
            return Ok(ReadResult::Ready(reply));
        }
        let key = self.add_reader(now.mono, call, spots, kept);
        if call.mode == Mode::LongPoll {
            return Ok(ReadResult::Pending(key));
        }
        if let Some(old) = old {
            self.remove_reader(now.mono, old);
            // Where its connection ended in this very turn, its successor is to end too.
            self.orphaned_readers
                .iter_mut()
                .filter(|orphan| **orphan == old)
                .for_each(|orphan| *orphan = key);
        }
        let Self { channels, readers, config, .. } = self;
        let reader = readers.get_mut(key).expect("just inserted");
        let begins = reader.seats.as_slice().iter().zip(call.targets);
        let mut reply = Reply::of(begins, |(seat, (_, since))| {
            channels[seat.channel as usize].part_since(*since, same_epoch)
        });
        let has_more = reply.truncate(config.max_reply);
        reader.advance(&reply, has_more);
        Ok(ReadResult::Streaming(key, reply))
    }

    /// A stream is not to be told more before it has taken what it was given: until [`Hub::resume`], its messages wait in
    /// the log.
    pub fn pause(&mut self, key: ReaderKey) {
        if let Some(reader) = self.readers.get_mut(key) {
            reader.kind = ReaderKind::PausedStream;
        }
    }

    /// A stream has taken what it was given: if it is behind it gets the next answer, if there is one. Tells whether there
    /// was.
    ///
    /// Those that go on in a row, with nothing between them, may be given the same `resumed`: the wake-up then tells which
    /// of them share an answer.
    pub fn resume(
        &mut self,
        now: Now,
        key: ReaderKey,
        resumed: &mut ResumeBatch,
        wake: impl FnOnce(Wake<'_>),
    ) -> bool {
        let Some(reader) =
            self.readers.get(key).filter(|reader| reader.kind == ReaderKind::PausedStream)
        else {
            return false;
        };
        let places: Vec<_> = reader.seats.as_slice().iter().map(|seat| seat.channel).collect();
        let first = places[0];
        for place in places {
            self.expire_history(now.mono, place);
        }
        let Self { readers, channels, .. } = self;
        let reader = readers.get_mut(key).expect("found above");
        let mut seats = reader.seats.as_slice().iter();
        let has_news = seats.any(|seat| channels[seat.channel as usize].part_for(*seat).has_news());
        if has_news {
            if resumed.channel != first {
                *resumed = ResumeBatch { channel: first, fingerprint: None };
            }
            self.push_to_stream(key, first, &mut resumed.fingerprint, wake);
        } else {
            reader.kind = ReaderKind::Stream;
        }
        has_news
    }

    /// A client that waited is gone: its read ends, and the connection that it kept alive with it.
    ///
    /// Does nothing if the read was answered before.
    pub fn on_reader_closed(&mut self, now: Now, key: ReaderKey) {
        let Some(reader) = self.remove_reader(now.mono, key) else { return };
        let Some(place) = reader.connection else { return };
        if self.close_grace_ms == 0 {
            return self.end_session(now, place, Reason::Closed, None);
        }
        let at = now.mono.after(self.close_grace_ms);
        let connection = &mut self.sessions[place as usize];
        connection.closes_at = Some(connection.closes_at.map_or(at, |earlier| earlier.min(at)));
        self.arm_session_timer(place);
    }

    /// Has every waiting read answered with nothing by the next [`Hub::deliver`]. Nobody is said goodbye to.
    pub fn complete_all_empty(&mut self, now: Now) {
        let keys: Vec<_> = self.readers.keys().collect();
        for key in keys {
            self.complete_empty(now, key);
        }
    }

    /// Another process holds the hub from now on: here nothing ends any more, and nobody is said goodbye to. Reads that wait
    /// are still to be dismissed.
    pub fn detach(&mut self, now: Now) {
        let keys: Vec<_> = self.readers.keys().collect();
        for reader in keys {
            if let Some(reader) = self.readers.get_mut(reader) {
                reader.connection = None;
            }
        }
        self.sessions = PagedSlab::new();
        self.sessions_by_number.clear();
        self.timers = TimerWheel::new(now.mono);
        let places: Vec<_> = self.channels.iter().map(|(place, _)| place).collect();
        for place in places {
            self.channels[place as usize].timer = None;
        }
    }

    /// Has a waiting read answered with nothing by the next delivery. Does nothing if it was answered before.
    pub fn complete_empty(&mut self, now: Now, key: ReaderKey) {
        if let Some(reader) = self.remove_reader(now.mono, key) {
            self.cancelled_readers.push(reader);
        }
    }

    /// Takes a read out of all that knows of it: it waits no more.
    pub(super) fn remove_reader(&mut self, now: Millis, key: ReaderKey) -> Option<Reader> {
        let reader = self.readers.remove(key)?;
        self.subscription_bytes -= self.memory_of(&reader.seats);
        for seat in reader.seats.as_slice() {
            let channel = &mut self.channels[seat.channel as usize];
            channel.last_use = now;
            channel.remove_reader(|key| self.readers.get(key).is_some());
            if channel.reader_count == 0 {
                self.arm_channel_timer(seat.channel);
            }
        }
        if let Some(place) = reader.connection {
            let connection = &mut self.sessions[place as usize];
            connection.reader_count.retain(|its| *its != key);
            connection.last_alive = connection.last_alive.max(now);
            // While this read waited the grace after another one's closing ran out: it was not needed.
            connection.closes_at = connection.closes_at.filter(|at| *at > now);
            self.arm_session_timer(place);
        }
        Some(reader)
    }

    /// Where the name leads, rid of what is too old to be read.
    #[inline]
    fn lookup_fresh(&mut self, log: &ChannelKey<'_>, now: Millis) -> Lookup {
        let spot = self.entry(log);
        if let Lookup::Occupied(place) = spot {
            self.expire_history(now, place);
        }
        spot
    }

    #[inline]
    fn slice_since(&self, spot: Lookup, since: Since, same_epoch: bool) -> ChannelSlice<'_> {
        match spot {
            Lookup::Occupied(place) => self.channels[place as usize].part_since(since, same_epoch),
            Lookup::Vacant { first_id } => ChannelSlice::of_missing(first_id, since, same_epoch),
        }
    }

    fn add_reader(
        &mut self,
        now: Millis,
        call: &ReadRequest<'_>,
        spots: &[Lookup],
        connection: Option<u32>,
    ) -> ReaderKey {
        let seats = Subscriptions::of(call.targets.iter().zip(spots), |((log, since), spot)| {
            let channel = self.get_or_create(*spot, log, now);
            let promise = match since {
                Since::Id(_) => GapPolicy::Report,
                Since::All => GapPolicy::FullState,
                Since::Last(_) | Since::Now => GapPolicy::Ignore,
            };
            Subscription { channel, promise, cursor: self.channels[channel as usize].next_id() }
        });
        self.subscription_bytes += self.memory_of(&seats);
        let kind =
            if call.mode == Mode::Stream { ReaderKind::Stream } else { ReaderKind::LongPoll };
        let key = self.readers.insert(Reader { token: call.token, seats, connection, kind });
        let reader = self.readers.get(key).expect("just inserted");
        for seat in reader.seats.as_slice() {
            self.channels[seat.channel as usize].add_reader(key);
        }
        if let Some(place) = connection {
            self.sessions[place as usize].reader_count.push(key);
        }
        key
    }

    /// A connection reads anew: its read that waits on the same channels, if there is one, is a ghost behind some proxy.
    fn find_superseded(&self, connection: u32, spots: &[Lookup]) -> Option<ReaderKey> {
        let readers = &self.sessions[connection as usize].reader_count;
        let follows_the_same = |key: &&ReaderKey| {
            let reader = self.readers.get(**key);
            reader.is_some_and(|reader| {
                reader.kind == ReaderKind::LongPoll && same_channels(reader.seats.as_slice(), spots)
            })
        };
        readers.iter().find(follows_the_same).copied()
    }

    /// # Errors
    ///
    /// [`Error::TooManyReads`] if one more read would be too many for the connection once `goes` has gone.
    fn check_read_limit(
        &self,
        connection: Option<u32>,
        goes: Option<ReaderKey>,
    ) -> Result<(), Error> {
        let Some(place) = connection else { return Ok(()) };
        let readers = &self.sessions[place as usize].reader_count;
        if readers.len() < READS_PER_CONNECTION_MAX
            || goes.is_some_and(|key| readers.contains(&key))
        {
            Ok(())
        } else {
            Err(Error::TooManyReads)
        }
    }
}

/// Whether both follow the same set of channels, in whatever order. Neither names a channel twice.
fn same_channels(seats: &[Subscription], spots: &[Lookup]) -> bool {
    let is_among = |seat: &Subscription| {
        spots.iter().any(|spot| matches!(spot, Lookup::Occupied(place) if *place == seat.channel))
    };
    seats.len() == spots.len() && seats.iter().all(is_among)
}
