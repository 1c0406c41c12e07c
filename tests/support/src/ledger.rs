//! The black-box ledger: all that clients see is held against itself, and against what they did.
//!
//! Knows no sockets, and of the time only what [`Clock`] says.
//! The first sight of an id fixes its message; all later ones must be the same.
//! As soon as all ids before it were seen too, a message is judged in its order: whether its sender
//! sent it once and in order, and whether a goodbye belongs to a member that was to go.
//!
//! Its memory is bounded: the last ids of each channel, and the sessions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::mem;

use crate::channel::{Answered, Channel, Entry, Member};
use crate::ensure;
use crate::fault::{Checked, Fault};
use crate::message::{Kind, Message, Reason, digest};
use crate::session::{Session, Verdict};
use crate::text::Text;

/// Ids of a faulty channel that are shown.
const SHOWN: usize = 25;
/// No reader is ever so far ahead of the others.
const AHEAD_MAX: u64 = 100_000;
/// The server stamps messages with the time at which its turn began, in whole milliseconds.
const STAMP_SLACK_MS: u64 = 5;

/// Knowledge of the time at which a message that is seen now was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Clock {
    /// The message's own time is close to it.
    #[default]
    Stamps,
    /// It is between these two.
    Between(u64, u64),
}

/// Knowledge of the observer, which differs between tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// `--connection-timeout`.
    pub timeout_ms: u64,
    /// `--close-grace`.
    pub grace_ms: u64,
    /// Messages of a channel that are certainly retained. `None` if that is not known.
    pub history: Option<u64>,
    /// Each text is a [`Text`].
    pub has_own_texts: bool,
    /// The ledger learns of all that may end a session.
    pub knows_ends: bool,
    /// The time of messages never jumps.
    pub has_steady_clock: bool,
}

/// A fault, unless the machine was too slow, or a response crossed a closing.
#[derive(Debug)]
pub struct PossibleViolation {
    pub fault: Fault,
    /// Time at which a read was closed, and its cursors.
    crossing: Option<(u64, Vec<(usize, u64)>)>,
}

#[derive(Default)]
pub struct Ledger {
    pub(crate) rules: Rules,
    pub clock: Clock,
    /// Epoch of the server, once an answer has named it.
    pub epoch: Option<String>,
    pub(crate) past_epochs: Vec<String>,
    pub channels: Vec<Channel>,
    /// Sessions that were introduced, by number.
    pub sessions: BTreeMap<u64, Session>,
    /// Texts that must not appear, and why.
    forbidden: HashMap<(u32, u32), &'static str>,
    /// Channel and id of each message that a client has removed.
    removed: BTreeSet<(usize, u64)>,
    /// Channel and session of each kick.
    kicked: BTreeSet<(usize, u64)>,
    /// Channel and id of each text.
    places: HashMap<(u32, u32), (usize, u64)>,
    pub possible_violations: Vec<PossibleViolation>,
    /// Times from which servers recovered what an earlier one had acknowledged.
    recoveries: Vec<u64>,
    /// Highest number of a session, and the highest before the last recovery.
    highest: u64,
    highest_before: u64,
    /// Number of messages that readers got.
    pub sights: u64,
    /// Number of goodbyes that were judged, by reason.
    pub goodbyes: BTreeMap<Reason, u64>,
    /// Number of introductions that were judged.
    pub introductions: u64,
    /// Number of ids that no reader saw.
    pub unseen_ids: u64,
}

impl Ledger {
    pub fn new(channels: usize, rules: Rules) -> Self {
        let channels = (0..channels).map(|_| Channel::default()).collect();
        Self { rules, channels, ..Self::default() }
    }

    /// Adds a channel, and returns its index.
    pub fn add_channel(&mut self) -> usize {
        self.channels.push(Channel::default());
        self.channels.len() - 1
    }

    /// The server was started without its memory: ids begin with 1 in another epoch.
    pub fn forget_all(&mut self) {
        for its in &mut self.channels {
            *its = Channel { is_large: its.is_large, ..Channel::default() };
        }
        self.sessions.clear();
        self.forbidden.clear();
        self.removed.clear();
        self.kicked.clear();
        self.places.clear();
        self.possible_violations.clear();
        self.past_epochs.extend(self.epoch.take());
        (self.highest, self.highest_before) = (0, 0);
        self.recoveries.clear();
    }

