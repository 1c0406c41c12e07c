//! Replies that are sent after the delivery they belong to. They share the messages, so that a
//! reply costs one client a few bytes, however long its messages are.

use std::cell::Cell;
use std::collections::HashMap;
use std::mem;
use std::ops::Range;
use std::rc::Rc;

use super::payload::{Chunk, SharedBytes};
use crate::hub::{ChannelSlice, Counted, IntroductionSlice, Reply};

/// Overhead of an allocation.
const ALLOCATION_BYTES: usize = 16;

/// Bytes of later messages that are encoded together with those of a reply to a long poll. Long
/// polls of one turn may begin at different messages: with this, one encoding serves all of them.
/// A stream that resumes may begin anywhere in the history, so its update has no later messages:
/// each of many such streams would hold far more than its update.
const LOOKAHEAD_BYTES: usize = 16 << 20;

/// Length from which a message of an unsent response is shared. A chunk costs some 50 bytes.
const SHARED_MIN: usize = 256;

/// Part of a reply that is about one channel.
pub(super) trait ReplySlice {
    /// Iterates over the introductions that history has dropped, as JSON objects.
    fn introductions(&self) -> impl Iterator<Item = &[u8]>;
    fn has_introductions(&self) -> bool;
    /// Returns the introductions if their pages can be shared.
    fn introduction_pages(&self) -> Option<IntroductionSlice<'_>>;
    /// Iterates over the messages from [`ReplySlice::first_id`] on, as JSON objects.
    fn retained(&self) -> impl Iterator<Item = &[u8]>;
    fn first_id(&self) -> u64;
    fn next_id(&self) -> u64;
    /// Returns the `from_id` that gets this slice again.
    fn start(&self) -> u64;
    fn missed(&self) -> bool;
    fn reset(&self) -> bool;
}

impl ReplySlice for ChannelSlice<'_> {
    #[inline]
    fn introductions(&self) -> impl Iterator<Item = &[u8]> {
        ChannelSlice::introductions(self)
    }

    #[inline]
    fn has_introductions(&self) -> bool {
        !self.introduction_slice().is_empty()
    }

    fn introduction_pages(&self) -> Option<IntroductionSlice<'_>> {
        Some(self.introduction_slice()).filter(|introductions| introductions.pages().len() > 0)
    }

    #[inline]
    fn retained(&self) -> impl Iterator<Item = &[u8]> {
        ChannelSlice::retained(self)
    }

    fn first_id(&self) -> u64 {
        ChannelSlice::first_id(self)
    }

    fn next_id(&self) -> u64 {
        ChannelSlice::next_id(self)
    }

    fn start(&self) -> u64 {
        ChannelSlice::start(self)
    }

    fn missed(&self) -> bool {
        ChannelSlice::missed(self)
    }

    fn reset(&self) -> bool {
        ChannelSlice::reset(self)
    }
}

/// Messages of one channel as JSON objects, one after the other.
#[derive(Debug)]
struct SharedMessages {
    json: Rc<SharedBytes>,
    /// End of each message in `json`: the introductions, then the messages from `first_id` on.
    ends: Box<[usize]>,
    introductions: usize,
    first_id: u64,
    /// Counts `ends`, which may be a fifth of the JSON.
    _counted: Counted,
}

impl SharedMessages {
    fn encode(
        slice: &ChannelSlice<'_>,
        has_lookahead: bool,
        encoded_bytes: &Rc<Cell<usize>>,
    ) -> Self {
        let (mut json, mut ends) = (Vec::new(), Vec::new());
        let mut push = |json: &mut Vec<u8>, message: &[u8]| {
            json.extend_from_slice(message);
            ends.push(json.len());
        };
        slice.messages().for_each(|message| push(&mut json, message));
        for message in slice.later().take_while(|_| has_lookahead) {
            if json.len() + message.len() > LOOKAHEAD_BYTES {
                break;
            }
            push(&mut json, message);
        }
        Self {
            json: SharedBytes::new(&json, encoded_bytes),
            _counted: Counted::new(size_of_val(&*ends), encoded_bytes),
            ends: ends.into(),
            introductions: slice.introductions().count(),
            first_id: slice.first_id(),
        }
    }

