//! The rules: what has to be true whenever the loop sleeps, and whenever it closes somebody.

use speak::service::LINGER_MS;

use crate::network::Connection;
use crate::peer::{Kind, Request};
use crate::world::World;

impl World {
    /// The loop would sleep now: whatever can be done is done, and what was due too.
    pub(crate) fn sleep(&mut self) {
        for at in 0..self.present.len() {
            self.rest(self.present[at]);
        }
        self.rest_of_connections();
        self.rest_of_addresses();
        self.ledger.slept_at = self.now.mono.0;
        let is_busy = self.present.iter().any(|place| {
            let link = &self.net.borrow().links[*place];
            let peer = &self.peers[*place];
            // What stands behind a read that waits is held, whole or not.
            let holds = peer.partial_since.is_some() || peer.outstanding.len() > 1;
            link.is_full || link.has_inbound() || holds
        });
        if !is_busy {
            let census = self.service.gauges();
            assert_eq!(
                (census.memory, census.encoded_bytes),
                (0, 0),
                "memory is counted that nobody holds"
            );
        }
    }

    /// One client, when the loop sleeps.
    fn rest(&mut self, place: usize) {
        let now = self.now.mono.0;
        let numbers = self.plan.numbers;
        let mut net = self.net.borrow_mut();
        let link = &mut net.links[place];
        let peer = &mut self.peers[place];
        if !link.is_accepted || link.is_dropped {
            return;
        }
        assert!(!link.is_reset, "client {place} was reset, and is still there");
        assert!(!link.has_fin || link.is_full, "client {place} closed, and is still there");
        if !link.is_full {
            link.full_since = None;
            assert!(
                !peer.ear.has_rest(),
                "client {place} has half an answer, and room for the rest"
            );
        }
        let waits_first =
            peer.outstanding.front().is_some_and(|it| matches!(it.kind, Kind::Poll { .. }));
        let is_held = link.is_full || waits_first;
        assert!(!link.has_inbound() || is_held, "client {place} sent what nobody reads");
        let last = link.last_written.max(peer.accepted_at.unwrap_or(0)).max(peer.heard_at);
        if let Some(following) = &mut peer.following {
            following.is_settled = true;
            if peer.is_told_to_go {
                return;
            }
            let grown =
                following.channels.iter().map(|channel| self.growth[*channel].1).max().unwrap_or(0);
            let sign = if following.is_frames { link.last_drained } else { link.last_written };
            let looks =
                following.silence.look(sign.max(grown).max(peer.heard_at), now, numbers.heartbeat);
            if link.is_full || following.is_frames {
                // A farewell that waits to be taken has the time of an answer.
                let is_fatal =
                    |it: &Request| matches!(it.kind, Kind::Fatal(_)) && it.arrived_at.is_some();
                let is_over = following.carries.is_some_and(|it| self.ledger.is_over(it))
                    || peer.outstanding.iter().any(is_fatal);
                let farewell =
                    if is_over { numbers.request_timeout / numbers.heartbeat + 1 } else { 0 };
                assert!(
                    u64::from(looks) <= 3 + farewell,
                    "client {place} takes and says nothing, and stays"
                );
            }
            if link.is_full {
                return;
            }
            assert!(
                now < link.last_written + numbers.heartbeat,
                "client {place} was shown no life"
            );
            for (at, channel) in following.channels.iter().enumerate() {
                let next_id = self.ledger.channels[*channel].next_id;
                let Some(cursor) = following.cursors[at].filter(|_| !following.gaps[at]) else {
                    continue;
                };
                assert!(
                    cursor >= next_id || numbers.is_tight,
                    "client {place} was not told all of {channel}"
                );
            }
            if let Some(since) =
                peer.partial_since.filter(|_| following.is_frames && peer.outstanding.is_empty())
            {
                assert!(
                    now < since + numbers.request_timeout,
                    "client {place} began a frame at {since}"
                );
            }
            return;
        }
        if let Some(request) =
            peer.outstanding.front_mut().filter(|request| request.arrived_at.is_some())
        {
            let Kind::Poll { wait_ms } = request.kind else {
                assert!(link.is_full, "client {place} was not answered: {request:?}");
                // One that waits behind that has its own time first, of which nobody can see the end.
                let may_last =
                    |kind: Kind| matches!(kind, Kind::Poll { .. } | Kind::Events | Kind::Frames);
                let waits = peer.outstanding.iter().any(|it| may_last(it.kind));
                assert!(
                    waits || now < last + numbers.request_timeout,
                    "client {place} takes nothing, and stays"
                );
                return;
            };
            if link.is_full {
                return;
            }
            let next_ids = |request: &Request| -> Vec<u64> {
                request
                    .channels
                    .iter()
                    .map(|channel| self.ledger.channels[*channel].next_id)
                    .collect()
            };
            // Without a witness the ledger hears of a message when somebody takes it: it may be older than the read.
            let is_unsure = |channel: &usize| {
                self.observer.is_none() || self.ledger.channels[*channel].is_leaky
            };
            let may_be_old = request.channels.iter().any(is_unsure);
            if request.waits_since.is_none() || may_be_old {
                request.waits_since.get_or_insert(now);
                request.seen = next_ids(request);
            }
            let since = request.waits_since.expect("just set");
            assert!(now < since + wait_ms, "client {place} waits since {since} for {request:?}");
            assert_eq!(
                next_ids(request),
                request.seen,
                "client {place} was not told what is new: {request:?}"
            );
            return;
        }
        if peer.is_told_to_go {
            let due = last.max(peer.told_to_go_at) + LINGER_MS.min(numbers.request_timeout);
            assert!(now < due || link.is_full, "client {place} was told to go, and stays");
        } else if link.is_full && (peer.ear.has_rest() || peer.partial_since.is_some()) {
            // What did not come whole is refused when the loop turns after its time, and that has a time of its own.
            let is_late =
                peer.partial_since.is_some_and(|since| now >= since + numbers.request_timeout);
            peer.refused_at = is_late.then(|| peer.refused_at.unwrap_or(now));
            let since = last.max(peer.refused_at.unwrap_or(0));
            assert!(
                now < since + numbers.request_timeout,
                "client {place} takes nothing, and stays"
            );
        } else if let Some(since) = peer.partial_since {
            let due = since.max(link.last_written) + numbers.request_timeout;
            assert!(
                now < due,
                "client {place} began a request at {since}, and has all the time in the world"
            );
        } else {
            assert!(now < last + numbers.keep_alive, "client {place} is idle since {last}");
        }
    }

