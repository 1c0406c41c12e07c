//! Reads: answered at once, or waiting until they are answered, replaced, dismissed or closed; a stream is a read that
//! waits on.
//!
//! How long a read may wait is its client's affair: whoever calls [`Hub::read`] keeps the time, and calls
//! [`Hub::dismiss`] when it is over.

use super::channel::Part;
use super::channel_name::LogName;
use super::deliver::{Resumed, Wake};
use super::entry::Spot;
use super::error::Refusal;
use super::hub::Hub;
use super::message::Reason;
use super::paged_slab::Pages;
use super::reader::{Promise, Reader, ReaderKey, Seat, Seats, Since, Stay};
use super::reply::Reply;
use super::session::{Credentials, READS_PER_CONNECTION_MAX};
use super::time::{Millis, Now};
use super::timer_wheel::TimerWheel;

/// How many channels one read may follow.
pub const CHANNELS_PER_READ_MAX: usize = 32;

/// What a read that waits takes on each channel, and a channel that comes into being with it: roughly.
const READING_MEMORY: usize = 512;

/// Everything about a read but its transport.
pub struct ReadCall<'a> {
    /// The channels in the order asked: one to [`CHANNELS_PER_READ_MAX`], all different.
    pub follows: &'a [(LogName<'a>, Since)],
    /// The numbering that the ids are of, if the caller said.
    pub epoch: Option<&'a str>,
    /// The connection that it keeps alive.
    pub credentials: Option<Credentials<'a>>,
    /// Whether it waits.
    pub mode: Mode,
    /// Comes back in the wake-up.
    pub client: u64,
}

/// How a read waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    AtOnce,
    /// Until there is something to tell: a long poll.
    Once,
    /// For ever: a stream.
    On,
}

