//! Reads: immediate replies, long polls and streams.
//!
//! The hub does not limit the duration of a wait. The caller of [`Hub::read`] does, and calls
//! [`Hub::complete_empty`] when a long poll has waited long enough.

use std::mem;

use super::channel_name::ChannelKey;
use super::channel_slice::{ChannelSlice, Numbering};
use super::channels::Channels;
use super::error::Error;
use super::hub::Hub;
use super::lookup::Lookup;
use super::message::Reason;
use super::nodes::Nodes;
use super::read_request::{Mode, ReadRequest, ReadResult};
use super::reader::{
    GapPolicy, Reader, ReaderKey, ReaderKind, Since, Subscription, Subscriptions, hash_channel_set,
};
use super::reply::Reply;
use super::time::{Millis, Now};
use super::timers::Timers;
use super::wake::{ResumeBatch, Wake};

/// Memory of a reader per channel, including a channel that it may create. An estimate.
const READ_OVERHEAD_BYTES: usize = 768;

/// Sessions of a read, and the stream that it replaces.
#[derive(Clone, Copy)]
struct ReadContext {
    /// Session of the call's credentials.
    caller: Option<u32>,
    /// Session that the reader keeps alive.
    session: Option<u32>,
    /// Stream that the new reader replaces.
    old_stream: Option<ReaderKey>,
    /// Nothing is answered at once: this process may be behind.
    may_be_behind: bool,
}

impl Hub {
    /// Starts a read. A stream always waits; a long poll waits if there is nothing to report.
    ///
    /// A long poll replaces the pending one of the same session on the same set of channels.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the credentials, or of the limits if the read would have to wait. With a
    /// log, [`Error::SessionEnding`].
    #[inline]
    pub fn read(&mut self, now: Now, request: &ReadRequest<'_>) -> Result<ReadResult<'_>, Error> {
        self.read_at(now, request, false)
    }

    /// Starts a read as [`Hub::read`] does. If `may_be_behind`, this process may lack what others
    /// have acknowledged: then a read that would be answered at once does not start, nor one that
    /// begins at an id that depends on the newest one.
    ///
    /// # Errors
    ///
    /// Those of [`Hub::read`].
    #[inline]
    pub fn read_at(
        &mut self,
        now: Now,
        request: &ReadRequest<'_>,
        may_be_behind: bool,
    ) -> Result<ReadResult<'_>, Error> {
        let session = self.sessions.authenticate_reader(request.credentials)?;
        let context = ReadContext { caller: session, session, old_stream: None, may_be_behind };
        self.begin_read(now, request, context)
    }

    /// Subscribes a stream to other channels, with its client unchanged. Returns the new key of the
    /// stream and its first reply. From then on the stream keeps the session of the request's
    /// credentials alive; without credentials, that of the stream stays. Without a grace period in
    /// the request, that of the stream stays.
    ///
    /// # Errors
    ///
    /// As for [`Hub::read`]; the stream then continues unchanged. [`Error::SessionEnded`] if the
    /// stream itself has ended.
    pub fn resubscribe(
        &mut self,
        now: Now,
        key: ReaderKey,
        request: &ReadRequest<'_>,
    ) -> Result<(ReaderKey, Reply<'_>), Error> {
        let Reader { session, grace_ms, .. } = *self.readers.get(key).ok_or(Error::SessionEnded)?;
        let caller = self.sessions.authenticate_reader(request.credentials)?;
        let session = caller.or(session);
        let grace_ms = request.grace_ms.or(Some(grace_ms.into()));
        let request = ReadRequest { grace_ms, mode: Mode::Stream, ..*request };
        let context = ReadContext { caller, session, old_stream: Some(key), may_be_behind: false };
        match self.begin_read(now, &request, context)? {
            ReadResult::Streaming(new_key, reply) => Ok((new_key, reply)),
            ReadResult::Ready(_) | ReadResult::Pending(_) | ReadResult::Behind => {
                unreachable!("the mode is Stream")
            }
        }
    }

