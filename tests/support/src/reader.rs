//! A reader: what it asked for, and whether what it gets follows without a gap, a repetition or a
//! wrong order.

use crate::ensure;
use crate::fault::{Checked, Fault};
use crate::message::{Kind, Message, Slice};

/// Start of a read in one channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// All that is retained, and who is there.
    All,
    /// The last so many messages.
    Last(u64),
    /// The message with this id, or `missed`.
    Id(u64),
    /// Messages to come. The first has at least this id; a gap before it is not reported.
    Next(u64),
}

/// One channel of a reader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscription {
    pub channel: usize,
    /// Name under which it is read.
    pub name: String,
    pub since: Since,
    /// The id in `since` is of another numbering.
    pub is_stale: bool,
    /// Highest id of an event.
    last_id: u64,
}

/// A read or a stream, and how far it has come.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Its channels, in the order asked.
    pub subscriptions: Vec<Subscription>,
    /// Epoch of the ids.
    pub epoch: Option<String>,
    /// Cursors of the newest event with an id.
    pub cursors: Vec<i64>,
    /// This reader gets each id of its channels: what it misses no other reader will report.
    pub observes: bool,
    pub terms: Terms,
}

/// Limits of what a reader may ask and get.
#[derive(Clone, Copy, Default, Debug)]
pub struct Terms {
    /// It may ask for ids beyond the end, which are reset.
    pub may_be_ahead: bool,
    /// It is a stream: `missed` may come also if it began without an id and got nothing so far.
    pub is_stream: bool,
}

impl Subscription {
    pub fn new(channel: usize, name: impl Into<String>, since: Since) -> Self {
        Self { channel, name: name.into(), since, is_stale: false, last_id: 0 }
    }

    /// Returns the id to continue from, where it is known.
    pub fn id(&self) -> Option<u64> {
        if let Since::Id(id) = self.since { Some(id) } else { None }
    }

    /// Continues a stream whose last event had this cursor.
    pub fn resume_after(&mut self, old: &Self, cursor: i64) {
        self.last_id = if cursor > 0 { old.last_id } else { 0 };
    }

    /// Takes a slice of an answer, and continues after it.
    pub fn take_slice(&mut self, slice: &Slice, terms: Terms) -> Checked {
        let (since, first, next_id) = (self.since, slice.first_id(), slice.next_id);
        let is_ahead = |id| terms.may_be_ahead && id > next_id;
        let must_reset = matches!(since, Since::Id(id) if self.is_stale || is_ahead(id));
        ensure!(
            slice.is_reset == must_reset,
            "reset is {} for a read from {since:?}, stale: {}",
            slice.is_reset,
            self.is_stale
        );
        let is_from_beginning = since == Since::All || must_reset;
        let is_introduction = |it: &Message| it.kind == Kind::Introduction;
        let before = slice.before_row();
        let are_right =
            before.is_empty() || is_from_beginning && before.iter().all(is_introduction);
        ensure!(are_right, "a gap between {:?} and {first} for {since:?}", before.last());
        let may_miss = self.id().is_some() || terms.is_stream;
        ensure!(!slice.is_missed || may_miss, "missed, but asked for {since:?}");
        match since {
            Since::Id(id) if !must_reset => ensure!(
                if slice.is_missed { first > id } else { first == id },
                "read from {id}, continued with {first} (missed: {})",
                slice.is_missed
            ),
            Since::Next(least) => {
                ensure!(first >= least, "asked for messages from {least} on, got {first}");
            }
            _ => {}
        }
        (self.since, self.is_stale) = (Since::Id(next_id), false);
        Ok(())
    }

    /// Takes the message of an event; `cursor` is the id to continue from after it.
    pub fn take_message(&mut self, message: &Message, cursor: i64) -> Checked {
        let (id, since) = (message.id, self.since);
        ensure!(!self.is_stale, "no reset before {message:?}, read from {since:?}");
        ensure!(id > self.last_id, "{message:?} after id {}", self.last_id);
        self.last_id = id;
        if cursor == id.cast_signed() + 1 {
            let is_next = match since {
                Since::Id(next_id) => id == next_id,
                Since::Next(least) => id >= least,
                Since::All | Since::Last(_) => true,
            };
            ensure!(is_next, "read from {since:?}, got {message:?}");
            self.since = Since::Id(id + 1);
            return Ok(());
        }
        // Introductions that history has dropped come first. A reader that is cut there gets them
        // again, unless the introduction was the last of all messages.
        let is_dropped = since == Since::All
            && message.kind == Kind::Introduction
            && (cursor == 0 || cursor > id.cast_signed());
        ensure!(is_dropped, "read from {since:?}, cursor {cursor}: {message:?}");
        if let Ok(next_id @ 1..) = u64::try_from(cursor) {
            self.since = Since::Id(next_id);
        }
        Ok(())
    }

