//! The model's half that streams: after what a stream begins with, it is always owed what a read would get that
//! asks with its cursors.

use speak::hub::{self, Since};

use super::answers::Expected;
use super::message::{Answer, Part};
use super::model::Model;
use super::reads::{Read, Waiting};

/// Streams.
impl Model {
    /// A stream that was given what it begins with.
    pub(super) fn stream(
        &self,
        ask: &Read,
        connection: Option<u64>,
        begins_with: &Answer,
    ) -> Waiting {
        let mut read = Waiting { is_stream: true, ..Waiting::new(ask, connection) };
        self.is_open(&mut read, begins_with);
        for (what, holds) in [
            ("stream began behind", read.is_behind),
            ("stream began with a reset", begins_with.iter().any(|part| part.reset)),
            ("stream began with a gap", begins_with.iter().any(|part| part.missed)),
            (
                "stream began with messages",
                begins_with.iter().any(|part| !part.messages.is_empty()),
            ),
            ("stream began with nothing", begins_with.iter().all(Part::is_nothing)),
        ] {
            self.tally.count_if(holds, what);
        }
        read
    }

    pub(super) fn is_open(&self, read: &mut Waiting, answer: &Answer) {
        for (seat, part) in read.seats.iter_mut().zip(answer) {
            (seat.since, seat.cursor) = (Since::Id(part.next_id), part.next_id);
        }
        read.is_behind = read.seats.iter().any(|seat| seat.cursor < self.next_id(seat.channel));
    }

    /// A stream follows other channels, as one that begins now, but for its client and its connection.
    pub(crate) fn follow_anew(&mut self, ask: &Read) -> Result<Answer, hub::Error> {
        let caller = self.prove_maybe(ask.shown.as_ref())?;
        self.have_room(&ask.channels())?;
        let answer = self.cut(self.drafts(ask));
        let place =
            self.waiting.iter().position(|read| read.client == ask.client).expect("it streams");
        let old = self.waiting.remove(place);
        self.waited(&old);
        for channel in ask.channels() {
            self.channels[channel].exists = true;
            self.used(channel);
        }
        let new = Waiting { is_orphan: old.is_orphan, ..self.stream(ask, old.connection, &answer) };
        for (what, holds) in [
            ("orphaned stream followed anew", old.is_orphan),
            ("stream behind followed anew", old.is_behind),
            ("stream followed the same anew", old.channels() == new.channels()),
            ("stream followed others anew", old.channels() != new.channels()),
            (
                "stream followed anew for another connection",
                caller.is_some() && caller != old.connection,
            ),
            (
                "stream with a connection followed anew without",
                caller.is_none() && old.connection.is_some(),
            ),
        ] {
            self.tally.count_if(holds, what);
        }
        self.waiting.push(new);
        self.keep_alive(caller);
        Ok(answer)
    }

    /// A client is slow to take what its stream was given: it is told no more before it has.
    pub(crate) fn put_off(&mut self, client: u64) {
        let read = self.waiting.iter_mut().find(|read| read.client == client).expect("it streams");
        self.tally.count(if read.is_behind { "stream behind put off" } else { "stream put off" });
        read.is_behind = true;
    }

    /// A client has taken what its stream was given. What it gets next, if it was not given all.
    pub(crate) fn resume(&mut self, client: u64) -> Option<Answer> {
        let place = self.waiting.iter().position(|read| read.client == client);
        let Some(place) = place.filter(|place| self.waiting[*place].is_behind) else {
            self.tally.count("resume of one that is not behind");
            return None;
        };
        if !self.draft_for_waiting(&self.waiting[place]).iter().any(Expected::is_news) {
            self.tally.count("stream resumed with nothing");
            self.waiting[place].is_behind = false;
            return None;
        }
        let mut read = self.waiting.remove(place);
        let answer = self.cut(self.draft_for_waiting(&read));
        self.is_open(&mut read, &answer);
        for (what, holds) in [
            ("stream resumed, and no longer behind", !read.is_behind),
            ("stream resumed, and still behind", read.is_behind),
            ("stream resumed, and told of a gap", answer.iter().any(|part| part.missed)),
            ("orphaned stream resumed", read.is_orphan),
        ] {
            self.tally.count_if(holds, what);
        }
        self.waiting.insert(place, read);
        Some(answer)
    }

    pub(crate) fn streaming_clients(&self) -> Vec<u64> {
        self.waiting.iter().filter(|read| read.is_stream).map(|read| read.client).collect()
    }

    pub(crate) fn clients_behind(&self) -> Vec<u64> {
        self.waiting.iter().filter(|read| read.is_behind).map(|read| read.client).collect()
    }

    pub(super) fn tally_told(&self, read: &Waiting, answer: &Answer, news: usize) {
        let is_cut = answer
            .iter()
            .zip(&read.seats)
            .any(|(part, seat)| part.next_id < self.next_id(seat.channel));
        for (what, holds) in [
            ("stream told", true),
            ("stream told for one of several channels", news == 1 && answer.len() > 1),
            ("stream told for several channels", news > 1),
            ("stream told of a gap", answer.iter().any(|part| part.missed)),
            ("stream fell behind", is_cut),
            ("orphaned stream told its goodbye", read.is_orphan),
        ] {
            self.tally.count_if(holds, what);
        }
    }

    /// A stream is not told of what this turn brought.
    pub(super) fn tally_behind(&self, read: &Waiting) {
        let changed = self.changed();
        let is_owed = changed
            .iter()
            .any(|(channel, _)| read.seats.iter().any(|seat| seat.channel == *channel));
        self.tally.count_if(is_owed, "stream behind not told");
        self.tally.count_if(read.is_orphan, "stream behind ended with its connection");
    }
}