/// What became of a read.
pub enum ReadOutcome<'h> {
    /// There is something to tell, or it would not wait.
    Answer(Reply<'h>),
    /// It waits. [`Hub::deliver`] answers it, once.
    Waits(ReaderKey),
    /// It waits on; this is what it begins with. [`Hub::deliver`] tells it the rest, until it is closed or dismissed.
    Follows(ReaderKey, Reply<'h>),
}

impl Hub {
    /// Reads, or begins to wait where there is nothing to tell.
    ///
    /// A long poll replaces the one that waits with the same connection on the same set of channels.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] of the credentials; of new channels, if it would have to wait on them.
    #[inline]
    pub fn read(&mut self, now: Now, call: &ReadCall<'_>) -> Result<ReadOutcome<'_>, Refusal> {
        let connection = self.authenticate_maybe(call.credentials)?;
        self.begin(now, call, connection, connection, None)
    }

    /// Has a stream follow other channels from now on, for the same client and connection. The call's own credentials
    /// only show that theirs is alive. Returns the stream's new key, and what it begins with.
    ///
    /// # Errors
    ///
    /// As for [`Hub::read`]; the stream then goes on as it was. [`Refusal::Ended`] if it has ended itself.
    pub fn follow_anew(
        &mut self,
        now: Now,
        key: ReaderKey,
        call: &ReadCall<'_>,
    ) -> Result<(ReaderKey, Reply<'_>), Refusal> {
        let kept = self.readers.get(key).ok_or(Refusal::Ended)?.connection;
        let shown = self.authenticate_maybe(call.credentials)?;
        match self.begin(now, &ReadCall { mode: Mode::On, ..*call }, shown, kept, Some(key))? {
            ReadOutcome::Follows(new_key, reply) => Ok((new_key, reply)),
            ReadOutcome::Answer(_) | ReadOutcome::Waits(_) => unreachable!("a stream follows"),
        }
    }

    /// A read of which the connections are known: the one that called, and the one to keep alive. It takes the place of
    /// the stream `old`.
    fn begin(
        &mut self,
        now: Now,
        call: &ReadCall<'_>,
        caller: Option<u32>,
        kept: Option<u32>,
        old: Option<ReaderKey>,
    ) -> Result<ReadOutcome<'_>, Refusal> {
        let same_epoch = call.epoch.is_none_or(|epoch| epoch.as_bytes() == self.config.epoch.as_bytes());
        let (one, several);
        let spots: &[Spot] = match call.follows {
            [(log, _)] => {
                one = [self.fresh_spot(log, now.mono)];
                &one
            }
            follows => {
                several = follows.iter().map(|(log, _)| self.fresh_spot(log, now.mono)).collect::<Vec<_>>();
                &several
            }
        };
        let asked = || spots.iter().zip(call.follows).map(|(spot, (_, since))| (*spot, *since));
        let waits = match call.mode {
            Mode::AtOnce => false,
            Mode::Once => !asked().any(|(spot, since)| self.part_since(spot, since, same_epoch).has_news()),
            Mode::On => true,
        };
        let replaced = caller.filter(|_| call.mode == Mode::Once).and_then(|place| self.older(place, spots));
        if waits {
            let goes = replaced.or(old);
            self.seat_with(kept, goes)?;
            self.room_for(now.mono, spots)?;
            self.memory_for(now.mono, READING_MEMORY * spots.len(), spots)?;
        }
        // From here on nothing refuses it.
        for spot in spots {
            if let Spot::Channel(place) = *spot {
                self.channels[place as usize].last_use = now.mono;
            }
        }
        if let Some(replaced) = replaced {
            self.dismiss(now, replaced);
        }
        self.touch(caller, now.mono);
        if !waits {
            let mut reply = Reply::of(asked(), |(spot, since)| self.part_since(spot, since, same_epoch));
            reply.cut(self.config.max_reply);
            return Ok(ReadOutcome::Answer(reply));
        }
        let key = self.wait(now.mono, call, spots, kept);
        if call.mode == Mode::Once {
            return Ok(ReadOutcome::Waits(key));
        }
        if let Some(old) = old {
            self.release(now.mono, old);
            // Where its connection ended in this very turn, its successor is to end too.
            self.orphans.iter_mut().filter(|orphan| **orphan == old).for_each(|orphan| *orphan = key);
        }
        let Self { channels, readers, config, .. } = self;
        let reader = readers.get_mut(key).expect("just inserted");
        let begins = reader.seats.as_slice().iter().zip(call.follows);
        let mut reply =
            Reply::of(begins, |(seat, (_, since))| channels[seat.channel as usize].part_since(*since, same_epoch));
        let has_more = reply.cut(config.max_reply);
        reader.go_on_after(&reply, has_more);
        Ok(ReadOutcome::Follows(key, reply))
    }

    /// A stream is not to be told more before it has taken what it was given: until [`Hub::resume`], its messages wait in
    /// the log.
    pub fn fall_behind(&mut self, key: ReaderKey) {
        if let Some(reader) = self.readers.get_mut(key) {
            reader.stay = Stay::Behind;
        }
    }

    /// A stream has taken what it was given: if it is behind it gets the next answer, if there is one. Tells whether there
    /// was.
    ///
    /// Those that go on in a row, with nothing between them, may be given the same `resumed`: the wake-up then tells which
    /// of them share an answer.
    pub fn resume(&mut self, now: Now, key: ReaderKey, resumed: &mut Resumed, wake: impl FnOnce(Wake<'_>)) -> bool {
        let Some(reader) = self.readers.get(key).filter(|reader| reader.stay == Stay::Behind) else { return false };
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
                *resumed = Resumed { channel: first, print: None };
            }
            self.tell(key, first, &mut resumed.print, wake);
        } else {
            reader.stay = Stay::On;
        }
        has_news
    }

    /// A client that waited is gone: its read ends, and the connection that it kept alive with it.
    ///
    /// Does nothing if the read was answered before.
    pub fn close_reader(&mut self, now: Now, key: ReaderKey) {
        let Some(reader) = self.release(now.mono, key) else { return };
        let Some(place) = reader.connection else { return };
        if self.grace_ms == 0 {
            return self.end_connection(now, place, Reason::Closed, None);
        }
        let at = now.mono.after(self.grace_ms);
        let connection = &mut self.connections[place as usize];
        connection.closes_at = Some(connection.closes_at.map_or(at, |earlier| earlier.min(at)));
        self.watch_connection(place);
    }

    /// Has every waiting read answered with nothing by the next [`Hub::deliver`]. Nobody is said goodbye to.
    pub fn dismiss_all(&mut self, now: Now) {
        let keys: Vec<_> = self.readers.keys().collect();
        for key in keys {
            self.dismiss(now, key);
        }
    }

    /// Another process holds the hub from now on: here nothing ends any more, and nobody is said goodbye to. Reads that wait
    /// are still to be dismissed.
    pub fn retire(&mut self, now: Now) {
        let keys: Vec<_> = self.readers.keys().collect();
        for reader in keys {
            if let Some(reader) = self.readers.get_mut(reader) {
                reader.connection = None;
            }
        }
        self.connections = Pages::new();
        self.numbers.clear();
        self.wheel = TimerWheel::new(now.mono);
        let places: Vec<_> = self.channels.iter().map(|(place, _)| place).collect();
        for place in places {
            self.channels[place as usize].timer = None;
        }
    }

    /// Has a waiting read answered with nothing by the next delivery. Does nothing if it was answered before.
    pub fn dismiss(&mut self, now: Now, key: ReaderKey) {
        if let Some(reader) = self.release(now.mono, key) {
            self.dismissed.push(reader);
        }
    }

    /// Takes a read out of all that knows of it: it waits no more.
    pub(super) fn release(&mut self, now: Millis, key: ReaderKey) -> Option<Reader> {
        let reader = self.readers.remove(key)?;
        self.seats -= self.memory_of(&reader.seats);
        for seat in reader.seats.as_slice() {
            let channel = &mut self.channels[seat.channel as usize];
            channel.last_use = now;
            channel.unseat(|key| self.readers.get(key).is_some());
            if channel.readers == 0 {
                self.watch_channel(seat.channel);
            }
        }
        if let Some(place) = reader.connection {
            let connection = &mut self.connections[place as usize];
            connection.readers.retain(|its| *its != key);
            connection.last_alive = connection.last_alive.max(now);
            // While this read waited the grace after another one's closing ran out: it was not needed.
            connection.closes_at = connection.closes_at.filter(|at| *at > now);
            self.watch_connection(place);
        }
        Some(reader)
    }

    /// Where the name leads, rid of what is too old to be read.
    #[inline]
    fn fresh_spot(&mut self, log: &LogName<'_>, now: Millis) -> Spot {
        let spot = self.spot(log);
        if let Spot::Channel(place) = spot {
            self.expire_history(now, place);
        }
        spot
    }

    #[inline]
    fn part_since(&self, spot: Spot, since: Since, same_epoch: bool) -> Part<'_> {
        match spot {
            Spot::Channel(place) => self.channels[place as usize].part_since(since, same_epoch),
            Spot::Nowhere { first_id } => Part::of_nothing(first_id, since, same_epoch),
        }
    }

    fn wait(&mut self, now: Millis, call: &ReadCall<'_>, spots: &[Spot], connection: Option<u32>) -> ReaderKey {
        let seats = Seats::of(call.follows.iter().zip(spots), |((log, since), spot)| {
            let channel = self.channel_at(*spot, log, now);
            let promise = match since {
                Since::Id(_) => Promise::Gapless,
                Since::All => Promise::Newcomer,
                Since::Last(_) | Since::Now => Promise::Plain,
            };
            Seat { channel, promise, cursor: self.channels[channel as usize].next_id() }
        });
        self.seats += self.memory_of(&seats);
        let stay = if call.mode == Mode::On { Stay::On } else { Stay::Once };
        let key = self.readers.insert(Reader { client: call.client, seats, connection, stay });
        let reader = self.readers.get(key).expect("just inserted");
        for seat in reader.seats.as_slice() {
            self.channels[seat.channel as usize].seat(key);
        }
        if let Some(place) = connection {
            self.connections[place as usize].readers.push(key);
        }
        key
    }

    /// A connection reads anew: its read that waits on the same channels, if there is one, is a ghost behind some proxy.
    fn older(&self, connection: u32, spots: &[Spot]) -> Option<ReaderKey> {
        let readers = &self.connections[connection as usize].readers;
        let follows_the_same = |key: &&ReaderKey| {
            let reader = self.readers.get(**key);
            reader.is_some_and(|reader| reader.stay == Stay::Once && same_channels(reader.seats.as_slice(), spots))
        };
        readers.iter().find(follows_the_same).copied()
    }

    /// # Errors
    ///
    /// [`Refusal::TooManyReads`] if one more read would be too many for the connection once `goes` has gone.
    fn seat_with(&self, connection: Option<u32>, goes: Option<ReaderKey>) -> Result<(), Refusal> {
        let Some(place) = connection else { return Ok(()) };
        let readers = &self.connections[place as usize].readers;
        if readers.len() < READS_PER_CONNECTION_MAX || goes.is_some_and(|key| readers.contains(&key)) {
            Ok(())
        } else {
            Err(Refusal::TooManyReads)
        }
    }
}

/// Whether both follow the same set of channels, in whatever order. Neither names a channel twice.
fn same_channels(seats: &[Seat], spots: &[Spot]) -> bool {
    let is_among =
        |seat: &Seat| spots.iter().any(|spot| matches!(spot, Spot::Channel(place) if *place == seat.channel));
    seats.len() == spots.len() && seats.iter().all(is_among)
}