    /// Takes the event `missed`: the next message is a later one.
    /// A stream that began without an id may get it too, if it got nothing so far.
    pub fn take_gap(&mut self) {
        self.since = Since::Next(match self.since {
            Since::Id(id) => id + 1,
            Since::Next(least) => least,
            Since::All | Since::Last(_) => self.last_id + 1,
        });
    }

    /// Takes the cursor in an event of another channel, or in the first event. It must lose nothing
    /// that is still to come, whatever was asked.
    fn take_cursor(&mut self, cursor: i64, may_be_ahead: bool) -> Checked {
        let Ok(cursor) = u64::try_from(cursor) else {
            return Err(Fault::new(format!("the cursor is {cursor} for {:?}", self.since)));
        };
        let is_right = match self.since {
            // `reset` follows: the channel counts as read from the beginning.
            Since::Id(_) if self.is_stale => return Ok(()),
            Since::Id(id) if may_be_ahead && cursor < id => return Ok(()),
            Since::Id(id) => cursor == id,
            Since::Next(least) => cursor >= least.max(1),
            Since::All if cursor == 0 => return Ok(()),
            Since::All => true,
            Since::Last(_) => cursor > 0,
        };
        ensure!(is_right, "the cursor is {cursor} for {:?}", self.since);
        // What comes next has this id, or a gap is reported.
        self.since = Since::Id(cursor);
        Ok(())
    }

    /// Takes the event `reset`: the channel is read from the beginning.
    pub fn take_reset(&mut self, may_be_ahead: bool) -> Checked {
        let is_right = self.id().is_some() && (self.is_stale || may_be_ahead);
        ensure!(is_right, "reset, but asked for {:?}, stale: {}", self.since, self.is_stale);
        *self = Self::new(self.channel, std::mem::take(&mut self.name), Since::All);
        Ok(())
    }
}

impl Reader {
    pub fn new(subscriptions: Vec<Subscription>) -> Self {
        let (epoch, cursors) = (None, Vec::new());
        Self { subscriptions, epoch, cursors, observes: false, terms: Terms::default() }
    }

    /// Returns the names of its channels, in the order asked.
    pub fn names(&self) -> Vec<&str> {
        self.subscriptions.iter().map(|its| its.name.as_str()).collect()
    }

    /// Takes the cursors of an event of the channel `at`; `None` for the first event of a stream.
    pub(crate) fn take_cursors(&mut self, cursors: Vec<i64>, at: Option<usize>) -> Checked {
        let is_right = cursors.len() == self.subscriptions.len();
        ensure!(is_right, "not a cursor for each channel");
        for (place, (its, cursor)) in self.subscriptions.iter_mut().zip(&cursors).enumerate() {
            // After a gap that was reported, the channel may keep its cursor for a while.
            let has_moved = at.is_none() || self.cursors.get(place) != Some(cursor);
            if at != Some(place) && has_moved {
                its.take_cursor(*cursor, self.terms.may_be_ahead)?;
            }
        }
        self.cursors = cursors;
        Ok(())
    }

