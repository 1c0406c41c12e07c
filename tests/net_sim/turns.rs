//! Turns of the loop, and the time between them.

use speak::hub::Millis;
use speak::service::{ACCEPTS_A_TURN, NextWake, READ_BYTES, RESPONSE_BYTES_PER_TURN};

use crate::network::TurnWork;
use crate::peer::{Kind, ReadRate};
use crate::socket::turn;
use crate::world::World;

/// Turns in a row in which the loop neither waited nor did anything.
const SPINS_MAX: u32 = 2;

/// Largest response of a simulation, by which a turn may exceed its budget.
const RESPONSE_BYTES_MAX: usize = 1_200_000;

impl World {
    pub(crate) fn pass(&mut self, ms: u64) {
        // A turn is short here because it does little, not because it takes little time.
        if self.plan.weight > 1 && self.wait == NextWake::Now {
            self.settle();
        }
        self.net.borrow_mut().advance(ms);
        self.now.mono.0 += ms;
        self.wall_ms += ms;
        self.now.unix_ms = self.wall_ms;
        if let Some(disk) = &self.disk {
            disk.borrow_mut().advance(ms, self.wall_ms);
        }
    }

    /// Runs one turn of the loop, with so many events at most.
    pub(crate) fn turn(&mut self, events_max: usize) {
        let shuffles = self.plan.shuffles;
        let (events, has_arrivals) = {
            let mut net = self.net.borrow_mut();
            (net.calls, net.accepts) = (0, 0);
            net.poll_events(events_max, shuffles)
        };
        self.record.note(|| format!("    turn at {:?}: {events:?} {has_arrivals}", self.now));
        let has_signal = self.disk.as_ref().is_some_and(|disk| disk.borrow_mut().take_signal());
        self.note_waits();
        let ends_delay = self.disk.as_ref().is_some_and(|disk| disk.borrow_mut().ends_delay());
        if ends_delay {
            self.service.end_commit_delay();
        }
        let has_signal = has_signal || ends_delay;
        let has_events = !events.is_empty() || has_arrivals || has_signal;
        turn(&self.net, &mut self.service, self.now, (events, has_arrivals));
        let is_spin = self.wait == NextWake::Now && !has_events && self.net.borrow().calls == 0;
        self.spins = if is_spin { self.spins + 1 } else { 0 };
        // A short turn may do no more than look at one of the calls that have arrived.
        let most = if self.plan.weight > 1 { 100 * SPINS_MAX } else { SPINS_MAX };
        assert!(self.spins <= most, "the loop turns for nothing");
        if let (Some(disk), Some(delay)) = (&self.disk, self.service.take_commit_delay()) {
            disk.borrow_mut().delay_record(delay);
        }
        self.after_turn();
        self.note_trouble();
        self.wait = self.service.next_wake();
        if self.has_lag() && self.wait == NextWake::At(self.now.mono) {
            // A message was older than retention allows when the disk had it.
            self.wait = NextWake::Now;
        }
        if let NextWake::At(at) = self.wait {
            // A short turn may come to a client when all the time was over; the next begins with
            // that client.
            let is_done = at > self.now.mono || self.plan.weight > 1;
            assert!(is_done, "what was due at {at:?} is not done at {:?}", self.now.mono);
        }
        // If a turn was too short for a client, the next comes after a millisecond.
        let is_nap = self.wait == NextWake::At(self.now.mono.after(1));
        if self.wait != NextWake::Now && !is_nap && !self.has_events() {
            self.sleep();
        }
    }

