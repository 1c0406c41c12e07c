//! Streams in the model: after its first answer, a stream gets what a read would get that asks with
//! its cursors.

use speak::hub::{self, Since};

use super::answers::Expected;
use super::message::{Answer, Part};
use super::model::Model;
use super::pending::{Pending, Read};

impl Model {
    /// Returns a stream after its first answer.
    pub(super) fn stream(&self, ask: &Read, session: Option<u64>, begins_with: &Answer) -> Pending {
        let mut read = Pending { is_stream: true, ..Pending::new(ask, session) };
        self.advance(&mut read, begins_with);
        self.tally.count_those(&[
            ("stream began paused", read.is_paused),
            ("stream began with a reset", begins_with.iter().any(|part| part.reset)),
            ("stream began with a gap", begins_with.iter().any(|part| part.missed)),
            ("stream began with messages", begins_with.iter().any(|it| !it.messages.is_empty())),
            ("stream began with nothing", begins_with.iter().all(Part::is_nothing)),
        ]);
        read
    }

    /// A stream was sent an answer, and continues after it.
    pub(super) fn advance(&self, read: &mut Pending, answer: &Answer) {
        for (its, part) in read.subscriptions.iter_mut().zip(answer) {
            (its.since, its.cursor) = (Since::Id(part.next_id), part.next_id);
        }
        read.is_paused =
            read.subscriptions.iter().any(|its| its.cursor < self.next_id(its.channel));
    }

    /// A stream follows other channels, as one that begins now, except for its client. Its session
    /// stays, unless the call shows another one.
    pub(crate) fn resubscribe(&mut self, ask: &Read) -> Result<Answer, hub::Error> {
        let caller = self.authenticate_reader(ask.shown.as_ref())?;
        self.make_room(&ask.channels(), false)?;
        let answer = self.cut(self.expected(ask));
        let place =
            self.pending.iter().position(|read| read.client == ask.client).expect("it streams");
        let old = self.pending.remove(place);
        self.end_wait(&old);
        for channel in ask.channels() {
            self.channels[channel].exists = true;
            self.channels[channel].is_dropping = false;
            self.used(channel);
        }
        let new = Pending {
            is_orphan: old.is_orphan,
            is_ending: old.is_ending,
            grace_ms: ask.grace_ms.unwrap_or(old.grace_ms),
            ..self.stream(ask, caller.or(old.session), &answer)
        };
        self.tally.count_those(&[
            ("orphaned stream resubscribed", old.is_orphan),
            ("paused stream resubscribed", old.is_paused),
            ("stream resubscribed to the same", old.channels() == new.channels()),
            ("stream resubscribed to others", old.channels() != new.channels()),
            ("resubscribed for another session", caller.is_some() && caller != old.session),
            ("resubscribed without a session", caller.is_none() && old.session.is_some()),
        ]);
        self.pending.push(new);
        self.keep_alive(caller);
        Ok(answer)
    }

    /// A client is slow to take its stream: it is sent no more before it resumes.
    pub(crate) fn pause(&mut self, client: u64) {
        let read = self.pending.iter_mut().find(|read| read.client == client).expect("it streams");
        self.tally.count(if read.is_paused { "paused stream paused" } else { "stream paused" });
        read.is_paused = true;
    }

    /// The server ends a stream: it gets the messages of this turn, and its session stays.
    pub(crate) fn end_stream(&mut self, client: u64) {
        let read = self.pending.iter_mut().find(|read| read.client == client).expect("it streams");
        self.tally.count_those(&[
            ("stream ended by the server", read.session.is_some()),
            ("paused stream ended by the server", read.is_paused),
        ]);
        read.is_ending = true;
    }

    /// A client has taken all that was sent. Returns what it gets next, if it was not sent all.
    pub(crate) fn resume(&mut self, client: u64) -> Option<Answer> {
        let place = self.pending.iter().position(|read| read.client == client);
        let Some(place) = place.filter(|place| self.pending[*place].is_paused) else {
            self.tally.count("resume of a stream that is not paused");
            return None;
        };
        if !self.expect_pending(&self.pending[place]).iter().any(Expected::is_news) {
            self.tally.count("stream resumed with nothing");
            self.pending[place].is_paused = false;
            return None;
        }
        let mut read = self.pending.remove(place);
        let answer = self.cut(self.expect_pending(&read));
        self.advance(&mut read, &answer);
        self.tally.count_those(&[
            ("stream resumed, and no longer paused", !read.is_paused),
            ("stream resumed, and still paused", read.is_paused),
            ("stream resumed with a gap", answer.iter().any(|part| part.missed)),
            ("orphaned stream resumed", read.is_orphan),
        ]);
        self.pending.insert(place, read);
        Some(answer)
    }

    pub(super) fn tally_sent(&self, read: &Pending, answer: &Answer, news: usize) {
        let mut both = answer.iter().zip(&read.subscriptions);
        let is_cut = both.any(|(part, its)| part.next_id < self.next_id(its.channel));
        self.tally.count_those(&[
            ("stream sent", true),
            ("stream sent for one of several channels", news == 1 && answer.len() > 1),
            ("stream sent for several channels", news > 1),
            ("stream sent a gap", answer.iter().any(|part| part.missed)),
            ("stream left incomplete", is_cut),
            ("orphaned stream sent its goodbye", read.is_orphan),
        ]);
    }

    /// A paused stream is not sent the messages of this turn.
    pub(super) fn tally_paused(&self, read: &Pending) {
        let channels = read.channels();
        let is_owed = self.changed().iter().any(|(channel, _)| channels.contains(channel));
        self.tally.count_if(is_owed, "paused stream not sent");
        self.tally.count_if(read.is_orphan, "paused stream ended with its session");
    }
}
