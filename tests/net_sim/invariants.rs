//! Invariants: true whenever the loop sleeps, and whenever it closes a client.

use std::collections::BTreeSet;
use std::rc::Rc;

use speak::service::LINGER_MS;
use support::ledger::Ledger;

use crate::network::Connection;
use crate::peer::{Kind, Peer, Request};
use crate::world::World;

/// Bytes that one turn may add beyond `--max-memory`.
const MEMORY_SLACK: usize = 20_000;

impl World {
    /// The loop would sleep now: all that can be done is done, and all that was due too.
    pub(crate) fn sleep(&mut self) {
        for at in 0..self.present.len() {
            self.rest(self.present[at]);
        }
        self.rest_of_sessions();
        self.rest_of_addresses();
        self.model.slept_at = self.now.mono.0;
        self.model.may_end &= !self.service.is_log_idle();
        let is_busy = self.present.iter().any(|place| {
            let link = &self.net.borrow().links[*place];
            let peer = &self.peers[*place];
            // Requests after a pending read are kept, whole or not.
            let is_kept = peer.partial_since.is_some() || peer.outstanding.len() > 1;
            // With an end told in one direction, a connection has more state than between records.
            let is_in_tls = link.tls.as_ref().is_some_and(|tls| {
                tls.is_handshaking() || tls.has_part() || tls.has_end() || link.has_server_fin
            });
            link.is_full || link.has_inbound() || is_kept || is_in_tls
        });
        if !is_busy && !self.awaits_disk() {
            let gauges = self.service.gauges();
            let counted = (gauges.memory, gauges.encoded_bytes);
            assert_eq!(counted, (0, 0), "memory is counted and not held");
        }
    }

    /// Checks one client when the loop sleeps.
    fn rest(&mut self, place: usize) {
        let is_at_disk = self.has_call_at_disk(place);
        let net = Rc::clone(&self.net);
        let mut net = net.borrow_mut();
        let link = &mut net.links[place];
        let peer = &self.peers[place];
        if !link.is_accepted || link.is_dropped {
            return;
        }
        if is_at_disk {
            return self.rest_at_disk(place, link.is_full);
        }
        assert!(!link.is_reset, "client {place} was reset, and is still there");
        assert!(!link.has_fin || link.is_full, "client {place} closed, and is still there");
        if !link.is_full {
            link.full_since = None;
            let has_rest = peer.incoming.has_rest();
            assert!(!has_rest, "client {place} has half a response, and room for the rest");
        }
        // An end that TLS tells is not read during a pending read: that of the socket follows.
        let tells_end = link.tls.is_some() && peer.has_closed;
        let is_kept = link.is_full
            || tells_end
            || peer.outstanding.front().is_some_and(|it| matches!(it.kind, Kind::Poll { .. }));
        assert!(!link.has_inbound() || is_kept, "client {place} sent bytes that are not read");
        if peer.following.is_some() {
            self.rest_of_stream(place, link);
        } else if peer.outstanding.front().is_some_and(Request::has_arrived) {
            self.rest_of_request(place, link);
        } else {
            self.rest_without_request(place, link);
        }
    }