    /// Returns whether a long poll would be answered at once.
    pub fn has_news(&mut self, now: Now, request: &ReadRequest<'_>) -> bool {
        let numbering = self.numbering_of(request);
        request.targets.iter().any(|(key, since)| {
            let lookup = self.channels.lookup_fresh(key, now.mono);
            self.slice_since(lookup, *since, numbering).has_news()
        })
    }

    fn begin_read(
        &mut self,
        now: Now,
        request: &ReadRequest<'_>,
        context: ReadContext,
    ) -> Result<ReadResult<'_>, Error> {
        let (one, several);
        let lookups: &[Lookup] = match request.targets {
            [(key, _)] => {
                one = [self.channels.lookup_fresh(key, now.mono)];
                &one
            }
            targets => {
                let lookups =
                    targets.iter().map(|(key, _)| self.channels.lookup_fresh(key, now.mono));
                several = lookups.collect::<Vec<_>>();
                &several
            }
        };
        let numbering = self.numbering_of(request);
        let targets =
            || lookups.iter().zip(request.targets).map(|(lookup, (_, since))| (*lookup, *since));
        let waits = match request.mode {
            Mode::Immediate => false,
            Mode::LongPoll => !targets()
                .any(|(lookup, since)| self.slice_since(lookup, since, numbering).has_news()),
            Mode::Stream => true,
        };
        if context.may_be_behind && !(waits && request.has_ids()) {
            // The call has come in time, however long it waits.
            self.touch(context.caller, now.mono);
            return Ok(ReadResult::Behind);
        }
        let superseded = context
            .caller
            .filter(|_| request.mode == Mode::LongPoll)
            .and_then(|session| self.find_superseded(session, lookups));
        if waits {
            let ending = superseded.or(context.old_stream);
            self.check_may_wait(now.mono, lookups, context.session, ending)?;
        }
        // From here on the read cannot fail.
        self.commit_read(now, lookups, superseded, context.caller);
        if !waits {
            let slice = |(lookup, since)| self.slice_since(lookup, since, numbering);
            let mut reply = Reply::of(targets(), slice);
            reply.truncate(self.config.max_reply);
            return Ok(ReadResult::Ready(reply));
        }
        let key = self.add_reader(now.mono, request, lookups, context.session);
        if request.mode == Mode::LongPoll {
            return Ok(ReadResult::Pending(key));
        }
        if let Some(old) = context.old_stream {
            self.remove_reader(now.mono, old);
            // If its session ended in this turn, the new stream ends with it.
            self.readers.replace_to_complete(old, key);
        }
        Ok(ReadResult::Streaming(key, self.first_stream_reply(key, request, numbering)))
    }

    /// Records the use of the channels of a read, completes the long poll that it replaces, and
    /// records the call of its session.
    #[expect(clippy::inline_always, reason = "a step of each read, called from one place")]
    #[inline(always)]
    fn commit_read(
        &mut self,
        now: Now,
        lookups: &[Lookup],
        superseded: Option<ReaderKey>,
        caller: Option<u32>,
    ) {
        for lookup in lookups {
            if let Lookup::Occupied(index) = *lookup {
                self.channels.local_mut(index).last_use = now.mono;
            }
        }
        if let Some(superseded) = superseded {
            self.complete_empty(now, superseded);
        }
        self.touch(caller, now.mono);
    }

    /// Checks the limits of a read that waits after the reader `ending` has ended.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyReads`], [`Error::OverCapacity`] or [`Error::OutOfMemory`].
    fn check_may_wait(
        &mut self,
        now: Millis,
        lookups: &[Lookup],
        session: Option<u32>,
        ending: Option<ReaderKey>,
    ) -> Result<(), Error> {
        if let Some(session) = session {
            self.sessions[session].local.check_read_limit(ending)?;
        }
        self.ensure_capacity(now, lookups, false)?;
        self.reserve(now, READ_OVERHEAD_BYTES * lookups.len(), lookups)
    }

    /// Returns the first reply of a stream, and moves its cursors past it.
    fn first_stream_reply(
        &mut self,
        key: ReaderKey,
        request: &ReadRequest<'_>,
        numbering: Numbering,
    ) -> Reply<'_> {
        let Self { channels, readers, config, .. } = self;
        let reader = readers.get_mut(key).expect("just inserted");
        let targets = reader.subscriptions.as_slice().iter().zip(request.targets);
        let mut reply = Reply::of(targets, |(subscription, (_, since))| {
            channels[subscription.channel].slice_since(*since, numbering)
        });
        let has_more = reply.truncate(config.max_reply);
        reader.advance(&reply, has_more);
        reply
    }

    /// Pauses a stream whose last reply has not been sent. Until [`Hub::resume`], new messages are
    /// only in the history.
    pub fn pause(&mut self, key: ReaderKey) {
        if let Some(reader) = self.readers.get_mut(key) {
            reader.kind = ReaderKind::PausedStream;
        }
    }

    /// Ends the pause of a stream that has no next reply. Returns the index of a channel if the
    /// stream is still paused, as in the [`Wake::channel`] of [`Hub::resume`].
    pub fn end_pause(&mut self, now: Now, key: ReaderKey) -> Option<u32> {
        let reader =
            self.readers.get(key).filter(|reader| reader.kind == ReaderKind::PausedStream)?;
        for subscription in reader.subscriptions.as_slice() {
            self.channels.expire_history(now.mono, subscription.channel);
        }
        let Self { readers, channels, .. } = self;
        let reader = readers.get_mut(key).expect("found above");
        let subscriptions = reader.subscriptions.as_slice();
        let first = subscriptions[0].channel;
        let has_news = |it: &Subscription| channels[it.channel].slice_for(*it).has_news();
        if subscriptions.iter().any(has_news) {
            return Some(first);
        }
        reader.kind = ReaderKind::Stream;
        None
    }

    /// Resumes a stream whose last reply has been sent. If the stream was paused and there is a
    /// next reply, calls `wake` with it. Returns whether it called `wake`.
    ///
    /// Calls in a row, with no other call between them, may share a `batch`: their wake-ups then
    /// mark equal replies with [`Wake::same_as_previous`].
    pub fn resume(
        &mut self,
        now: Now,
        key: ReaderKey,
        batch: &mut ResumeBatch,
        wake: impl FnOnce(Wake<'_>),
    ) -> bool {
        let Some(channel) = self.end_pause(now, key) else { return false };
        if batch.channel != channel {
            *batch = ResumeBatch { channel, fingerprint: None };
        }
        self.push_to_stream(key, channel, &mut batch.fingerprint, wake);
        true
    }

    /// Removes a reader that its client closed, and ends the session that the reader kept alive, at
    /// once or after the grace period. Does nothing if the reader was completed before.
    pub fn on_reader_closed(&mut self, now: Now, key: ReaderKey) {
        let Some(reader) = self.remove_reader(now.mono, key) else { return };
        let Some(session) = reader.session else { return };
        let grace_ms = reader.grace_ms.into();
        if !self.sessions.begin_grace(session, grace_ms, now.mono, &mut self.timers) {
            self.end_or_propose(now, session, Reason::Closed);
        }
    }

    /// Completes all readers: the next [`Hub::deliver`] gives them a reply without messages. Their
    /// sessions stay.
    pub fn complete_all_empty(&mut self, now: Now) {
        for key in self.readers.keys() {
            self.complete_empty(now, key);
        }
    }

    /// Completes a stream once the next [`Hub::deliver`] has given it the messages of this turn.
    /// Its session stays.
    pub fn complete_after_delivery(&mut self, key: ReaderKey) {
        self.readers.push_to_complete(key);
    }

    /// Completes a reader: the next [`Hub::deliver`] gives it a reply without messages. Does
    /// nothing if the reader was completed before.
    pub fn complete_empty(&mut self, now: Now, key: ReaderKey) {
        if let Some(reader) = self.remove_reader(now.mono, key) {
            self.readers.push_completed(reader);
        }
    }

    /// Removes a reader from all tables.
    pub(super) fn remove_reader(&mut self, now: Millis, key: ReaderKey) -> Option<Reader> {
        let Self { readers, channels, sessions, timers, nodes, .. } = self;
        let reader = readers.remove(key, channels)?;
        for subscription in reader.subscriptions.as_slice() {
            let local = channels.local_mut(subscription.channel);
            local.last_use = now;
            local.remove_reader(|key| readers.get(key).is_some());
            if local.reader_count == 0 {
                channels.arm_timer(subscription.channel, timers);
            }
        }
        if let Some(session) = reader.session {
            sessions.end_reader(session, key, now, timers);
        }
        if let Some(nodes) = nodes {
            mark_reader_counts(nodes, channels, &reader);
        }
        Some(reader)
    }

    #[inline]
    fn numbering_of(&self, request: &ReadRequest<'_>) -> Numbering {
        let is_same = request.epoch.is_none_or(|epoch| epoch.as_bytes() == self.epoch.as_bytes());
        Numbering { is_same, is_behind: self.is_behind }
    }

    #[inline]
    fn slice_since(&self, lookup: Lookup, since: Since, numbering: Numbering) -> ChannelSlice<'_> {
        match lookup {
            Lookup::Occupied(index) => self.channels[index].slice_since(since, numbering),
            Lookup::Vacant { first_id } => ChannelSlice::of_missing(first_id, since, numbering),
        }
    }

    fn add_reader(
        &mut self,
        now: Millis,
        request: &ReadRequest<'_>,
        lookups: &[Lookup],
        session: Option<u32>,
    ) -> ReaderKey {
        let Self { channels, sessions, readers, timers, nodes, .. } = self;
        let subscriptions = match (request.targets, lookups) {
            ([target], [lookup]) => {
                Subscriptions::One([subscribe(channels, timers, now, target, *lookup)])
            }
            (targets, lookups) => {
                let targets = targets.iter().zip(lookups);
                let subscribe =
                    |(target, lookup): (&_, &_)| subscribe(channels, timers, now, target, *lookup);
                Subscriptions::of_several(targets.map(subscribe).collect())
            }
        };
        let is_stream = request.mode == Mode::Stream;
        let kind = if is_stream { ReaderKind::Stream } else { ReaderKind::LongPoll };
        let grace_ms = sessions.limit_grace(request.grace_ms.unwrap_or(0));
        let reader = Reader { token: request.token, subscriptions, session, grace_ms, kind };
        let key = readers.insert(reader, channels);
        let reader = readers.get(key).expect("just inserted");
        for subscription in reader.subscriptions.as_slice() {
            channels.cancel_drop(subscription.channel).add_reader(key);
        }
        if let Some(session) = session {
            sessions.local_mut(session).readers.push(key);
        }
        if let Some(nodes) = nodes {
            mark_reader_counts(nodes, channels, reader);
        }
        key
    }

    /// Completes the long poll of a session on these channels, since a newer one begins at another
    /// node.
    pub(super) fn supersede_elsewhere(&mut self, now: Millis, session: u32, names: &[&str]) {
        let find = |name: &&str| self.channels.find_name(name).map(Lookup::Occupied);
        let Some(lookups) = names.iter().map(find).collect::<Option<Vec<_>>>() else { return };
        if let Some(superseded) = self.find_superseded(session, &lookups) {
            self.complete_empty(Now { mono: now, unix_ms: 0 }, superseded);
        }
    }

    /// Finds the pending long poll of a session on the same channels. A new poll replaces it: a
    /// proxy has probably not forwarded that the client closed the old one.
    ///
    /// A session may have [`READS_PER_SESSION_MAX`](super::READS_PER_SESSION_MAX) of them, so the
    /// hashes of the sets are compared first.
    fn find_superseded(&self, session: u32, lookups: &[Lookup]) -> Option<ReaderKey> {
        let keys = &self.sessions[session].local.readers;
        if keys.is_empty() {
            return None;
        }
        // A channel that does not exist has no readers.
        let mut channels = lookups.iter().map(|it| it.index()).collect::<Option<Vec<_>>>()?;
        channels.sort_unstable();
        let hash = hash_channel_set(channels.iter().copied());
        let is_superseded = |key: &&ReaderKey| {
            self.readers.get(**key).is_some_and(|reader| {
                reader.subscriptions.channel_set_hash() == hash
                    && reader.kind == ReaderKind::LongPoll
                    && same_channels(reader.subscriptions.as_slice(), &channels)
            })
        };
        keys.iter().find(is_superseded).copied()
    }
}