    /// No address has more clients than it may, those that were only told so aside.
    fn rest_of_addresses(&self) {
        let max = self.plan.numbers.max_per_address;
        if max == 0 {
            return;
        }
        let net = self.net.borrow();
        // Who takes nothing may have been told, and not have heard it.
        let is_served = |link: &Connection| link.is_accepted && !link.is_full;
        let served =
            |place: &&usize| is_served(&net.links[**place]) && !self.peers[**place].is_refused;
        let mut addresses: Vec<_> =
            self.present.iter().filter(served).map(|it| net.links[*it].address).collect();
        addresses.sort_unstable();
        let most = addresses.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0);
        assert!(most <= max, "an address has {most} clients");
    }

    fn rest_of_connections(&mut self) {
        let now = self.now.mono.0;
        let numbers = self.plan.numbers;
        // A server that stops says goodbye for nobody.
        let is_watched = self.observer.is_some() && self.stops_at.is_none();
        for place in std::mem::take(&mut self.ended_claims) {
            let connection = &self.ledger.connections[place];
            let leaves = connection.channels.is_empty()
                || connection
                    .channels
                    .iter()
                    .any(|channel| self.ledger.channels[*channel].is_leaky);
            assert!(
                !is_watched || leaves || self.ledger.is_ended(place),
                "{} is said to have ended",
                connection.number
            );
        }
        if !is_watched {
            return;
        }
        for place in 0..self.ledger.connections.len() {
            let connection = &self.ledger.connections[place];
            if connection.channels.iter().any(|channel| self.ledger.channels[*channel].is_leaky) {
                continue;
            }
            let number = connection.number;
            if connection.ended.is_some() || connection.has_left {
                assert!(
                    connection.channels.is_empty(),
                    "{number} ended, and stays in {:?}",
                    connection.channels
                );
                continue;
            }
            if connection.channels.is_empty() {
                continue;
            }
            if let Some(why) = connection.must_have_ended {
                panic!("{number} is there, and {why}");
            }
            let closed_at = connection.closed_at.filter(|at| connection.busy_at < *at);
            let is_closed = closed_at.is_some_and(|at| now >= at + numbers.grace);
            if !is_closed && now < connection.alive_at_most + numbers.connection_timeout {
                continue;
            }
            let is_carried = self.present.iter().any(|present| self.carries(*present, place));
            assert!(
                is_carried || !is_closed,
                "{number} lives at {now}, and was closed at {closed_at:?}"
            );
            assert!(
                is_carried,
                "{number} lives at {now}, and was last heard of at {}",
                connection.alive_at_most
            );
        }
    }

    /// Whether a read of this client may keep the connection alive.
    fn carries(&self, peer: usize, connection: usize) -> bool {
        let peer = &self.peers[peer];
        peer.outstanding
            .iter()
            .any(|request| request.carries == Some(connection) && request.arrived_at.is_some())
            || peer
                .following
                .as_ref()
                .is_some_and(|following| following.carries == Some(connection))
    }

    /// The server closed a client: not without a reason, and with what follows from it.
    pub(crate) fn judge_drop(&mut self, place: usize) {
        if self.peers[place].is_over {
            return;
        }
        self.peers[place].is_over = true;
        self.present.retain(|its| *its != place);
        let reason = self.reason_to_drop(place);
        self.record.note(|| format!("    {place} is closed: {reason:?}"));
        match reason {
            Some(reason) => self.tally(&format!("closed: {reason}")),
            None => panic!("client {place} is closed for nothing"),
        }
        if self.observer == Some(place) {
            self.observer = None;
            self.ledger.channels.iter_mut().for_each(|channel| channel.is_leaky = true);
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
        if link.key.is_none() {
            let is_crowded = numbers.max_clients < 1000 || numbers.max_per_address > 0;
            let is_short = net.refusals > 0 || self.plan.faults.cannot_watch > 0;
            return (is_crowded || is_short).then_some("not let in");
        }
        // The loop may have slept too long to have read what came meanwhile.
        let last_written = link.last_written.max(peer.accepted_at.unwrap_or(0));
        let is_unread = peer.outstanding.front().is_none_or(|request| request.end > peer.consumed);
        let is_idle = is_unread && now >= last_written + numbers.keep_alive;
        let is_silent = now >= peer.heard_at + 2 * numbers.heartbeat;
        let is_late =
            peer.partial_since.is_some_and(|since| now >= since + numbers.request_timeout);
        if link.has_fin {
            let front = peer.outstanding.front().filter(|it| it.arrived_at.is_some());
            let is_left =
                front.is_some_and(|it| !matches!(it.kind, Kind::Poll { .. } | Kind::Fatal(0)));
            let may_be_left = match &peer.following {
                Some(following) => {
                    let is_over = following.carries.is_some_and(|it| self.ledger.is_over(it));
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
        if peer.is_told_to_go {
            // To close on top of what it still sends would be a reset, which may overtake the answer.
            let is_early = now < peer.told_to_go_at + LINGER_MS.min(numbers.request_timeout);
            let is_brushed_off = peer.is_refused && peer.accepted_at == Some(now);
            let may_stay = peer.may_linger && !is_brushed_off && !numbers.is_tight;
            assert!(!(may_stay && is_early), "client {place} was closed before it could read why");
            return Some("told to go");
        }
        if numbers.is_tight {
            return Some("no memory");
        }
        if numbers.max_per_address > 0 && peer.accepted_at == Some(now) {
            return Some("not let in");
        }
        if let Some(following) = &peer.following {
            if following.carries.is_some_and(|it| self.ledger.is_over(it)) {
                return Some("its connection ended");
            }
            if is_full {
                return Some("slow");
            }
            if following.is_frames && is_silent {
                return Some("silent socket");
            }
            return (following.is_frames && is_late).then_some("half a frame");
        }
        let begins_stream =
            peer.outstanding.iter().any(|it| matches!(it.kind, Kind::Events | Kind::Frames));
        if is_full && begins_stream {
            return Some("slow");
        }
        if is_full && now >= last_written + numbers.request_timeout {
            return Some("slow");
        }
        is_idle.then_some("idle")
    }

    /// The server has said its last word to a client, and that was none: an event stream ends so.
    pub(crate) fn note_farewell(&mut self, place: usize) {
        let peer = &mut self.peers[place];
        let net = self.net.borrow();
        let link = &net.links[place];
        // Who was never let in may be told why, as far as that can be done at once.
        if peer.is_told_to_go || !link.has_server_fin || link.key.is_none() {
            return;
        }
        (peer.is_told_to_go, peer.told_to_go_at) = (true, self.now.mono.0);
        let following = peer.following.as_mut().expect("only a stream ends without a word");
        match following.carries.take() {
            Some(carried) if self.stops_at.is_none() => {
                self.ended_claims.push(carried);
                self.record.tally.count("stream ended with its connection");
            }
            _ => assert!(
                self.stops_at.is_some(),
                "client {place} follows for ever, and was told to go"
            ),
        }
    }

    /// A client was closed in this turn: what may have waited on it may have ended connections.
    pub(crate) fn note_closing(&mut self, place: usize) {
        let peer = &self.peers[place];
        let waits = |kind: Kind| matches!(kind, Kind::Poll { .. } | Kind::Events | Kind::Frames);
        let asked = peer.outstanding.iter().filter(|it| it.arrived_at.is_some() && waits(it.kind));
        let followed = peer.following.iter().map(|following| following.carries);
        for carried in asked.map(|request| request.carries).chain(followed).flatten() {
            self.ledger.connections[carried].closings.push(self.now.mono.0);
        }
    }

    /// What a client waited for ends with it, and the connections that it kept alive.
    fn close_reads(&mut self, place: usize) {
        let now = self.now.mono.0;
        // An answer that nobody heard any of, for want of room or of a peer, was one.
        let may_be_answered = {
            let link = &self.net.borrow().links[place];
            link.has_write_failed || link.full_since.is_some()
        };
        let is_told_to_go = self.peers[place].is_told_to_go;
        let following = self.peers[place].following.take();
        for request in std::mem::take(&mut self.peers[place].outstanding) {
            let Some(carried) = request.carries.filter(|_| request.arrived_at.is_some()) else {
                continue;
            };
            let connection = &mut self.ledger.connections[carried];
            connection.alive_at_most = now;
            if matches!(request.kind, Kind::Poll { .. } | Kind::Events | Kind::Frames) {
                let is_sure =
                    request.waits_since.is_some() && !may_be_answered && connection.busy_at != now;
                connection.closed_at = is_sure.then_some(now);
                if is_sure && self.ledger.grace_ms == 0 {
                    connection.must_have_ended = Some("its long poll was closed");
                    self.record.tally.count("long poll closed that carried a connection");
                }
            } else {
                // It may have been done, after what was closed before.
                connection.closed_at = None;
            }
        }
        let Some(following) = following else { return };
        let Some(carried) = following.carries else { return };
        let connection = &mut self.ledger.connections[carried];
        connection.alive_at_most = now;
        let is_sure = following.is_settled && !is_told_to_go;
        connection.closed_at = is_sure.then_some(now);
        if is_sure && self.ledger.grace_ms == 0 {
            connection.must_have_ended = Some("its stream was closed");
            self.record.tally.count("stream closed that carried a connection");
        }
    }
}
