//! Reads in the model: which are answered, which are pending, and which end.

use speak::hub::{self, Reason};

use super::answers::Expected;
use super::model::Model;
use super::pending::{Outcome, Pending, Read, Wait};
use super::plan::Limits;

impl Model {
    pub(super) fn readers(&self, channel: usize) -> usize {
        self.pending
            .iter()
            .filter(|read| read.subscriptions.iter().any(|its| its.channel == channel))
            .count()
    }

    pub(crate) fn read(&mut self, ask: &Read) -> Result<Outcome, hub::Error> {
        let session = self.authenticate_reader(ask.shown.as_ref())?;
        let expected = self.expected(ask);
        let pends = match ask.wait {
            Wait::Not => false,
            Wait::Ms(_) => !expected.iter().any(Expected::is_news),
            Wait::On => true,
        };
        let channels = ask.channels();
        if pends {
            self.make_room(&channels, false)?;
        }
        let answer = self.cut(self.expected(ask));
        for channel in &channels {
            self.channels[*channel].exists |= pends;
            self.channels[*channel].is_dropping &= !pends;
            if self.exists(*channel) {
                self.used(*channel);
            }
        }
        if session.is_some() {
            self.replace_older(ask, session);
        }
        self.keep_alive(session);
        Ok(match ask.wait {
            Wait::Ms(wait_ms) if pends => {
                let mut read = Pending::new(ask, session);
                for its in &mut read.subscriptions {
                    its.cursor = self.next_id(its.channel);
                }
                read.until_ms = Some(self.now_ms() + wait_ms);
                self.pending.push(read);
                Outcome::Pends
            }
            Wait::On => {
                let stream = self.stream(ask, session, &answer);
                self.pending.push(stream);
                Outcome::Streams(answer)
            }
            Wait::Ms(_) | Wait::Not => Outcome::Answer(answer),
        })
    }

    /// A long poll completes an older one of its session on the same channels; no other read does,
    /// and none other is completed.
    fn replace_older(&mut self, ask: &Read, session: Option<u64>) {
        let mut channels = ask.channels();
        channels.sort_unstable();
        let is_its = |read: &Pending| read.session == session;
        let same = |read: &Pending| is_its(read) && read.channels() == channels;
        let overlaps =
            |read: &Pending| read.channels().iter().any(|channel| channels.contains(channel));
        let (is_poll, is_stream) = (matches!(ask.wait, Wait::Ms(_)), ask.wait == Wait::On);
        let replaces = |read: &Pending| is_poll && !read.is_stream && same(read);
        let any = |which: &dyn Fn(&Pending) -> bool| self.pending.iter().any(which);
        self.tally.count_those(&[
            ("read replaced", any(&replaces)),
            (
                "read on overlapping channels not replaced",
                is_poll && any(&|its| is_its(its) && !same(its) && overlaps(its)),
            ),
            ("stream not replaced by a poll", is_poll && any(&|its| its.is_stream && same(its))),
            (
                "stream not replaced by a stream",
                is_stream && any(&|its| its.is_stream && same(its)),
            ),
            ("poll not replaced by a stream", is_stream && any(&|its| !its.is_stream && same(its))),
        ]);
        self.complete_empty(replaces);
    }

    /// A client with a pending read closes.
    pub(crate) fn close(&mut self, client: u64) {
        let Some(place) = self.pending.iter().position(|read| read.client == client) else {
            return;
        };
        let read = self.pending.remove(place);
        self.end_wait(&read);
        self.tally.count_if(
            read.is_stream && read.session.is_some(),
            "stream closed that carried a session",
        );
        let Some(number) = read.session else { return };
        let Limits { grace_ms, timeout_ms, .. } = self.limits;
        let its_grace_ms = read.grace_ms.min(timeout_ms);
        self.tally.count_if(its_grace_ms > grace_ms, "grace of a read");
        let grace_ms = grace_ms.max(its_grace_ms);
        if grace_ms == 0 {
            return self.end_or_propose(number, Reason::Closed);
        }
        let at_ms = self.now_ms() + grace_ms;
        let session = self.sessions.get_mut(&number).expect("a pending read has it");
        self.tally.count(if session.closes_at_ms.is_some() {
            "grace asked for again"
        } else {
            "grace began"
        });
        session.closes_at_ms = Some(session.closes_at_ms.unwrap_or(at_ms).min(at_ms));
    }
}