    /// Notes the epoch of an answer. Ids of another one must be reset.
    pub fn enter_epoch(&mut self, epoch: &str) {
        let is_other = self.epoch.as_ref().is_some_and(|its| its != epoch);
        for its in &mut self.subscriptions {
            its.is_stale |= is_other && its.id().is_some();
        }
        if is_other || self.epoch.is_none() {
            self.epoch = Some(epoch.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Position that is of another numbering.
    const STALE: Since = Since::Id(3);

    fn message(id: u64, kind: &str) -> Value {
        json!({"id": id, "type": kind, "time": 1, "from": 1, "message": "m"})
    }

    #[test]
    fn a_slice_continues_exactly_where_the_read_began() {
        use Since::{All, Id, Last, Next};
        // The ids of introductions that come first, and of messages; the next id is 6.
        let cases: [(_, &[u64], &[u64], _, _); 18] = [
            (Id(4), &[], &[4, 5], "", true),
            (Id(4), &[], &[3, 4, 5], "", false),
            (Id(4), &[], &[5], "", false),
            (Id(4), &[], &[5], "reset", false),
            (Id(4), &[], &[4, 5], "missed", false),
            (Id(4), &[2], &[4, 5], "", false),
            (Id(4), &[], &[5], "missed", true),
            (Id(4), &[], &[], "missed", true),
            // Only an id of another numbering, or one that is too large, is reset.
            (STALE, &[1], &[3, 4, 5], "reset", true),
            (STALE, &[], &[3, 4, 5], "", false),
            (All, &[], &[4, 5], "reset", false),
            (Id(7), &[], &[], "reset", true),
            // Only a read from the beginning gets dropped introductions, and no other messages.
            (All, &[1, 3], &[5], "", true),
            (All, &[], &[2, 5], "", false),
            (Last(2), &[3], &[5], "", false),
            (Next(0), &[], &[5], "missed", false),
            (Next(5), &[], &[4, 5], "", false),
            (Next(4), &[], &[5], "", true),
        ];
        for (since, dropped, ids, flag, is_right) in cases {
            let dropped_messages = dropped.iter().map(|id| message(*id, "introduction"));
            let messages = dropped_messages.chain(ids.iter().map(|id| message(*id, "message")));
            let mut answer = json!({"messages": messages.collect::<Vec<_>>(), "next_id": 6});
            if !flag.is_empty() {
                answer[flag] = true.into();
            }
            let mut its = Subscription::new(0, "c", since);
            its.is_stale = since == STALE;
            let terms = Terms { may_be_ahead: since == Id(7), is_stream: false };
            let taken = its.take_slice(&Slice::parse(&answer).unwrap(), terms);
            assert_eq!(taken.is_ok(), is_right, "{since:?}: {dropped:?} {ids:?} {flag}");
            assert!(!is_right || its.since == Id(6), "{since:?}: {its:?}");
        }
    }

    #[test]
    fn an_event_is_the_next_one_or_follows_a_gap() {
        let taken = |its: &mut Subscription, id, kind, cursor| {
            its.take_message(&Message::parse(&message(id, kind)).unwrap(), cursor)
        };
        let mut its = Subscription::new(0, "c", Since::All);
        taken(&mut its, 2, "introduction", 0).unwrap();
        assert!(taken(&mut its.clone(), 2, "introduction", 0).is_err(), "twice");
        assert!(taken(&mut its.clone(), 3, "message", 0).is_err(), "a dropped message");
        assert!(taken(&mut its.clone(), 3, "introduction", 3).is_err(), "another cursor");
        taken(&mut its, 5, "message", 6).unwrap();
        assert!(taken(&mut its.clone(), 7, "message", 8).is_err(), "a gap");
        its.take_gap();
        assert!(taken(&mut its.clone(), 6, "message", 7).is_err(), "no gap");
        taken(&mut its, 8, "message", 9).unwrap();
        assert!(its.take_reset(false).is_err());
        its.is_stale = true;
        assert!(taken(&mut its.clone(), 9, "message", 10).is_err(), "no reset");
        its.take_reset(false).unwrap();
        taken(&mut its, 1, "message", 2).unwrap();
        let mut now = Subscription::new(0, "c", Since::Next(3));
        assert!(now.clone().take_cursor(2, false).is_err());
        now.take_cursor(4, false).unwrap();
        assert!(taken(&mut now, 5, "message", 6).is_err(), "not the one of the cursor");
        let mut dropped = Subscription::new(0, "c", Since::All);
        taken(&mut dropped, 2, "introduction", 7).unwrap();
        assert!(taken(&mut dropped, 8, "message", 9).is_err(), "not the one of the cursor");
    }

    #[test]
    fn a_cursor_loses_nothing_that_is_still_to_come() {
        let cases = [
            (Since::Id(4), 4, true),
            (Since::Id(4), 0, false),
            (Since::Id(4), 5, false),
            (Since::All, 0, true),
            (Since::All, 7, true),
            (Since::All, -1, false),
            (Since::Last(3), 2, true),
            (Since::Last(3), -3, false),
            (Since::Last(3), 0, false),
            (Since::Next(0), 1, true),
            (Since::Next(0), 0, false),
        ];
        for (since, cursor, is_right) in cases {
            let taken = Subscription::new(0, "c", since).take_cursor(cursor, false);
            assert_eq!(taken.is_ok(), is_right, "{since:?} {cursor}");
        }
        Subscription::new(0, "c", Since::Id(4)).take_cursor(1, true).unwrap();
        let [mut one, mut two] = [Since::Last(2), Since::All].map(|since| {
            Reader::new(vec![Subscription::new(0, "a", since), Subscription::new(1, "b", since)])
        });
        one.take_cursors(vec![5, 1], None).unwrap();
        assert_eq!(one.subscriptions[1].since, Since::Id(1));
        assert!(one.take_cursors(vec![6, 2], Some(0)).is_err(), "a message of b is lost");
        two.take_cursors(vec![0, 0], None).unwrap();
        assert!(two.take_cursors(vec![0], Some(0)).is_err(), "one for each channel");
    }
}