    /// Checks a stream: it has been sent all, and it takes and says something.
    fn rest_of_stream(&mut self, place: usize, link: &Connection) {
        let (now, numbers) = (self.now.mono.0, self.plan.numbers);
        let following = self.peers[place].following.as_ref().expect("it has one");
        let is_session_over = following.carries.is_some_and(|session| self.is_over(session));
        let may_be_over = is_session_over || following.may_be_over(now, numbers.stream_life);
        let peer = &mut self.peers[place];
        let following = peer.following.as_mut().expect("it has one");
        following.is_settled = true;
        if peer.is_dismissed {
            return;
        }
        let since = if following.is_frames {
            peer.heard_at.max(link.last_drained).max(peer.awaited_disk_at)
        } else {
            link.last_written
        };
        let looks = following.idle.look(since, now, numbers.heartbeat);
        if link.is_full || following.is_frames {
            // A Close that is not taken has the time of a response.
            let is_fatal = |it: &Request| matches!(it.kind, Kind::Fatal(_)) && it.has_arrived();
            let is_over = may_be_over || peer.outstanding.iter().any(is_fatal);
            let close = if is_over { numbers.request_timeout / numbers.heartbeat + 1 } else { 0 };
            let is_right = u64::from(looks) <= 3 + close;
            assert!(is_right, "client {place} takes and says nothing, and stays");
        }
        if link.is_full {
            return;
        }
        let quiet_since =
            if following.is_frames { since.max(following.beat_at.1) } else { link.last_written };
        let due = quiet_since + numbers.heartbeat;
        assert!(now < due, "client {place} got no heartbeat");
        let is_over = following.is_over(now, numbers.stream_life);
        assert!(!is_over, "client {place} has its stream since {:?}", following.began_at);
        for its in &following.reader.subscriptions {
            let next_id = self.model.ledger.next_id(its.channel);
            let has_all = its.id().is_none_or(|id| id >= next_id) || numbers.is_tight;
            assert!(has_all, "client {place} was not sent all of {}", its.channel);
        }
        // With a disk, frames after a call are read once its response is sent, whenever that is.
        let may_be_late = self.disk.is_some();
        let partial = peer.partial_since.filter(|_| following.is_frames && !may_be_late);
        if let Some(since) = partial.filter(|_| peer.outstanding.is_empty()) {
            let is_right = now < since + numbers.request_timeout;
            assert!(is_right, "client {place} began a frame at {since}");
        }
    }

    /// Checks a client whose request has arrived: it is a long poll, which waits no longer than it
    /// may.
    fn rest_of_request(&mut self, place: usize, link: &Connection) {
        let (now, timeout) = (self.now.mono.0, self.plan.numbers.request_timeout);
        let peer = &mut self.peers[place];
        let last = last_sign(peer, link);
        let request = peer.outstanding.front_mut().expect("it has one");
        let Kind::Poll { wait_ms } = request.kind else {
            assert!(link.is_full, "client {place} was not answered: {request:?}");
            // A read after that has its own time first, whose end cannot be seen.
            let may_wait = peer.outstanding.iter().any(|it| it.kind.may_wait());
            assert!(may_wait || now < last + timeout, "client {place} takes nothing, and stays");
            return;
        };
        if link.is_full {
            return;
        }
        let ledger = &self.model.ledger;
        let next_ids = next_ids(ledger, request);
        // Without an observer the ledger gets a message when a reader takes it: it may be older
        // than the read.
        let may_be_old = self.observer.is_none()
            || request.channels.iter().any(|channel| ledger.channels[*channel].has_gaps);
        if request.waits_since.is_none() || may_be_old {
            request.waits_since.get_or_insert(now);
            request.seen.clone_from(&next_ids);
        }
        let since = request.waits_since.expect("just set");
        assert!(now < since + wait_ms, "client {place} waits since {since} for {request:?}");
        assert_eq!(next_ids, request.seen, "client {place} was not sent the news: {request:?}");
    }