    /// A server crashed, and another one began at that time or later. It has all that was
    /// acknowledged, gives no number again, and gives each session the timeout to come back.
    /// No response of the earlier one is under way.
    pub fn recovered(&mut self, at_ms: u64) {
        self.recoveries.push(at_ms);
        self.highest_before = self.highest;
    }

    /// Nothing is under way: texts of the past and sessions that ended need not be remembered.
    pub fn forget_past(&mut self) {
        for its in &mut self.channels {
            its.last_seqs = HashMap::new();
            its.gone.clear();
        }
        self.forbidden.clear();
        self.places.clear();
        self.recoveries.clear();
        self.sessions.retain(|_, it| it.ended.is_none() || !it.channels.is_empty());
    }

    /// Another process takes over: a closing that only its predecessor sees may come as silence.
    pub fn unsettle_closings(&mut self) {
        self.sessions.values_mut().for_each(Session::unsettle);
    }

    /// This text must not appear, for as long as it is not permitted.
    pub fn forbid(&mut self, text: Text, why: &'static str) -> Checked {
        let place = self.places.get(&text.key());
        ensure!(place.is_none(), "{text:?} is at {place:?}, and {why}");
        self.forbidden.insert(text.key(), why);
        Ok(())
    }

    pub fn permit(&mut self, text: Text) {
        self.forbidden.remove(&text.key());
    }

    /// A client removes a message: readers may get it without a text from now on.
    pub fn may_remove(&mut self, channel: usize, id: u64) {
        self.removed.insert((channel, id));
    }

    /// A client sends a session away from a channel.
    pub fn may_kick(&mut self, channel: usize, session: u64) {
        self.kicked.insert((channel, session));
    }

    /// A response named the id of a message.
    pub fn answered(
        &mut self,
        (channel, id): (usize, u64),
        kind: Kind,
        from: Option<u64>,
        text: &str,
    ) -> Checked {
        ensure!((1..1 << 53).contains(&id), "{id} is not an id");
        let content = Answered { kind, from, digest: digest(text), text: self.own_text(text) };
        let is_removed = self.removed.contains(&(channel, id));
        let its = &mut self.channels[channel];
        let is_new = match its.entry_mut(id) {
            // It was removed before its response came.
            Some(entry)
                if entry.content != content
                    && !(is_removed && entry.content.is_blank() && entry.content.from == from) =>
            {
                let what = format!("id {id} was promised for {content:?}, and is {entry:?}");
                return Err(Fault::within(channel, what));
            }
            Some(entry) => !mem::replace(&mut entry.is_answered, true),
            None => id <= its.judged || its.answered.insert(id, content).is_none(),
        };
        ensure!(is_new, "id {id} of channel {channel} was given twice");
        Ok(())
    }

    fn own_text(&self, text: &str) -> Option<Text> {
        self.rules.has_own_texts.then(|| Text::parse(text)).flatten()
    }

    /// An introduction succeeded, of a new session or of one that a client already has.
    /// If the session is kept alive and times out all the same, the verdict is `timeout`.
    pub fn introduced(
        &mut self,
        (number, is_new): (u64, bool),
        at_ms: u64,
        place: (usize, u64),
        text: &str,
        timeout: Verdict,
    ) -> Checked {
        let session = self.sessions.entry(number).or_insert_with(|| Session::new(at_ms));
        let is_right = is_new != session.is_claimed || session.ended.is_some();
        ensure!(is_right, "session {number} was given to two clients, or to none");
        self.highest = self.highest.max(number);
        if is_new {
            let before = self.highest_before;
            let is_unused = number > before;
            ensure!(is_unused, "session {number} was given after a crash, and {before} before");
            session.claim(timeout);
            session.lived(at_ms);
        }
        self.answered(place, Kind::Introduction, Some(number), text)
    }

