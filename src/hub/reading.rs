//! Reads: answered at once, or waiting until they are answered, replaced, dismissed or closed.
//!
//! How long a read may wait is its client's affair: whoever calls [`Hub::read`] keeps the time, and calls
//! [`Hub::dismiss`] when it is over.

use super::channel::Part;
use super::connection::Credentials;
use super::hub::{Hub, Refusal};
use super::message::Reason;
use super::pair::LogName;
use super::reader::{Promise, Reader, ReaderKey, Reply, Seat, Seats, Since};
use super::time::{Millis, Now};
use super::upkeep::Spot;

/// How many channels one read may follow.
pub const CHANNELS_PER_READ_MAX: usize = 32;

/// Everything about a read but its transport.
pub struct ReadCall<'a> {
    /// The channels in the order asked: one to [`CHANNELS_PER_READ_MAX`], all different.
    pub follows: &'a [(LogName<'a>, Since)],
    /// The numbering that the ids are of, if the caller said.
    pub epoch: Option<&'a str>,
    /// The connection that it keeps alive.
    pub credentials: Option<Credentials<'a>>,
    /// Whether it is a long poll; else it is answered at once.
    pub may_wait: bool,
    /// Comes back in the wake-up.
    pub client: u64,
}

/// What became of a read.
pub enum ReadOutcome<'h> {
    /// There is something to tell, or it would not wait.
    Answer(Reply<'h>),
    /// It waits. [`Hub::deliver`] answers it, once.
    Waits(ReaderKey),
}

impl Hub {
    /// Reads, or begins to wait where there is nothing to tell.
    ///
    /// A read that may wait replaces the one that waits with the same connection on the same set of channels.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] of the credentials; of new channels, if it would have to wait on them.
    pub fn read(&mut self, now: Now, call: &ReadCall<'_>) -> Result<ReadOutcome<'_>, Refusal> {
        let connection = self.authenticate_maybe(call.credentials)?;
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
        let waits = call.may_wait && !asked().any(|(spot, since)| self.part_since(spot, since, same_epoch).has_news());
        if waits {
            self.room_for(spots)?;
        }
        // From here on nothing refuses it.
        for spot in spots {
            if let Spot::Channel(place) = *spot {
                self.channels[place as usize].last_use = now.mono;
            }
        }
        if let Some(place) = connection.filter(|_| call.may_wait) {
            self.replace_older(now, place, spots);
        }
        self.touch(connection, now.mono);
        if waits {
            return Ok(ReadOutcome::Waits(self.wait(now.mono, call, spots, connection)));
        }
        let mut reply = Reply::of(asked(), |(spot, since)| self.part_since(spot, since, same_epoch));
        reply.cut(self.config.max_reply);
        Ok(ReadOutcome::Answer(reply))
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

    /// Has a waiting read answered with nothing by the next delivery. Does nothing if it was answered before.
    pub fn dismiss(&mut self, now: Now, key: ReaderKey) {
        if let Some(reader) = self.release(now.mono, key) {
            self.dismissed.push(reader);
        }
    }

    /// Takes a read out of all that knows of it: it waits no more.
    pub(super) fn release(&mut self, now: Millis, key: ReaderKey) -> Option<Reader> {
        let reader = self.readers.remove(key)?;
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
            connection.last_alive = now;
            // While this read waited the grace after another one's closing ran out: it was not needed.
            connection.closes_at = connection.closes_at.filter(|at| *at > now);
            self.watch_connection(place);
        }
        Some(reader)
    }

    /// Where the name leads, rid of what is too old to be read.
    fn fresh_spot(&mut self, log: &LogName<'_>, now: Millis) -> Spot {
        let spot = self.spot(log);
        if let Spot::Channel(place) = spot {
            self.channels[place as usize].expire(now, self.retention);
        }
        spot
    }

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
        let key = self.readers.insert(Reader { client: call.client, seats, connection });
        let reader = self.readers.get(key).expect("just inserted");
        for seat in reader.seats.as_slice() {
            self.channels[seat.channel as usize].seat(key);
        }
        if let Some(place) = connection {
            self.connections[place as usize].readers.push(key);
        }
        key
    }

    /// A connection reads anew: its read that waits on the same channels is a ghost behind some proxy.
    fn replace_older(&mut self, now: Now, connection: u32, spots: &[Spot]) {
        let readers = &self.connections[connection as usize].readers;
        let follows_the_same = |key: &&ReaderKey| {
            let seats = self.readers.get(**key).map(|reader| reader.seats.as_slice());
            seats.is_some_and(|seats| same_channels(seats, spots))
        };
        if let Some(key) = readers.iter().find(follows_the_same).copied() {
            self.dismiss(now, key);
        }
    }
}

/// Whether both follow the same set of channels, in whatever order. Neither names a channel twice.
fn same_channels(seats: &[Seat], spots: &[Spot]) -> bool {
    let is_among =
        |seat: &Seat| spots.iter().any(|spot| matches!(spot, Spot::Channel(place) if *place == seat.channel));
    seats.len() == spots.len() && seats.iter().all(is_among)
}