    /// Returns the indexes of the messages of a slice, if all of them are here.
    fn find(&self, slice: &ChannelSlice<'_>) -> Option<Range<usize>> {
        let introductions = slice.introductions().count();
        let skipped = slice.first_id().checked_sub(self.first_id)? as usize;
        if introductions != self.introductions || (introductions > 0 && skipped > 0) {
            return None;
        }
        let end = skipped + introductions + (slice.next_id() - slice.first_id()) as usize;
        (end <= self.ends.len()).then_some(skipped..end)
    }

    /// Returns the place of a message in `json`.
    fn place(&self, index: usize) -> Range<usize> {
        index.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[index]
    }
}

/// Part of a reply that is about one channel, without the hub.
#[derive(Debug)]
pub(super) struct SharedSlice {
    messages: Option<Rc<SharedMessages>>,
    /// Indexes of the messages. The introductions come first.
    range: Range<usize>,
    next_id: u64,
    start: u64,
    missed: bool,
    reset: bool,
}

impl SharedSlice {
    fn introduction_count(&self) -> usize {
        self.messages.as_ref().map_or(0, |messages| messages.introductions)
    }

    /// Iterates over the messages with these indexes: the bytes that they are in, and their place.
    fn places(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (&Rc<SharedBytes>, Range<usize>)> {
        let messages = self.messages.iter();
        messages.flat_map(move |messages| {
            range.clone().map(|index| (&messages.json, messages.place(index)))
        })
    }

    fn json(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        self.places(range).map(|(json, place)| &json.bytes()[place])
    }
}

impl ReplySlice for SharedSlice {
    fn introductions(&self) -> impl Iterator<Item = &[u8]> {
        self.json(self.range.start..self.range.start + self.introduction_count())
    }

    fn has_introductions(&self) -> bool {
        self.introduction_count() > 0
    }

    fn introduction_pages(&self) -> Option<IntroductionSlice<'_>> {
        None
    }

    fn retained(&self) -> impl Iterator<Item = &[u8]> {
        self.json(self.range.start + self.introduction_count()..self.range.end)
    }

    fn first_id(&self) -> u64 {
        self.next_id - (self.range.len() - self.introduction_count()) as u64
    }

    fn next_id(&self) -> u64 {
        self.next_id
    }

    fn start(&self) -> u64 {
        self.start
    }

    fn missed(&self) -> bool {
        self.missed
    }

    fn reset(&self) -> bool {
        self.reset
    }
}

/// Reply of which the client has been sent nothing yet, or a part.
#[derive(Debug)]
pub struct SharedReply {
    slices: Box<[SharedSlice]>,
}

impl SharedReply {
    pub(super) fn slices(&self) -> &[SharedSlice] {
        &self.slices
    }

    /// Returns the memory of the reply, without the messages.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of_val(&*self.slices) + ALLOCATION_BYTES
    }

    /// Splits an encoding of the reply, in any format, into chunks that share its long messages.
    #[must_use]
    pub fn split(&self, encoding: &[u8]) -> Vec<Chunk> {
        let (mut chunks, mut copied) = (Vec::new(), 0);
        let places = self.slices.iter().flat_map(|slice| slice.places(slice.range.clone()));
        for (json, place) in places.filter(|(_, place)| place.len() >= SHARED_MIN) {
            // The encodings have each message as it is, except that other keys may come first.
            let place = place.start + 1..place.end;
            if let Some(found) = find(&encoding[copied..], &json.bytes()[place.clone()]) {
                chunks.push(Chunk::Own(encoding[copied..copied + found].into()));
                copied += found + place.len();
                chunks.push(Chunk::Shared(Rc::clone(json), place));
            }
        }
        chunks.push(Chunk::Own(encoding[copied..].into()));
        chunks
    }
}

