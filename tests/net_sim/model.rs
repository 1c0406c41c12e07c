//! The ledger of the simulation, and the facts about sessions that only exact time shows.

use std::collections::{BTreeMap, VecDeque};

use support::ledger::{Ledger, Rules};
use support::session::{Session, Verdict};
use support::text::Text;

use crate::peer::Request;

/// A session with its credentials. Times in milliseconds.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) auth: String,
    /// A goodbye to all channels was answered.
    pub(crate) has_left: bool,
    /// Reason for which it has to have ended by the time that the loop sleeps.
    pub(crate) must_have_ended: Option<&'static str>,
    /// Time of the last turn in which another of its calls was under way.
    pub(crate) busy_at: u64,
    /// Time at which its last pending read was closed, and its grace, unless the reads that ended
    /// then may keep it alive.
    pub(crate) closed: Option<(u64, u64)>,
}

pub(crate) struct Model {
    pub(crate) ledger: Ledger,
    pub(crate) known: BTreeMap<u64, Known>,
    /// Time at which something last waited for a disk that lags: calls of clients that are gone
    /// count as signs of their sessions until then.
    pub(crate) awaited_disk_at: u64,
    /// Ends of sessions may wait for the disk, decided before a stream ends after its life.
    pub(crate) may_end: bool,
    /// Time at which the loop last slept.
    pub(crate) slept_at: u64,
    /// `--close-grace`, which the ledger adds to the time of each closing.
    close_grace: u64,
}

impl Model {
    pub(crate) fn new(channels: usize, rules: Rules) -> Self {
        let (ledger, close_grace) = (Ledger::new(channels, rules), rules.grace_ms);
        Self {
            ledger,
            known: BTreeMap::new(),
            awaited_disk_at: 0,
            may_end: false,
            slept_at: 0,
            close_grace,
        }
    }

    /// Returns a session whose credentials a client has.
    pub(crate) fn known(&mut self, number: u64) -> &mut Known {
        self.known.get_mut(&number).expect("its credentials are known")
    }

    pub(crate) fn session(&mut self, number: u64) -> &mut Session {
        self.ledger.sessions.get_mut(&number).expect("its introduction was answered")
    }

    /// An introduction was answered; it was done at `done_at` at the earliest.
    pub(crate) fn introduced(
        &mut self,
        (number, is_new): (u64, bool),
        auth: &str,
        done_at: u64,
        text: Text,
        id: u64,
    ) {
        let place = (text.channel as usize, id);
        let text = text.write();
        self.ledger.introduced((number, is_new), done_at, place, &text, Verdict::Meant).unwrap();
        let known = self.known.entry(number).or_default();
        assert!(known.auth.is_empty() || known.auth == auth, "a session has one auth code");
        auth.clone_into(&mut known.auth);
    }

    /// A call with the credentials of a session succeeded, between these times.
    pub(crate) fn lived(&mut self, number: u64, done_at: u64, now: u64) {
        let session = self.session(number);
        session.lived(done_at);
        session.alive_most_ms = now;
        self.known(number).busy_at = now;
    }

    /// The client of a pending read of a session may close, with the longer of both graces.
    pub(crate) fn may_close(&mut self, number: u64, now: u64, grace: u64) {
        let longer_ms = grace - self.close_grace;
        self.session(number).closings.push(now + longer_ms);
    }

    pub(crate) fn refuse(&mut self, request: &Request) {
        if let Some(text) = request.text {
            self.ledger.forbid(text, "its request was refused").unwrap();
        }
    }

    pub(crate) fn refuse_all(&mut self, requests: &mut VecDeque<Request>) {
        requests.drain(..).for_each(|request| self.refuse(&request));
    }

    /// Says whether a session has ended, as far as clients know.
    pub(crate) fn is_ended(&self, number: u64) -> bool {
        let has_ended =
            self.ledger.sessions.get(&number).is_some_and(|session| session.ended.is_some());
        has_ended || self.known.get(&number).is_some_and(|known| known.has_left)
    }

    /// Says whether a session is a member of no channel any more.
    pub(crate) fn is_over(&self, number: u64) -> bool {
        let has_none = |session: &Session| session.channels.is_empty();
        self.is_ended(number) || self.ledger.sessions.get(&number).is_none_or(has_none)
    }

    pub(crate) fn goodbyes(&self) -> u64 {
        self.ledger.goodbyes.values().sum()
    }
}