    /// A reader got a message.
    pub fn see(&mut self, channel: usize, message: &Message) -> Checked {
        self.sights += 1;
        let (id, digest_of_all) = (message.id, digest(message));
        let is_blank = message.kind == Kind::Removed
            || (message.kind == Kind::Introduction && message.text == Some(""));
        let is_removed = self.removed.contains(&(channel, id));
        ensure!(is_removed || message.kind != Kind::Removed, "no client removed it: {message:?}");
        let its = &mut self.channels[channel];
        if let Some(entry) = its.entry_mut(id).copied() {
            let is_same = entry.digest == digest_of_all
                || (self.removed.contains(&(channel, id))
                    && (entry.time, entry.content.from) == (message.time, message.from));
            ensure!(is_same, "id {id} is {entry:?} for one reader, and {message:?} for another");
            return Ok(());
        }
        if id <= its.judged {
            // No reader saw it when it was new, or it is too long ago.
            return Ok(());
        }
        ensure!(id < its.judged + AHEAD_MAX, "far beyond id {}: {message:?}", its.judged);
        let text = self.check_text(channel, message)?;
        let content = Answered {
            kind: message.kind,
            from: message.from,
            digest: digest(message.text.unwrap_or_default()),
            text,
        };
        let its = &mut self.channels[channel];
        let promised = its.answered.remove(&id);
        let is_kept =
            promised.is_none_or(|promised| promised == content) || (is_removed && is_blank);
        ensure!(is_kept, "id {id} was promised for {promised:?}, and is {content:?}");
        let made = match self.clock {
            Clock::Stamps => (message.time, message.time + STAMP_SLACK_MS),
            Clock::Between(earliest, latest) => (earliest, latest),
        };
        let (time, is_answered) = (message.time, promised.is_some());
        its.put(id, Entry { content, time, digest: digest_of_all, is_answered, made });
        self.judge(channel)
    }

    /// Checks a text by itself, if texts name their sender and channel.
    fn check_text(&mut self, channel: usize, message: &Message) -> Checked<Option<Text>> {
        if !self.rules.has_own_texts {
            return Ok(None);
        }
        let is_goodbye = matches!(message.kind, Kind::Goodbye(_));
        let Some(text) = message.text.and_then(Text::parse) else {
            let has_none = is_goodbye || matches!(message.kind, Kind::Removal(_) | Kind::Removed);
            let is_blank =
                message.text == Some("") && self.removed.contains(&(channel, message.id));
            let is_right = (has_none && message.text.is_none()) || is_blank;
            ensure!(is_right, "a text that no client sent, or a changed one: {message:?}");
            return Ok(None);
        };
        let is_for_all = is_goodbye && text.channel == Text::EVERY_CHANNEL;
        ensure!(text.channel as usize == channel || is_for_all, "of another channel: {message:?}");
        let from = message.from.unwrap_or(0);
        let is_first = message.kind == Kind::Introduction && text.from == 0;
        ensure!(is_first && from > 0 || from == text.from, "from another session: {message:?}");
        let why = self.forbidden.get(&text.key());
        ensure!(why.is_none(), "a message that must not be, {}: {message:?}", why.unwrap_or(&""));
        if !is_for_all {
            let place = (channel, message.id);
            let first = *self.places.entry(text.key()).or_insert(place);
            ensure!(first == place, "a text that is also at {first:?}: {message:?}");
        }
        Ok(Some(text))
    }

    /// No reader will see ids before this one that were not seen yet.
    pub fn skip_to(&mut self, channel: usize, id: u64) -> Checked {
        self.judge(channel)?;
        while self.channels[channel].judged + 1 < id {
            self.forget_members(channel, true);
            let its = &mut self.channels[channel];
            its.judged += 1;
            its.answered.remove(&its.judged);
            self.unseen_ids += 1;
            self.judge(channel)?;
        }
        Ok(())
    }

    /// Readers may have missed something in this channel, so that its members are not known any
    /// more. Without `has_gaps`, it is known to have no members.
    pub fn forget_members(&mut self, channel: usize, has_gaps: bool) {
        let its = &mut self.channels[channel];
        its.has_gaps = has_gaps;
        its.gone.clear();
        for number in mem::take(&mut its.members).into_keys() {
            if let Some(session) = self.sessions.get_mut(&number) {
                session.channels.remove(&channel);
            }
        }
    }