    /// Checks a client without a whole request: it is closed in time.
    fn rest_without_request(&mut self, place: usize, link: &Connection) {
        let (now, numbers) = (self.now.mono.0, self.plan.numbers);
        let peer = &mut self.peers[place];
        let (last, timeout) = (last_sign(peer, link), numbers.request_timeout);
        if link.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            let due = peer.accepted_at.unwrap_or(0) + timeout;
            assert!(now < due, "client {place} is in its handshake, and stays");
        } else if peer.is_dismissed {
            let due = last.max(peer.dismissed_at) + LINGER_MS.min(timeout);
            assert!(now < due || link.is_full, "client {place} got the last word, and stays");
        } else if link.is_full && (peer.incoming.has_rest() || peer.partial_since.is_some()) {
            // An unfinished request is refused at the first turn after its time, and the refusal
            // has its own time.
            let awaited_at = peer.awaited_disk_at;
            let is_late =
                peer.partial_since.is_some_and(|since| now >= since.max(awaited_at) + timeout);
            peer.refused_at = is_late.then(|| peer.refused_at.unwrap_or(now));
            let since = last.max(peer.refused_at.unwrap_or(0));
            assert!(now < since + timeout, "client {place} takes nothing, and stays");
        } else if let Some(since) = peer.partial_since {
            let due = since.max(link.last_written).max(peer.awaited_disk_at) + timeout;
            assert!(now < due, "client {place} began a request at {since}, and stays");
        } else {
            assert!(now < last + numbers.keep_alive, "client {place} is idle since {last}");
        }
    }

    /// The memory is within its limit after each turn.
    pub(crate) fn check_memory(&self) {
        let gauges = self.service.gauges();
        // Otherwise the hub still counts what clients had before this turn.
        let is_known = gauges.memory + gauges.encoded_bytes > 0;
        let (memory, max) = (self.service.memory(), self.plan.numbers.max_memory);
        // Calls that wait for the disk do not know of each other's memory.
        let slack = if self.disk.is_some() { 2 * MEMORY_SLACK } else { MEMORY_SLACK };
        let is_within = memory <= max + slack;
        assert!(
            !is_known || is_within,
            "{memory} bytes are counted, and {max} are allowed: {gauges:?}"
        );
    }

    /// A client that is the only one of its address waits for at most three rounds of all
    /// addresses, however many clients these have.
    pub(crate) fn check_fairness(&mut self) {
        if self.stops_at.is_some() {
            return;
        }
        let most = 3 * (usize::from(self.plan.addresses) + 1) + 1;
        let net = self.net.borrow();
        for place in &self.present {
            let (link, peer) = (&net.links[*place], &mut self.peers[*place]);
            let is_whole_left = peer.outstanding.front().is_some_and(|it| it.end <= link.consumed);
            // Nothing is read besides a response that is not taken, a pending read or a stream
            // whose sends are deferred.
            let is_due = link.key.is_some()
                && link.has_inbound()
                && !(link.is_ready || link.is_full || is_whole_left || peer.following.is_some());
            let is_its = |other: &&usize| net.links[**other].address == link.address;
            let is_alone = is_due && self.present.iter().filter(is_its).count() == 1;
            peer.turns_unread = if is_alone { peer.turns_unread + 1 } else { 0 };
            let turns = peer.turns_unread;
            assert!(turns <= most, "client {place} is not served for {turns} turns");
        }
    }

    /// No address has more clients than it may, apart from those that were rejected.
    fn rest_of_addresses(&self) {
        let max = self.plan.numbers.max_per_address;
        if max == 0 {
            return;
        }
        let net = self.net.borrow();
        // A client that takes nothing may have been rejected, and not know it.
        let is_served = |link: &Connection| link.is_accepted && !link.is_full;
        let served =
            |place: &&usize| is_served(&net.links[**place]) && !self.peers[**place].is_rejected;
        let mut addresses: Vec<_> =
            self.present.iter().filter(served).map(|it| net.links[*it].address).collect();
        addresses.sort_unstable();
        let most = addresses.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0);
        assert!(most <= max, "an address has {most} clients");
    }

    /// Checks all sessions: those that have to have ended did, as the observer saw.
    fn rest_of_sessions(&mut self) {
        let (now, numbers) = (self.now.mono.0, self.plan.numbers);
        // A server that stops says no goodbyes.
        let is_watched = self.observer.is_some() && self.stops_at.is_none();
        let claims = std::mem::take(&mut self.ended_claims);
        if !is_watched || self.awaits_disk() {
            return;
        }
        let ledger = &self.model.ledger;
        let is_known = |channels: &BTreeSet<usize>| {
            !channels.is_empty()
                && !channels.iter().any(|channel| ledger.channels[*channel].has_gaps)
        };
        for number in claims {
            let is_right = self.model.is_ended(number)
                || !ledger.sessions.get(&number).is_some_and(|session| is_known(&session.channels));
            assert!(is_right, "session {number} is said to have ended");
        }
        for (&number, session) in &ledger.sessions {
            if !is_known(&session.channels) {
                continue;
            }
            let channels = &session.channels;
            let known = self.model.known.get(&number);
            let is_right = !self.model.is_ended(number);
            assert!(is_right, "session {number} ended, and is a member of {channels:?}");
            if let Some(why) = known.and_then(|known| known.must_have_ended) {
                panic!("session {number} is there, and {why}");
            }
            let closed = known.and_then(|it| it.closed.filter(|(at, _)| it.busy_at < *at));
            let is_closed = closed.is_some_and(|(at, grace)| now >= at + grace);
            let heard_at = session.alive_most_ms.max(self.model.awaited_disk_at);
            if is_closed || now >= heard_at + numbers.connection_timeout {
                let is_carried = self.present.iter().any(|present| self.carries(*present, number));
                assert!(
                    is_carried,
                    "session {number} lives at {now}, was closed at {closed:?}, \
                     last heard of at {heard_at}"
                );
            }
        }
    }

    /// Says whether a session may be a member of no channel any more.
    fn is_over(&self, session: u64) -> bool {
        self.observer.is_none() || self.model.is_over(session)
    }

    /// Says whether a read of this client may keep the session alive.
    fn carries(&self, peer: usize, session: u64) -> bool {
        let peer = &self.peers[peer];
        let carries = |it: &Request| it.carries == Some(session) && it.has_arrived();
        peer.outstanding.iter().any(carries)
            || peer.following.as_ref().is_some_and(|following| following.carries == Some(session))
    }

    /// The server closed a client: not without a reason. Its reads end.
    pub(crate) fn judge_drop(&mut self, place: usize) {
        if self.peers[place].is_over {
            return;
        }
        self.peers[place].is_over = true;
        self.present.retain(|its| *its != place);
        let reason = self.reason_to_drop(place);
        self.record.note(|| format!("    {place} is closed: {reason:?}"));
        self.judge_end_of_tls(place);
        match reason {
            Some(reason) => self.tally(&format!("closed: {reason}")),
            None => panic!("client {place} is closed without a reason"),
        }
        if self.observer == Some(place) {
            self.observer = None;
            (0..self.plan.channels).for_each(|it| self.model.ledger.forget_members(it, true));
        }
        self.close_reads(place);
    }

    fn reason_to_drop(&self, place: usize) -> Option<&'static str> {
        let now = self.now.mono.0;
        let numbers = self.plan.numbers;
        let net = self.net.borrow();
        let link = &net.links[place];
        let peer = &self.peers[place];
        let is_full = link.full_since.is_some();
        if link.is_reset {
            return Some("reset");
        }
        if link.tls.as_ref().is_some_and(|tls| tls.is_untold) && link.has_fin {
            return Some("closed without a word of TLS");
        }
        if link.key.is_none() {
            let is_crowded = numbers.max_clients < 1000 || numbers.max_per_address > 0;
            let is_short = net.refusals > 0 || self.plan.faults.cannot_register > 0;
            return (is_crowded || is_short).then_some("rejected");
        }
        // The loop may have slept too long to have read its input.
        let last_written = link.last_written.max(opened_at(peer, link));
        let is_unread = peer.outstanding.front().is_none_or(|request| request.end > peer.consumed);
        let is_idle = is_unread && now >= last_written + numbers.keep_alive;
        let is_silent = now >= peer.heard_at + 3 * numbers.heartbeat;
        let is_late =
            peer.partial_since.is_some_and(|since| now >= since + numbers.request_timeout);
        let is_handshaking = link.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        let accepted_at = peer.accepted_at.unwrap_or(0);
        if is_handshaking && now >= accepted_at + numbers.request_timeout {
            return Some("handshake took too long");
        }
        let is_limited = numbers.max_clients < 1000 || numbers.max_per_address > 0;
        if is_handshaking && now == accepted_at && is_limited {
            return Some("rejected before its handshake");
        }
        let has_told_end = link.tls.as_ref().is_some_and(|tls| tls.has_end());
        if link.has_fin || has_told_end {
            let front = peer.outstanding.front().filter(|it| it.has_arrived());
            let is_left =
                front.is_some_and(|it| !matches!(it.kind, Kind::Poll { .. } | Kind::Fatal(0)));
            let may_be_left = match &peer.following {
                Some(following) => {
                    let is_over = following.carries.is_some_and(|it| self.is_over(it));
                    !following.is_frames || is_over || is_silent || is_late
                }
                None => is_idle,
            };
            let is_left = is_left && !may_be_left && !is_full && !numbers.is_tight;
            assert!(!is_left, "client {place} closed its side, and was not answered: {front:?}");
            return Some("closed by its peer");
        }
        if self.stops_at.is_some() {
            return Some("stopped");
        }
        if peer.is_dismissed {
            // To close while it still sends would be a reset, which may overtake the response.
            let is_early = now < peer.dismissed_at + LINGER_MS.min(numbers.request_timeout);
            let is_rejected = peer.is_rejected && peer.accepted_at == Some(now);
            let may_stay = peer.may_linger && !is_rejected && !numbers.is_tight;
            assert!(!(may_stay && is_early), "client {place} was closed before it could read why");
            return Some("dismissed");
        }
        if numbers.is_tight {
            return Some("no memory");
        }
        if numbers.max_per_address > 0 && peer.accepted_at == Some(now) {
            return Some("rejected");
        }
        if let Some(following) = &peer.following {
            if following.carries.is_some_and(|it| self.is_over(it)) {
                return Some("its session ended");
            }
            if is_full {
                return Some("slow");
            }
            if following.is_frames && is_silent {
                let is_fed = following.fed_at > peer.heard_at + numbers.heartbeat;
                return Some(if is_fed { "silent socket in a busy room" } else { "silent socket" });
            }
            return (following.is_frames && is_late).then_some("half a frame");
        }
        let begins_stream = peer.outstanding.iter().any(|it| it.kind.is_stream());
        if is_full && begins_stream {
            return Some("slow");
        }
        if is_full && now >= last_written + numbers.request_timeout {
            return Some("slow");
        }
        is_idle.then_some("idle")
    }

    /// The server ended an event stream: by the last chunk, or in HTTP/1.0 by shutting down its
    /// side.
    /// If the turn `is_settled`, it closed no client.
    pub(crate) fn note_end_of_events(&mut self, place: usize, is_settled: bool) {
        let peer = &mut self.peers[place];
        let net = self.net.borrow();
        let link = &net.links[place];
        // A client that was never accepted may be sent the reason, as far as that fits at once.
        let has_fin = link.has_server_fin && link.key.is_some();
        if peer.is_dismissed || !(has_fin || peer.has_last_chunk) {
            return;
        }
        let is_open = peer.incoming.is_chunked() && !peer.has_last_chunk;
        assert!(!is_open, "the stream of client {place} ends without its last chunk");
        let now = self.now.mono.0;
        peer.dismiss(now);
        let following = peer.following.as_mut().expect("only a stream ends without a word");
        let may_be_over = following.may_be_over(now, self.plan.numbers.stream_life);
        match following.carries.take() {
            Some(carried) if self.stops_at.is_none() && may_be_over => {
                // Its session lives on, from the time at which the server ended it.
                let ended_at = link.full_since.unwrap_or(now);
                // If the stream was not paused, it has the messages of this turn too.
                let may_lack = link.full_since.is_some() || self.plan.weight > 1;
                if is_settled && !may_lack && !self.plan.numbers.is_cut {
                    for its in &following.reader.subscriptions {
                        let next_id = self.model.ledger.next_id(its.channel);
                        let has_all = its.id().is_none_or(|id| id >= next_id);
                        assert!(has_all, "the stream of client {place} ended before {next_id}");
                    }
                }
                drop(net);
                if !self.model.may_end {
                    self.model.session(carried).lived(ended_at);
                }
                self.end_read((carried, 0), false, None);
                self.tally("stream ended after its life");
            }
            Some(carried) if self.stops_at.is_none() => {
                self.ended_claims.push(carried);
                self.record.tally.count("stream ended with its session");
            }
            _ => assert!(self.stops_at.is_some(), "the stream of client {place} ended"),
        }
    }

    /// A client was closed in this turn: its reads may have ended sessions.
    pub(crate) fn note_closing(&mut self, place: usize) {
        let peer = &self.peers[place];
        let asked = peer.outstanding.iter().filter(|it| it.has_arrived() && it.kind.may_wait());
        let asked = asked.filter_map(|request| Some((request.carries?, request.grace)));
        let followed = peer.following.iter().filter_map(|its| Some((its.carries?, its.grace)));
        for (carried, grace) in asked.chain(followed) {
            self.model.may_close(carried, self.now.mono.0, grace);
        }
    }

    /// The reads of a client end with it, and maybe the sessions that they kept alive.
    fn close_reads(&mut self, place: usize) {
        let now = self.now.mono.0;
        // A response that was not taken, for want of room or of a peer, was one.
        let may_be_answered = {
            let link = &self.net.borrow().links[place];
            link.has_write_failed || link.full_since.is_some()
        };
        let peer = &mut self.peers[place];
        // A wrong frame ended the stream before, even if the Close was not taken.
        let is_ended = peer.is_dismissed
            || peer.outstanding.iter().any(|it| it.has_arrived() && it.kind == Kind::Fatal(0));
        let following = peer.following.take();
        for request in std::mem::take(&mut self.peers[place].outstanding) {
            let Some(carried) = request.carries.filter(|_| request.has_arrived()) else { continue };
            if request.kind.may_wait() {
                // News answer it, even if the response was not written.
                let has_news = next_ids(&self.model.ledger, &request) != request.seen;
                let is_pending = request.waits_since.is_some() && !may_be_answered && !has_news;
                let is_sure = is_pending && self.model.known(carried).busy_at != now;
                let counts = "long poll closed that carried a session";
                let end = Some(("its long poll was closed", counts));
                self.end_read((carried, request.grace), is_sure, end);
            } else {
                // It may have been done, after the read was closed.
                self.end_read((carried, 0), false, None);
            }
        }
        if let Some(following) = following
            && let Some(carried) = following.carries
        {
            // The server may have ended it just before.
            let is_ended = is_ended || following.may_be_over(now, self.plan.numbers.stream_life);
            let is_sure = following.is_settled && !is_ended;
            let end = Some(("its stream was closed", "stream closed that carried a session"));
            self.end_read((carried, following.grace), is_sure, end);
        }
    }

    /// A read ends that carried a session, with a grace. If it was surely the last, the session
    /// ends for this reason.
    pub(crate) fn end_read(
        &mut self,
        (session, grace): (u64, u64),
        is_sure: bool,
        end: Option<(&'static str, &str)>,
    ) {
        let now = self.now.mono.0;
        self.model.session(session).alive_most_ms = now;
        let known = self.model.known(session);
        known.closed = is_sure.then_some((now, grace));
        let has_own_grace = is_sure && grace > self.plan.numbers.grace;
        self.record.tally.count_if(has_own_grace, "read closed with a grace of its own");
        if let Some((why, counts)) = end.filter(|_| is_sure && grace == 0) {
            known.must_have_ended = Some(why);
            self.record.tally.count(counts);
        }
    }
}

/// Returns the next id of each channel of a request.
fn next_ids(ledger: &Ledger, request: &Request) -> Vec<u64> {
    request.channels.iter().map(|channel| ledger.next_id(*channel)).collect()
}

/// Returns the time at which the server accepted a client, or ended its handshake of TLS.
fn opened_at(peer: &Peer, link: &Connection) -> u64 {
    let opened_at = link.tls.as_ref().and_then(|tls| tls.opened_at);
    opened_at.or(peer.accepted_at).unwrap_or(0)
}

/// Returns the last time at which the server read from a client, wrote to it or accepted it.
fn last_sign(peer: &Peer, link: &Connection) -> u64 {
    let heard_at = peer.heard_at.max(peer.awaited_disk_at);
    link.last_written.max(opened_at(peer, link)).max(heard_at)
}