/// Finds a message. It begins with the quotation mark of its first key.
fn find(encoding: &[u8], message: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'"', encoding).find(|at| encoding[*at..].starts_with(message))
}

/// Messages that the replies of the current delivery share.
#[derive(Default)]
pub(super) struct MessageCache {
    /// By channel, by whether the messages begin with introductions that history has dropped or
    /// have some that were removed, and by whether they are those of long polls.
    by_channel: HashMap<(u32, bool, bool), Rc<SharedMessages>>,
    /// Bytes that were encoded since the last [`MessageCache::take_copied`].
    copied: usize,
}

impl MessageCache {
    pub(super) fn clear(&mut self) {
        if !self.by_channel.is_empty() {
            self.by_channel = HashMap::new();
        }
    }

    /// Returns the bytes that were encoded since the last call.
    pub(super) fn take_copied(&mut self) -> usize {
        mem::take(&mut self.copied)
    }

    /// Makes a shared reply, and encodes the messages that no earlier reply had. `is_poll` is true
    /// for a reply to a long poll, false for an update of a stream.
    pub(super) fn share(
        &mut self,
        reply: &Reply<'_>,
        is_poll: bool,
        encoded_bytes: &Rc<Cell<usize>>,
    ) -> SharedReply {
        let slices = reply.slices().iter().map(|slice| {
            let (messages, range) = self.messages(slice, is_poll, encoded_bytes).unzip();
            SharedSlice {
                messages,
                range: range.unwrap_or_default(),
                next_id: slice.next_id(),
                start: slice.start(),
                missed: slice.missed(),
                reset: slice.reset(),
            }
        });
        SharedReply { slices: slices.collect() }
    }

    fn messages(
        &mut self,
        slice: &ChannelSlice<'_>,
        is_poll: bool,
        encoded_bytes: &Rc<Cell<usize>>,
    ) -> Option<(Rc<SharedMessages>, Range<usize>)> {
        slice.messages().next()?;
        let is_full = slice.introductions().next().is_some() || slice.has_blanks();
        let key = (slice.index, is_full, is_poll);
        let copied = &mut self.copied;
        let mut encode = || {
            let messages = SharedMessages::encode(slice, is_poll, encoded_bytes);
            *copied += messages.json.bytes().len();
            Rc::new(messages)
        };
        let messages = self.by_channel.entry(key).or_insert_with(&mut encode);
        let range = messages.find(slice).unwrap_or_else(|| {
            *messages = encode();
            messages.find(slice).expect("these are the messages of the slice")
        });
        Some((Rc::clone(messages), range))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hub::{
        Auth, ChannelKey, ChannelName, Config, Hub, Introducer, Millis, Mode, Now, ReadRequest,
        ReadResult, ResumeBatch, Since, TOKEN_BYTES,
    };

    const NOW: Now = Now { mono: Millis(0), unix_ms: 0 };

    fn key(name: &str) -> ChannelKey<'_> {
        ChannelName::parse(name).unwrap().for_writing().unwrap()
    }

    fn introduce(hub: &mut Hub) {
        let introducer = Introducer::New(Auth::new([b'A'; TOKEN_BYTES]));
        assert!(hub.introduce(NOW, &key("c"), "Josh", introducer, None).is_ok());
    }

    fn write(hub: &mut Hub, text: &str) {
        hub.write(NOW, &key("c"), text, None).unwrap();
    }