    /// Judges all that was seen, also after ids that no reader saw.
    pub fn finish(&mut self) -> Checked {
        for channel in 0..self.channels.len() {
            self.skip_to(channel, self.channels[channel].last_seen_id() + 1)?;
        }
        Ok(())
    }

    /// Judges, in their order, all messages that may be.
    fn judge(&mut self, channel: usize) -> Checked {
        loop {
            let its = &mut self.channels[channel];
            let id = its.judged + 1;
            let Some(entry) = its.entry_mut(id).copied() else { break };
            its.judged = id;
            if let Some(Text { sender, seq, .. }) = entry.content.text {
                let last = its.last_seqs.insert(sender, seq);
                let is_next = last.is_none_or(|last| last < seq);
                ensure!(is_next, "id {id} after text {last:?} of its sender: {entry:?}");
            }
            let judged = match entry.content.kind {
                Kind::Message => Ok(()),
                Kind::Removal(of) if of < id => Ok(()),
                Kind::Removal(_) => {
                    let what = format!("id {id} removes what comes later: {entry:?}");
                    Err(Fault::within(channel, what))
                }
                Kind::Removed => {
                    // No reader saw what it was: an introduction, perhaps, or a goodbye.
                    self.forget_members(channel, true);
                    Ok(())
                }
                Kind::Introduction => self.welcome((channel, id), &entry),
                Kind::Goodbye(reason) => self.part((channel, id), &entry, reason),
            };
            judged.map_err(|fault| fault.or_within(channel))?;
        }
        self.channels[channel].trim();
        Ok(())
    }

    fn welcome(&mut self, (channel, id): (usize, u64), entry: &Entry) -> Checked {
        let number = entry.content.from.unwrap_or(0);
        self.introductions += 1;
        self.highest = self.highest.max(number);
        let session = self.sessions.entry(number).or_insert_with(|| Session::new(entry.made.0));
        let is_after = |ended: (Reason, u64)| self.rules.has_steady_clock && entry.time > ended.1;
        let is_late = session.ended_in.contains(&channel) || session.ended.is_some_and(is_after);
        ensure!(!is_late, "session {number} is introduced by id {id} after its end: {session:?}");
        session.alive_most_ms = session.alive_most_ms.max(entry.made.1);
        session.channels.insert(channel);
        session.enter_or_leave(channel);
        let its = &mut self.channels[channel];
        its.members.insert(number, Member { id, text: entry.content.text });
        its.gone.remove(&number);
        Ok(())
    }

    fn part(&mut self, (channel, id): (usize, u64), entry: &Entry, reason: Reason) -> Checked {
        let number = entry.content.from.unwrap_or(0);
        *self.goodbyes.entry(reason).or_default() += 1;
        let its = &mut self.channels[channel];
        let is_right = its.members.remove(&number).is_some() || its.has_gaps;
        let is_first = its.gone.insert(number);
        let session = self.sessions.get_mut(&number);
        ensure!(
            is_right && is_first,
            "id {id} is a goodbye of {number}, which is not a member (any more): {session:?}"
        );
        let Some(session) = session else { return Ok(()) };
        session.channels.remove(&channel);
        let Rules { timeout_ms, grace_ms, knows_ends, .. } = self.rules;
        let leave = session.leaves.iter().position(|left| *left == channel);
        if reason == Reason::Removed {
            let is_meant = self.kicked.contains(&(channel, number)) || !knows_ends;
            ensure!(is_meant, "id {id}: {number} was kicked by no client: {session:?}");
            session.enter_or_leave(channel);
            return Ok(());
        }
        if reason == Reason::Left && (leave.is_some() || !knows_ends) {
            // It left this channel alone, or may have.
            leave.map(|leave| session.leaves.swap_remove(leave));
            session.enter_or_leave(channel);
            return Ok(());
        }
        ensure!(
            !session.should_have_left(channel),
            "id {id}: {number} is a member still, and its goodbye was acknowledged: {session:?}"
        );
        let had_time = |from: &u64| entry.made.0 < *from || entry.made.1 >= from + timeout_ms;
        ensure!(
            reason != Reason::Timeout || self.recoveries.iter().all(had_time),
            "id {id}: {number} timed out too soon after a crash: {session:?}"
        );
        let end = (reason, entry.time);
        let is_first = session.ended.is_none();
        ensure!(
            is_first || session.ended == Some(end),
            "session {number} ends in two ways, one of them {end:?} by id {id}: {session:?}"
        );
        session.ended = Some(end);
        session.ended_in.push(channel);
        let verdict = session.judge(reason, entry.made.1, (timeout_ms, grace_ms));
        if !knows_ends || verdict == Verdict::Meant {
            return Ok(());
        }
        let fault = |why| {
            let what = format!("id {id} is a goodbye of {number}, {end:?}: {session:?}");
            Fault::within(channel, format!("{why}: {what}"))
        };
        let (fault, crossing) = match verdict {
            Verdict::IfCrossed { at_ms, ref cursors } => {
                let crossing = Some((at_ms, cursors.clone()));
                (fault("the closing of a pending read was not noticed"), crossing)
            }
            Verdict::IfSlow => (fault("no client meant this, and nothing was slow"), None),
            Verdict::Meant | Verdict::Wrong => return Err(fault("no client meant this")),
        };
        if is_first {
            self.possible_violations.push(PossibleViolation { fault, crossing });
        }
        Ok(())
    }