/// Subscribes to the channel of a target, which it creates if it does not exist.
#[expect(clippy::inline_always, reason = "a step of each read that waits")]
#[inline(always)]
fn subscribe(
    channels: &mut Channels,
    timers: &mut Timers,
    now: Millis,
    (key, since): &(ChannelKey<'_>, Since),
    lookup: Lookup,
) -> Subscription {
    let channel = channels.get_or_create(lookup, key, now, timers);
    let next_id = channels[channel].next_id();
    let (gap_policy, cursor) = match *since {
        // A long poll that waits has read up to this id, which a process that is behind may not
        // have. A stream moves its cursor with its first reply.
        Since::Id(id) => (GapPolicy::Report, id),
        Since::All => (GapPolicy::FullState, next_id),
        Since::Last(_) | Since::Now => (GapPolicy::Ignore, next_id),
    };
    Subscription { channel, gap_policy, cursor }
}

/// Makes the next heartbeat tell the other nodes how many readers the channels of a reader have.
#[cold]
fn mark_reader_counts(nodes: &mut Nodes, channels: &mut Channels, reader: &Reader) {
    for subscription in reader.subscriptions.as_slice() {
        let local = channels.local_mut(subscription.channel);
        // Each reader comes and goes with each message: only the first one pays.
        if !mem::replace(&mut local.is_count_marked, true) {
            nodes.reader_counts.mark(&channels[subscription.channel].name);
        }
    }
}

/// Returns whether both have the same set of channels. `channels` are sorted, and neither has a
/// channel twice.
fn same_channels(subscriptions: &[Subscription], channels: &[u32]) -> bool {
    let is_among =
        |subscription: &Subscription| channels.binary_search(&subscription.channel).is_ok();
    subscriptions.len() == channels.len() && subscriptions.iter().all(is_among)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{ChannelName, Config};

    #[test]
    fn streams_that_resume_share_replies_of_their_own_channel_only() {
        let now = Now { mono: Millis(0), unix_ms: 0 };
        let mut hub = Hub::new(Config { max_reply: 1, ..Config::default() });
        let key = |name| ChannelName::parse(name).unwrap().for_writing().unwrap();
        for name in ["one", "other"] {
            (0..3).for_each(|_| assert!(hub.write(now, &key(name), name, None).is_ok()));
        }
        let streams = ["one", "one", "other", "other"].map(|name| {
            let targets = [(key(name), Since::Id(1))];
            let (epoch, credentials, grace_ms) = (None, None, None);
            let mode = Mode::Stream;
            let request =
                ReadRequest { targets: &targets, epoch, credentials, grace_ms, mode, token: 1 };
            match hub.read(now, &request) {
                Ok(ReadResult::Streaming(stream, _)) => stream,
                _ => unreachable!("a stream waits"),
            }
        });
        let mut batch = ResumeBatch::default();
        let is_shared = streams.map(|stream| {
            let mut is_shared = None;
            hub.resume(now, stream, &mut batch, |wake| is_shared = Some(wake.same_as_previous));
            is_shared.unwrap()
        });
        assert_eq!(is_shared, [false, true, false, true]);
    }

    /// Sets with the same hash, which a client could look for.
    #[test]
    fn sets_are_the_same_if_all_their_channels_are() {
        let subscriptions = [7, 3].map(|channel| Subscription {
            channel,
            gap_policy: GapPolicy::Ignore,
            cursor: 1,
        });
        assert!(same_channels(&subscriptions, &[3, 7]));
        for channels in [&[3, 8][..], &[7], &[3, 7, 8], &[]] {
            assert!(!same_channels(&subscriptions, channels), "{channels:?}");
        }
    }
}