    /// Takes all that a turn sent, and judges clients that it closed.
    pub(crate) fn after_turn(&mut self) {
        let mut touched = self.net.borrow_mut().take_touched();
        touched.sort_unstable();
        {
            let net = self.net.borrow();
            assert!(net.accepts <= ACCEPTS_A_TURN, "{} accepted in a turn", net.accepts);
            // The next client without a descriptor would get no response.
            assert!(!net.owes_reserve, "the reserve descriptor was given up for good");
        }
        for place in &touched {
            self.note_work(*place);
        }
        for place in &touched {
            if self.net.borrow().links[*place].is_dropped {
                self.note_closing(*place);
            }
        }
        if let Some(observer) = self.observer {
            self.receive(observer);
        }
        for place in &touched {
            self.receive(*place);
            if self.faults_stopped || self.peers[*place].rate == ReadRate::Eager {
                self.net.borrow_mut().drain(*place, usize::MAX);
            }
        }
        // After the delivery, a client that is closed may cause goodbyes.
        let is_settled = !touched.iter().any(|place| self.net.borrow().links[*place].is_dropped);
        for place in &touched {
            self.note_end_of_events(*place, is_settled);
        }
        for place in touched {
            if self.net.borrow().links[place].is_dropped {
                self.judge_drop(place);
            }
        }
        self.check_memory();
        self.check_fairness();
        let gauges = self.service.gauges();
        let served = gauges.clients - gauges.rejected;
        assert!(served <= self.plan.numbers.max_clients, "{served} clients are served");
        for (channel, growth) in self.growth.iter_mut().enumerate() {
            let next_id = self.model.ledger.next_id(channel);
            if next_id > growth.0 {
                *growth = (next_id, self.now.mono.0);
            }
        }
    }

    /// Notes the server's work on one client in this turn, which has limits.
    fn note_work(&mut self, place: usize) {
        let now = self.now.mono.0;
        let mut net = self.net.borrow_mut();
        let link = &mut net.links[place];
        let TurnWork { events, bytes_read, bytes_written } = std::mem::take(&mut link.turn);
        let events = 1 + events as usize;
        assert!(bytes_read <= READ_BYTES * events, "{bytes_read} read in a turn");
        let most = (RESPONSE_BYTES_PER_TURN + RESPONSE_BYTES_MAX) * events;
        assert!(bytes_written <= most, "{bytes_written} written in a turn");
        let peer = &mut self.peers[place];
        if link.is_accepted {
            peer.accepted_at.get_or_insert(now);
        }
        if link.consumed != peer.consumed {
            (peer.consumed, peer.heard_at, peer.turns_unread) = (link.consumed, now, 0);
        }
        if peer.is_dismissed {
            // Requests after the last word are thrown away.
            self.model.refuse_all(&mut peer.outstanding);
        }
        for request in peer.outstanding.iter_mut().filter(|it| !it.has_arrived()) {
            if request.end > link.arrived {
                continue;
            }
            request.arrived_at = Some(now);
            if let Some(text) = request.text {
                self.model.ledger.permit(text);
            }
            if let (Kind::Fatal(0), Some(following)) = (request.kind, &peer.following)
                && let Some(session) = following.carries
            {
                // Its socket is closed for that, even if it gets the Close later.
                self.model.may_close(session, now, following.grace);
            }
            if let Some(session) = request.carries {
                self.model.known(session).busy_at = now;
            }
        }
        let is_overdue = |since: &u64| now >= since + self.plan.numbers.request_timeout;
        // It may get the 408 when the rest was thrown away already.
        peer.overdue_since = peer.partial_since.filter(is_overdue).or(peer.overdue_since);
        while peer.ends.front().is_some_and(|end| *end <= link.consumed) {
            peer.whole = peer.ends.pop_front().expect("just looked");
            peer.partial_since = None;
        }
        if peer.whole >= link.consumed {
            peer.partial_since = None;
        } else {
            peer.partial_since.get_or_insert(now);
        }
    }

    fn has_events(&self) -> bool {
        self.net.borrow().has_events()
            || self.disk.as_ref().is_some_and(|disk| disk.borrow().has_signal())
    }

    /// Turns until there is nothing to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..20_000 {
            self.turn(usize::MAX);
            if self.wait != NextWake::Now && !self.has_events() {
                return;
            }
        }
        panic!("the loop never rests");
    }

    /// Lets time pass, in which the loop does all that is due. Returns how often it woke.
    pub(crate) fn run_on(&mut self, ms: u64) -> u64 {
        let end = self.now.mono.0 + ms;
        let mut turns = 0;
        loop {
            self.settle();
            turns += 1;
            let next = match self.wait {
                NextWake::At(Millis(at)) => at.min(end),
                NextWake::Now | NextWake::Never => end,
            };
            let written = self.disk.as_ref().and_then(|disk| disk.borrow().next_landing());
            let landing = self.net.borrow().next_landing().unwrap_or(end).max(self.now.mono.0 + 1);
            let next = next.min(landing).min(written.unwrap_or(end)).min(end);
            if self.now.mono.0 >= end {
                return turns;
            }
            self.pass(next - self.now.mono.0);
        }
    }
}