    fn read<'h>(
        hub: &'h mut Hub,
        now: Now,
        names: &[&str],
        since: Since,
        mode: Mode,
    ) -> ReadResult<'h> {
        let targets: Vec<_> = names.iter().map(|name| (key(name), since)).collect();
        let (epoch, credentials, grace_ms) = (None, None, None);
        let request =
            ReadRequest { targets: &targets, epoch, credentials, grace_ms, mode, token: 1 };
        hub.read(now, &request).ok().unwrap()
    }

    fn read_at_once(hub: &mut Hub, since: Since) -> Reply<'_> {
        read_at(hub, NOW, since)
    }

    fn read_at(hub: &mut Hub, now: Now, since: Since) -> Reply<'_> {
        let ReadResult::Ready(reply) = read(hub, now, &["c"], since, Mode::Immediate) else {
            unreachable!("the read does not wait")
        };
        reply
    }

    fn assert_same(shared: &SharedReply, reply: &Reply<'_>) {
        fn messages(slice: &impl ReplySlice) -> [Vec<&[u8]>; 2] {
            [slice.introductions().collect(), slice.retained().collect()]
        }
        fn ids(slice: &impl ReplySlice) -> [u64; 3] {
            [slice.first_id(), slice.next_id(), slice.start()]
        }
        fn gaps(slice: &impl ReplySlice) -> [bool; 2] {
            [slice.missed(), slice.reset()]
        }
        assert_eq!(shared.slices().len(), reply.slices().len());
        for (shared, slice) in shared.slices().iter().zip(reply.slices()) {
            assert_eq!(messages(shared), messages(slice));
            assert_eq!((ids(shared), gaps(shared)), (ids(slice), gaps(slice)));
        }
        let bytes = size_of_val(shared.slices());
        assert!((bytes..bytes + 64).contains(&shared.memory()), "{}", shared.memory());
    }

    #[test]
    fn a_shared_reply_has_the_contents_of_the_reply() {
        let mut hub = Hub::new(Config { history: 3, ..Config::default() });
        (0..2).for_each(|_| introduce(&mut hub));
        (0..4).for_each(|_| write(&mut hub, "some text"));
        for since in [Since::All, Since::Id(1), Since::Id(5), Since::Id(100), Since::Last(1)] {
            let reply = read_at_once(&mut hub, since);
            let shared = MessageCache::default().share(&reply, true, &Rc::default());
            assert_same(&shared, &reply);
        }
        let several = read(&mut hub, NOW, &["c", "d", "e"], Since::All, Mode::Immediate);
        let ReadResult::Ready(reply) = several else { unreachable!("the read does not wait") };
        assert_same(&MessageCache::default().share(&reply, true, &Rc::default()), &reply);
    }

    #[test]
    fn replies_of_one_delivery_share_their_messages() {
        let mut hub = Hub::new(Config { max_reply: 1, ..Config::default() });
        for _ in 0..3 {
            let poll = read(&mut hub, NOW, &["c"], Since::Now, Mode::LongPoll);
            assert!(matches!(poll, ReadResult::Pending(_)));
            write(&mut hub, &"x".repeat(1_000));
        }
        let (mut cache, encoded_bytes) = (MessageCache::default(), Rc::default());
        let (mut kept, mut next_ids) = (Vec::new(), Vec::new());
        hub.deliver(NOW, |wake| {
            let shared = cache.share(&wake.reply, wake.is_last, &encoded_bytes);
            assert_same(&shared, &wake.reply);
            next_ids.push(wake.reply.slices()[0].next_id());
            kept.push(shared);
        });
        assert_eq!(next_ids, [2, 3, 4]);
        assert!((3_000..4_000).contains(&encoded_bytes.get()), "{encoded_bytes:?}");
    }

    #[test]
    fn a_reply_shares_only_messages_that_are_its_own() {
        let mut hub = Hub::new(Config { history: 2, ..Config::default() });
        introduce(&mut hub);
        (0..2).for_each(|_| write(&mut hub, "some text"));
        let encode = |hub: &mut Hub, since| {
            let reply = read_at_once(hub, since);
            SharedMessages::encode(&reply.slices()[0], false, &Rc::default())
        };
        let find = |messages: &SharedMessages, hub: &mut Hub, since| {
            messages.find(&read_at_once(hub, since).slices()[0])
        };
        let (all, tail) = (encode(&mut hub, Since::All), encode(&mut hub, Since::Id(2)));
        assert_eq!(find(&all, &mut hub, Since::All), Some(0..3));
        assert_eq!(find(&tail, &mut hub, Since::Id(2)), Some(0..2));
        assert_eq!(find(&tail, &mut hub, Since::Id(3)), Some(1..2));
        assert_eq!(find(&tail, &mut hub, Since::All), None, "one more introduction");
        assert_eq!(find(&all, &mut hub, Since::Id(2)), None, "one introduction less");
        write(&mut hub, "some text");
        assert_eq!(find(&all, &mut hub, Since::All), None, "from a later message on");
        assert_eq!(find(&tail, &mut hub, Since::Id(3)), None, "up to a later message");
    }

    #[test]
    fn a_reply_with_introductions_shares_no_reply_that_begins_with_an_expired_message() {
        let retention = Duration::from_secs(1);
        let mut hub = Hub::new(Config { history: 2, retention, ..Config::default() });
        introduce(&mut hub);
        write(&mut hub, "some text");
        let later = Now { mono: Millis(500), unix_ms: 500 };
        hub.write(later, &key("c"), "some text", None).unwrap();
        let reply = read_at(&mut hub, later, Since::All);
        let all = SharedMessages::encode(&reply.slices()[0], false, &Rc::default());
        assert_eq!(all.find(&reply.slices()[0]), Some(0..3));
        let after_expiry = Now { mono: Millis(1_000), unix_ms: 1_000 };
        let reply = read_at(&mut hub, after_expiry, Since::All);
        assert_eq!(reply.slices()[0].messages().count(), 2);
        assert_eq!(all.find(&reply.slices()[0]), None);
    }

    #[test]
    fn at_most_16_mib_of_later_messages_are_encoded() {
        let mut hub = Hub::new(Config { max_reply: 1, ..Config::default() });
        let text = "x".repeat(1 << 20);
        (0..18).for_each(|_| write(&mut hub, &text));
        let (mut cache, encoded_bytes) = (MessageCache::default(), Rc::default());
        let shared = cache.share(&read_at_once(&mut hub, Since::Id(1)), true, &encoded_bytes);
        assert_eq!(encoded_bytes.get() >> 20, 15, "{encoded_bytes:?}");
        drop(shared);
    }

    #[test]
    fn an_update_of_a_stream_that_resumes_holds_no_later_messages() {
        let now = Now { mono: Millis(0), unix_ms: 0 };
        let mut hub = Hub::new(Config { max_reply: 1, ..Config::default() });
        let key = ChannelName::parse("channel").unwrap().for_writing().unwrap();
        for _ in 0..100 {
            hub.write(now, &key, &"x".repeat(1000), None).unwrap();
        }
        let targets = [(key, Since::Id(1))];
        let (epoch, credentials, grace_ms) = (None, None, None);
        let mode = Mode::Stream;
        let request =
            ReadRequest { targets: &targets, epoch, credentials, grace_ms, mode, token: 1 };
        let Ok(ReadResult::Streaming(stream, first)) = hub.read(now, &request) else { panic!() };
        assert_eq!(first.slices()[0].next_id(), 2);
        let (mut cache, encoded_bytes) = (MessageCache::default(), Rc::default());
        let is_resumed = hub.resume(now, stream, &mut ResumeBatch::default(), |wake| {
            let shared = cache.share(&wake.reply, wake.is_last, &encoded_bytes);
            let update: usize = wake.reply.slices()[0].messages().map(<[u8]>::len).sum();
            assert_eq!(shared.slices()[0].retained().map(<[u8]>::len).sum::<usize>(), update);
            assert_eq!(encoded_bytes.get(), update + size_of::<usize>());
        });
        assert!(is_resumed);
    }
}