    pub fn note_possible_violation(&mut self, what: impl Into<String>) {
        self.possible_violations
            .push(PossibleViolation { fault: Fault::new(what), crossing: None });
    }

    /// Says whether a response came for a read before it was closed, unseen by its reader.
    pub fn is_crossed(&self, violation: &PossibleViolation) -> bool {
        let Some((at_ms, cursors)) = &violation.crossing else { return false };
        cursors.iter().any(|(channel, id)| {
            let its = &self.channels[*channel];
            // An id that is too long ago: there was more, without doubt.
            let time = its.entry(*id).map(|entry| entry.time);
            *id <= its.forgotten || time.is_some_and(|time| time <= at_ms + STAMP_SLACK_MS)
        })
    }

    /// Returns the id after the highest that a reader saw, or that a response named.
    pub fn next_id(&self, channel: usize) -> u64 {
        let its = &self.channels[channel];
        let answered = its.answered.last_key_value().map_or(0, |(id, _)| *id);
        its.last_seen_id().max(answered) + 1
    }

    /// Returns the first message that a response promised and no reader saw.
    pub fn unseen(&self) -> Option<Fault> {
        (0..).zip(&self.channels).find_map(|(channel, its)| {
            let (id, promised) = its.answered.first_key_value()?;
            let what = format!("id {id} was promised for {promised:?}, and no reader saw it");
            Some(Fault::within(channel, what))
        })
    }

    /// Returns the first message or goodbye that readers should have seen, where nothing is under
    /// way.
    pub fn owed(&self) -> Option<Fault> {
        let channels = (0..).zip(&self.channels).filter(|(_, its)| !its.has_gaps);
        let mut members = channels.flat_map(|(at, its)| its.members.keys().map(move |it| (at, it)));
        let lives = |it: &Session| it.lives && it.ended.is_none();
        self.unseen().or_else(|| {
            let (channel, number) =
                members.find(|(_, number)| !self.sessions.get(number).is_some_and(lives))?;
            let session = self.sessions.get(number);
            let what =
                format!("session {number} is a member still, without a goodbye: {session:?}");
            Some(Fault::within(channel, what))
        })
    }

    /// Describes the last messages of a channel.
    pub fn describe(&self, channel: usize) -> String {
        let its = &self.channels[channel];
        let (next_id, members) = (its.judged + 1, its.members.keys());
        let mut text = format!("  all before id {next_id} is judged; members: {members:?}\n");
        let ids = (its.forgotten + 1..).zip(&its.entries);
        for (id, entry) in ids.skip(its.entries.len().saturating_sub(SHOWN)) {
            _ = match entry {
                Some(Entry { content: Answered { kind, from, text: its, .. }, time, .. }) => {
                    let key = its.map(|its| its.key());
                    writeln!(text, "  {id}: {kind:?} at {time} from {from:?}, text {key:?}")
                }
                None => writeln!(text, "  {id}: not seen"),
            };
        }
        text
    }
}
